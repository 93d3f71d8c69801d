"""Which of a classifying judge's labels compete, and where a concept's own are among them.

"1 of 1000" and "1 of these 10" are two protocols: a tape player that the judge takes for a cassette is wrong in the first and
right in the second. So the set is an option of the metrics, and a part of the name of their arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.errors import UserInputError, unknown_name
from conceptbench.core.files import key_of
from conceptbench.core.judge import JudgeCard
from conceptbench.core.label_sets import load_label_set
from conceptbench.core.schemas import Concept

Among = str | tuple[str, ...] | None
"""Option of a metric: a registered set of labels, a list of ``head/label``, or None for all labels of the head."""


@dataclass(frozen=True)
class Choices:
    """The labels of a classifier that compete.

    Attributes:
        heads: head -> its labels that compete, in the order of the judge's outputs.
        indices: head -> where they are in the judge's outputs.
        name: for the arithmetic: ``58+10+7way``, a set's name, or ``10way-1f0c`` for a list (with the hash of the list).
    """

    heads: Mapping[str, tuple[str, ...]]
    indices: Mapping[str, NDArray[np.intp]]
    name: str

    @classmethod
    def of(cls, among: Among, judge: JudgeCard) -> Choices:
        """The labels that compete.

        Args:
            among: the metric's option.
            judge: the classifier; a card without labels (its weights are not here) leaves nothing to check, and no head.

        Raises:
            UserInputError: no such set, a label that the judge does not have, labels of two heads, one label only, or one twice.
        """
        if among is None:
            sizes = "+".join(str(len(names)) for names in judge.labels.values())
            return cls(dict(judge.labels), {head: np.arange(len(names)) for head, names in judge.labels.items()}, f"{sizes}way")
        wanted = load_label_set(among) if isinstance(among, str) else among
        head = _one_head(wanted, judge)
        name = among if isinstance(among, str) else f"{len(wanted)}way-{key_of(sorted(wanted))[:4]}"
        if not judge.labels:
            return cls({}, {}, name)
        chosen = {label.partition("/")[2] for label in wanted}
        indices = [i for i, label in enumerate(judge.labels[head]) if label in chosen]
        return cls({head: tuple(judge.labels[head][i] for i in indices)}, {head: np.array(indices)}, name)

    def place(self, concept: Concept) -> tuple[str, list[int]] | None:
        """The first head with labels of the concept that compete, and their positions among those that do; None if there is none."""
        for head, names in self.heads.items():
            own = [label.partition("/")[2] for label in concept.labels if label.partition("/")[0] == head]
            found = [names.index(label) for label in own if label in names]
            if found:
                return head, found
        return None

    def distribution(self, said: Mapping[str, NDArray[np.floating]], head: str) -> NDArray[np.float64] | None:
        """The probabilities (C,) of a head's labels that compete, of one image, with the sum 1.

        None if the judge gave no distribution: a value that is negative or not a number, or zeros only.
        """
        p = np.asarray(said[head], np.float64)[self.indices[head]]
        total = float(p.sum())
        return p / total if np.isfinite(total) and total > 0 and float(p.min()) >= 0 else None


def _one_head(wanted: Sequence[str], judge: JudgeCard) -> str:
    """The head of all labels of a list, which must be right."""
    known = judge.numbered()
    for label in wanted:
        if (known and label not in known) or "/" not in label:
            raise unknown_name(f"label of judge {judge.id!r} in `among`", label, known or ["head/label"], f"conceptbench show judge {judge.id}")
    heads = sorted({label.partition("/")[0] for label in wanted})
    if len(heads) > 1:
        raise UserInputError(f"`among` has labels of the heads {', '.join(heads)}", "only labels of one head compete with each other: name one head's")
    if len(set(wanted)) < max(2, len(wanted)):
        raise UserInputError(f"`among` needs at least two labels, each once, and has: {', '.join(wanted) or 'none'}", "list them as head/label")
    return heads[0]
