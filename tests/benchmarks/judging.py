"""What judging costs: each judge alone, and all metrics of a suite together against the sum of the judges alone.

The images are another model's than the base's, as bytes in memory. A judge alone looks at all of them, a batch at a time. All
together: every judge looks, what it says is stored, and all rows and records of the model on all tasks are computed, derived
metrics and comparisons with the base included. What a run does once for all models is done before: the base and the reference
sets are judged and scored, texts are embedded. Weight changes and probes are no judging. Required: at most 1.3 times the judges alone.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measuring import Row, Settings, alternate, middle, planned, seconds_of
from conceptbench.engine.images import BASE, ImageSpec
from conceptbench.engine.judging import Hearing
from conceptbench.engine.run import Runner
from conceptbench.engine.scoring import TaskScores
from conceptbench.engine.seen import Model
from conceptbench.engine.store import Store
from conceptbench.models.sampling import threads

REQUIRED = 1.3
ROUNDS = 3
SUITE = "mini-metrics"
OTHER = "another model"


@dataclass(frozen=True)
class Scene:
    """A suite whose base is judged and scored, and the pixels of another model's images."""

    runner: Runner
    tasks: dict[str, list[ImageSpec]]
    scores: dict[str, TaskScores]
    pixels: dict[str, NDArray[np.uint8]]

    @property
    def images(self) -> int:
        """Of all tasks."""
        return sum(map(len, self.tasks.values()))

    def batches(self) -> list[tuple[str, list[int]]]:
        """Indices of a task's images, a batch at a time."""
        size = self.runner.session.batch
        return [(t, list(range(i, min(i + size, len(own))))) for t, own in self.tasks.items() for i in range(0, len(own), size)]


def run(settings: Settings) -> list[Row]:
    """Seconds an image of each judge, and the ratio of everything to their sum."""
    chosen = replace(settings, suite=SUITE) if settings.suite == Settings().suite else settings
    base, plan = planned(chosen, (), limit=settings.limit)
    suite = plan.suite.model_copy(update={"metrics": tuple(m for m in plan.suite.metrics if m.metric not in ("m_score", "attention_map")), "floor": None})
    with threads(settings.threads), tempfile.TemporaryDirectory() as folder:
        scene = prepared(Runner(base, replace(plan, suite=suite), Store(Path(folder))))
        score_all(scene)  # everything is allocated
        alone: list[dict[str, float]] = []

        def judges(_round: int) -> float:
            alone.append({name: seconds_of(lambda n=name: judge_alone(scene, n)) for name in scene.runner.measures.judges})
            return sum(alone[-1].values())

        rounds = alternate(lambda _: seconds_of(lambda: score_all(scene)), judges, settings.rounds_or(ROUNDS))
        return rows(scene, rounds, alone)


def prepared(runner: Runner) -> Scene:
    """Draws the base's images, judges them, and takes the base's own, in another order, for another model's images."""
    runner.run()
    tasks = {t.id: list(runner.plan.images[t.id]) for t in runner.plan.suite.tasks}
    scores = {t.id: runner.task_scores(t, tasks[t.id]) for t in runner.plan.suite.tasks}
    for task in runner.plan.suite.tasks:
        scores[task.id].score(runner.base_model(task), is_base=True)
    pixels = {}
    for task, specs in tasks.items():
        pixels[task] = np.roll(runner.store.read_images([s.key(runner.plan.info, BASE) for s in specs]), 1, axis=0)
    return Scene(runner, tasks, scores, pixels)


def judge_alone(scene: Scene, name: str) -> None:
    """One judge looks at all images."""
    judge: Any = scene.runner.measures.judges[name]
    for task, indices in scene.batches():
        pixels = scene.pixels[task][indices]
        judge(pixels, pixels) if judge.card.role == "distance" else judge(pixels)


def score_all(scene: Scene) -> None:
    """Every judge looks and is stored, then all rows and records of the model on all tasks."""
    runner = scene.runner
    with tempfile.TemporaryDirectory() as folder:
        # what was judged goes to a store of its own, so that nothing is known from the round before; partners come from the first
        hearing = Hearing(runner.measures.judges, runner.plan.info, OTHER, _Partners(Path(folder), runner.store))
        for task, indices in scene.batches():
            specs = [scene.tasks[task][i] for i in indices]
            hearing.look([f"{task}/{i}" for i in indices], specs, scene.pixels[task][indices])
        for task, scores in scene.scores.items():
            places = {id(s): f"{task}/{i}" for i, s in enumerate(scene.tasks[task])}
            scores.score(Model(OTHER, "", lambda s, p=places: p[id(s)], hearing.said, {"train_seed": None}, whole=False), is_base=False)


class _Partners(Store):
    """A store of answers whose images are another store's."""

    def __init__(self, root: Path, images: Store) -> None:
        super().__init__(root)
        self._images = images

    def read_images(self, keys: Any) -> NDArray[np.uint8]:
        """From the other store."""
        return self._images.read_images(keys)


def rows(scene: Scene, rounds: list[tuple[float, float]], alone: list[dict[str, float]]) -> list[Row]:
    """The table's lines: the requirement, then each judge."""
    value, spread = middle([ours / judges for ours, judges in rounds])
    seconds = [middle([r[i] for r in rounds])[0] for i in (0, 1)]
    measures = scene.runner.measures
    how = f"{scene.images} images, {len(measures.order)} metrics, {len(measures.judges)} judges; rows and records of one model on {len(scene.tasks)} tasks"
    found = [Row("judging: all metrics together", f"{seconds[0]:.2f} s", f"{seconds[1]:.2f} s", value, "x", ("at most", REQUIRED), spread, how)]
    for name in measures.judges:
        own, of_rounds = middle([1000 * a[name] / scene.images for a in alone])
        found.append(Row(f"judging: {name}", f"{own:.2f} ms", "", own, "ms", None, of_rounds, "alone, an image"))
    return found
