"""Asks each judge once about each image, whatever the number of metrics that want to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.errors import ConceptBenchError, UnitFailedError
from conceptbench.core.files import key_of
from conceptbench.core.judge import JudgeCard, Outputs, StackedJudge
from conceptbench.engine.images import BASE, ImageSpec
from conceptbench.engine.memory import is_out_of_memory
from conceptbench.engine.store import Store
from conceptbench.models.info import BaseInfo

Said = dict[str, Mapping[str, NDArray[Any]]]
"""image key -> what one judge said of the image."""


def judge_key(card: JudgeCard) -> str:
    """What identifies a judge's answers: its weights, labels and preprocessing."""
    return key_of({"id": card.id, "sha256": card.sha256, "labels": dict(card.labels), "preprocessing": card.preprocessing})


class Hearing:
    """What the judges say of one model's images: from the store, or asked and stored.

    A judge on top of another one that is asked, too, is given the other's answers, so that no network sees an image twice.

    Args:
        judges: by name.
        info: the base's identity.
        model: hash of the erasure, or ``base``.
        store: of images and answers.
        pairs: whether to ask judges of role ``distance``, which compare with the base's images: not about the base itself, and not
            in one shard of several, where the base's image may be another shard's to draw.
        partner: the base's image that an image is compared with: by default the one of the same spec.

    Attributes:
        said: judge -> image key -> named arrays of that image.
        looked: judge -> how many images it looked at now.
    """

    def __init__(
        self,
        judges: Mapping[str, Any],
        info: BaseInfo,
        model: str,
        store: Store,
        *,
        pairs: bool = True,
        partner: Callable[[ImageSpec], ImageSpec] = lambda spec: spec,
    ) -> None:
        self._partner = partner
        self._judges = {n: j for n, j in judges.items() if j.card.role != "distance" or (pairs and model != BASE)}
        self._info, self._model, self._store = info, model, store
        self._who = {n: judge_key(j.card) for n, j in self._judges.items()}
        names = {who: n for n, who in self._who.items()}
        under = {n: names.get(judge_key(j.trunk.card)) for n, j in self._judges.items() if isinstance(j, StackedJudge)}
        self._trunks = {n: trunk for n, trunk in under.items() if trunk is not None}
        self.said: dict[str, Said] = {n: store.read_judged(who, model) for n, who in self._who.items()}
        self.looked = dict.fromkeys(self._judges, 0)

    def unheard(self, keys: Sequence[str]) -> list[str]:
        """The images of which some judge has said nothing yet, in the order given."""
        return [k for k in keys if any(k not in said for said in self.said.values())]

    def look(self, keys: Sequence[str], specs: Sequence[ImageSpec], pixels: NDArray[np.uint8]) -> None:
        """Asks every judge about those images that it has not seen, and stores what each says as one shard.

        Args:
            keys: N image keys.
            specs: what they show.
            pixels: (N, H, W, 3) uint8.
        """
        for name in sorted(self._judges, key=lambda n: n in self._trunks):
            new = [i for i, k in enumerate(keys) if k not in self.said[name]]
            if not new:
                continue
            chosen = [keys[i] for i in new]
            outputs = self._ask(name, chosen, [specs[i] for i in new], pixels[new])
            self._store.write_judged(self._who[name], self._model, chosen, outputs)
            self.said[name].update({k: {n: a[i] for n, a in outputs.items()} for i, k in enumerate(chosen)})
            self.looked[name] += len(new)

    def _ask(self, name: str, keys: Sequence[str], specs: Sequence[ImageSpec], pixels: NDArray[np.uint8]) -> Outputs:
        judge, trunk = self._judges[name], self._trunks.get(name)
        partners = () if judge.card.role != "distance" else (self._store.read_images([self._partner(s).key(self._info, BASE) for s in specs]),)
        try:
            if trunk is not None:
                return dict(judge.from_features(np.stack([self.said[trunk][k]["features"] for k in keys])))
            return dict(judge(pixels, *partners))
        except (ConceptBenchError, OSError, MemoryError):
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise UnitFailedError(f"the judge {name!r} failed on {len(pixels)} images of {pixels.shape[1]} x {pixels.shape[2]} px: {error!r}") from error
