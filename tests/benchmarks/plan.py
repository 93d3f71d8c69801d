"""Planning a million images: wall time and memory of the whole process.

The suite is written here: 100,000 prompts of one concept list, ten images each, every image another one. A new Python
process then does what ``conceptbench plan`` does against an empty store: it imports the harness, reads and checks the
suite, loads the base, makes the plan, counts it against the store and predicts its time. The wall time is the process's,
from its start to its end. Memory is the largest resident set of that process (``VmHWM``; on other systems than Linux
``ru_maxrss``, which on Linux may hold the parent's). The parts are measured inside the process.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.measuring import Row, Settings

SECONDS, GIB = 20.0, 1.0
ROUNDS = 3


def run(settings: Settings) -> list[Row]:
    """Wall seconds, memory and the parts of the time."""
    with tempfile.TemporaryDirectory() as name:
        suite = write_suite(Path(name), settings.suite, settings.base, settings.prompts, settings.images_per_prompt)
        measured = [in_a_process(suite, settings.base, Path(name) / f"store-{i}", settings.threads) for i in range(settings.rounds_or(ROUNDS))]
    return rows(measured, settings.prompts * settings.images_per_prompt)


def rows(measured: list[dict[str, float]], images: int) -> list[Row]:
    """The table's rows from what each process said.

    Raises:
        RuntimeError: the plan has not as many images as were asked for.
    """
    from benchmarks.measuring import Row, middle

    if any(m["images"] != images for m in measured):
        raise RuntimeError(f"planned {measured[0]['images']:.0f} images, not {images}")
    how = f"{images:,} distinct images, empty store; one process from start to end; {len(measured)} runs"
    wall, memory = (middle([m[k] for m in measured]) for k in ("wall", "gib"))
    parts = {k: middle([m[k] for m in measured])[0] for k in measured[0] if k not in ("wall", "gib", "images", "gib before")}
    inside = sum(v for k, v in parts.items() if k not in ("import", "base"))
    return [
        Row("plan: wall time", f"{wall[0]:.1f} s", "", wall[0], "s", ("at most", SECONDS), wall[1], how),
        Row(
            "plan: peak memory",
            f"{memory[0]:.2f} GiB",
            "",
            memory[0],
            "GiB",
            ("at most", GIB),
            memory[1],
            f"{measured[0]['gib before']:.2f} GiB before planning",
        ),
        Row("plan: without imports and base", f"{inside:.1f} s", f"{wall[0]:.1f} s", inside, "s", how=", ".join(f"{k} {v:.2f} s" for k, v in parts.items())),
    ]


def write_suite(folder: Path, like: str, base: str, prompts: int, images_per_prompt: int) -> Path:
    """A suite with one task over a shipped suite's concepts and so many prompts, all with texts of their own."""
    from conceptbench.core.files import write_text
    from conceptbench.core.manifests import load_suite

    suite = load_suite(like)
    task = suite.tasks[0]
    names = (*task.targets, *task.retained)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["prompt_id", "text", "concept", "split"])
    writer.writerows([f"p{i:06d}", f"a picture of {names[i % len(names)]} number {i}", names[i % len(names)], "heldout"] for i in range(prompts))
    write_text(folder / "prompts.csv", out.getvalue())
    document = suite.model_dump(mode="json")
    document.update(
        name="many",
        base=base,
        images_per_prompt=images_per_prompt,
        erasers=[],
        tasks=[{**document["tasks"][0], "prompts": {"set": str(folder / "prompts.csv")}}],
    )
    write_text(folder / "many.yaml", json.dumps(document, indent=1))  # JSON is YAML
    return folder / "many.yaml"


def in_a_process(suite: Path, base: str, store: Path, threads: int) -> dict[str, float]:
    """Plans in a new process; its own figures, and its wall seconds.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, suite, base, store], env=environment, capture_output=True, text=True)
    wall = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"planning failed:\n{done.stderr[-2000:]}")
    return {"wall": wall, **json.loads(done.stdout)}


def peak_gib() -> float:
    """The largest resident set of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def job(suite_path: str, base_name: str, store: str) -> dict[str, float]:
    """What the process does. Seconds of each part, GiB, and the number of images planned."""
    marks = [("", time.perf_counter())]

    def mark(name: str) -> None:
        marks.append((name, time.perf_counter()))

    from conceptbench.core.manifests import load_suite
    from conceptbench.engine.plan import make_plan
    from conceptbench.engine.preview import preview
    from conceptbench.engine.store import Store
    from conceptbench.models.families import load_base

    mark("import")
    base = load_base(base_name)
    mark("base")
    before = peak_gib()
    suite = load_suite(suite_path)
    mark("load_suite")
    plan = make_plan(suite, base.info, [])
    mark("make_plan")
    figures = preview(plan, Store(Path(store)), base)
    mark("preview")
    seconds = {name: now - last for (_, last), (name, now) in itertools.pairwise(marks)}
    return {**seconds, "gib": peak_gib(), "gib before": before, "images": figures.images}


if __name__ == "__main__":
    del sys.path[0]  # this folder's names are not to be found instead of anybody else's
    sys.stdout.write(json.dumps(job(*sys.argv[1:])) + "\n")
