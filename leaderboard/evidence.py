"""What a number can be derived again from: score records of images, and for metrics of sets and of models what was stored.

::

    FOLDER/records.csv                  one row an image and model: its value under every metric of images
    FOLDER/probes.json                  what probes found in each model, where the suite has probes
    FOLDER/judged/JUDGE/GROUP/*.npz     of judges that metrics of sets ask: what they said of each image, of reference sets and of texts

The last are shards as the store has them (:mod:`conceptbench.engine.store`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import key_of, pretty_json, write_text
from conceptbench.core.judge import JudgeCard
from conceptbench.core.manifests import task_concepts
from conceptbench.core.metric import Asked, SetMetric
from conceptbench.core.registry import REFERENCES
from conceptbench.core.schemas import Concept, Suite
from conceptbench.engine.groups import groups_of, row_roles
from conceptbench.engine.images import Images, ImageSpec
from conceptbench.engine.judging import judge_key
from conceptbench.engine.measures import Measure, Measures, load_measures, registered_judge
from conceptbench.engine.probing import read_finding
from conceptbench.engine.records import Record
from conceptbench.engine.references import References
from conceptbench.engine.store import Store
from conceptbench.models.probe import Probed

RECORDS, PROBES = "records.csv", "probes.json"
IMAGES, TEXTS = "images", "texts"
PROBED = "conceptbench-probes-1"


class Witness:
    """Stands for a judge whose answers are evidence: it has the card, and knows the texts that were embedded.

    Args:
        card: the judge's.
        texts: text -> embedding.
    """

    def __init__(self, card: JudgeCard, texts: Mapping[str, NDArray[Any]]) -> None:
        self.card, self._texts = card, texts

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The embeddings (T, D); NaN for texts that are no evidence of any set metric."""
        size = len(next(iter(self._texts.values()))) if self._texts else 1
        return np.stack([np.asarray(self._texts.get(t, np.full(size, np.nan)), np.float32) for t in texts])


class KeptReferences(References):
    """Reference sets whose digests were kept; those that are drawn here are drawn again.

    Args:
        judges: by name.
        store: the evidence.
        digests: of what was asked for (:meth:`asked`) -> hash of the set's images.
    """

    def __init__(self, judges: Mapping[str, Any], store: Store, digests: Mapping[str, str]) -> None:
        super().__init__(judges, store)
        self._kept = digests

    @staticmethod
    def asked(name: str, n: int | None, concepts: Sequence[Concept]) -> str:
        """The key of a set by what it was asked for. A folder counts by its last part: where it lay is nobody's business."""
        return key_of([name if name in REFERENCES.names() else Path(name).name, n, list(concepts)])

    def _asked(self, judge: str, *_: Any) -> dict[str, NDArray[Any]]:
        raise UserInputError(f"the evidence lacks what {judge} said of a reference set", "export the run again")

    def digest(self, name: str, n: int | None, concepts: Sequence[Concept]) -> str:
        """The hash of a set's pixels, or of a folder's files."""
        try:
            return super().digest(name, n, concepts)
        except UserInputError:
            kept = self._kept.get(self.asked(name, n, concepts))
            if kept is None:
                raise
            return kept


@dataclass(frozen=True)
class Gathered:
    """What was gathered of a run: digests of reference sets, and what is not there by the set metric's protocol."""

    references: dict[str, str]
    missing: dict[str, str]


def measures_of(suite: Suite, cards: Mapping[str, JudgeCard], texts: Mapping[str, Mapping[str, NDArray[Any]]] | None = None) -> Measures:
    """A suite's metrics with witnesses in place of judges.

    Raises:
        UserInputError: a judge of the suite has no card.
    """

    def witness(name: str) -> Witness:
        if name not in cards:
            raise UserInputError(f"there is no card of judge {name!r}", "results.json names every judge that was asked")
        return Witness(cards[name], (texts or {}).get(name, {}))

    return load_measures(suite, witness)


# -- gathering -------------------------------------------------------------------------------------------------------
def gather(suite: Suite, images: Mapping[str, Images], measures: Measures, keys: Mapping[str, Collection[str]], store: Store, folder: Path) -> Gathered:
    """Copies what judges said for metrics of sets from a run's store into a folder of evidence.

    Args:
        suite: of the run.
        images: task -> its images.
        measures: of the suite.
        keys: group of the store (hash of an erasure, ``base``, and the like) -> keys of images.
        store: of the run.
        folder: of the evidence.
    """
    cards = {name: judge.card for name, judge in measures.judges.items()}
    found = Gathered({}, {})
    for judge in dict.fromkeys(m.judge for m in measures.sets if m.judge):
        who = judge_key(cards[judge])
        said = {key: arrays for group, wanted in keys.items() for key, arrays in store.read_judged(who, group).items() if key in wanted}
        absent = len(set().union(*keys.values()) - set(said))
        if absent:
            lost = f"the run's store lacks what {judge} said of {absent} images"
            found.missing.update({m.metric.protocol: lost for m in measures.sets if m.judge == judge})
            continue
        _write(Store(folder), who, IMAGES, said)
        if cards[judge].role == "image-text":
            texts = sorted({t for m in measures.sets if m.judge == judge for t in _texts(suite, images, m)})
            embedded = registered_judge(judge).encode_texts(texts) if texts else ()
            _write(Store(folder), who, TEXTS, {t: {"embedding": e} for t, e in zip(texts, embedded, strict=True)})
    _gather_references(suite, images, measures, store, folder, found)
    return found


def _write(store: Store, who: str, group: str, said: Mapping[str, Mapping[str, NDArray[Any]]]) -> None:
    alike: dict[tuple[object, ...], list[str]] = {}  # answers of one shape: a detector's have as many rows as it needed
    for key in sorted(said):
        alike.setdefault(tuple((n, a.shape) for n, a in said[key].items()), []).append(key)
    for keys in alike.values():
        store.write_judged(who, group, keys, {name: np.stack([said[k][name] for k in keys]) for name in said[keys[0]]})


def _applicable(
    suite: Suite, images: Mapping[str, Images], measure: Measure[SetMetric]
) -> Iterator[tuple[list[ImageSpec], Mapping[str, Concept], Mapping[str, Any]]]:
    """Per task: the images that a metric is about, the concepts and their roles."""
    for task in suite.tasks:
        concepts = task_concepts(suite, task)
        yield [s for s in images[task.id] if measure.asks_about(concepts[s.concept], s.role)], concepts, row_roles(task)


def _texts(suite: Suite, images: Mapping[str, Images], measure: Measure[SetMetric]) -> Iterator[str]:
    wide = Measure(measure.metric, measure.judge)  # a metric beside the others looks at images of concepts that it is not limited to
    for specs, concepts, _ in _applicable(suite, images, wide):
        for s in specs:
            yield from measure.metric.texts(Asked(concepts[s.concept], s.role, s.prompt_id, s.condition.text, s.content))


def _gather_references(suite: Suite, images: Mapping[str, Images], measures: Measures, store: Store, folder: Path, found: Gathered) -> None:
    references = References({}, store)
    for measure in (m for m in measures.sets if m.metric.beside not in ("base", "others")):
        name, n = measure.metric.beside, measure.metric.reference_size
        try:
            for specs, concepts, roles in _applicable(suite, images, measure):
                for group in groups_of(specs, roles):
                    shown = list({s.concept: concepts[s.concept] for _, s in group.images}.values())
                    digest = references.digest(name, n, shown)
                    found.references[KeptReferences.asked(name, n, shown)] = digest
                    who = judge_key(measure.metric.judge)
                    said = store.read_judged(who, f"reference-{digest}")
                    if not said:
                        found.missing[measure.metric.protocol] = f"the run's store lacks what {measure.judge} said of the reference set {Path(name).name}"
                    _write(Store(folder), who, f"reference-{digest}", said)
            if name not in REFERENCES.names():
                found.references[KeptReferences.asked(name, n, ())] = references.digest(name, n, ())
        except UserInputError as error:
            found.missing[measure.metric.protocol] = f"the reference set is not to be had: {error.message}"


def gather_probes(findings: Sequence[Mapping[str, str]], store: Store, folder: Path) -> list[str]:
    """Writes what probes found; gives the protocols of which something is not in the store."""
    found: list[dict[str, Any]] = []
    missing = []
    for finding in findings:
        probed = read_finding(store, finding["key"])
        if probed is None:
            missing.append(finding["probe"])
            continue
        values = {part: [float(v) if math.isfinite(v) else None for v in of] for part, of in probed.values.items()}
        found.append({**{k: finding[k] for k in ("task", "concept", "model", "probe")}, "values": values, "clusters": list(probed.clusters)})
    if found:
        write_text(folder / PROBES, pretty_json({"format": PROBED, "found": found}))
    return missing


# -- reading ---------------------------------------------------------------------------------------------------------
def read_probes(folder: Path) -> dict[tuple[str, str], dict[tuple[str, str], Probed]]:
    """(task, hash of the model) -> (probe's protocol, concept) -> what it found; empty where the suite has no probes.

    Raises:
        UserInputError: the file is damaged.
    """
    path = folder / PROBES
    if not path.exists():
        return {}
    every: dict[tuple[str, str], dict[tuple[str, str], Probed]] = {}
    try:
        for one in json.loads(path.read_text(encoding="utf-8"))["found"]:
            values = {part: np.array([np.nan if v is None else v for v in of], np.float64) for part, of in one["values"].items()}
            every.setdefault((one["task"], one["model"]), {})[one["probe"], one["concept"]] = Probed(values, [str(c) for c in one["clusters"]])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserInputError(f"{path}: not readable: {error!r}", "export the run again") from error
    return every


def by_model(records: Sequence[Record]) -> dict[str, dict[tuple[str, str], dict[tuple[str, str, int], Record]]]:
    """Task -> (eraser, preset) -> (concept, prompt, number) -> the record, in the records' order.

    Raises:
        UserInputError: an image of a model is there twice.
    """
    found: dict[str, dict[tuple[str, str], dict[tuple[str, str, int], Record]]] = {}
    for r in records:
        own, place = found.setdefault(r.task, {}).setdefault((r.eraser, r.preset), {}), (r.concept, r.prompt_id, r.number)
        if place in own:
            raise UserInputError(f"task {r.task}, {r.eraser}: the image {r.concept} {r.prompt_id} number {r.number} has two records", "export the run again")
        own[place] = r
    return found
