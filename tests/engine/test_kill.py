"""Runs that are killed at random moments give what an uninterrupted run gives, byte for byte, and repeat at most one batch."""

from __future__ import annotations

import collections
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from running import image_bytes
from world import write_suite

from conceptbench.engine.session import read_journal

ROUNDS = 20
STAGES = ("erase", "generate", "score", "report")


@pytest.fixture(scope="module")
def server():
    # the fork server of Python 3.11 does not take over sys.path
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killing"])
    return context


@pytest.fixture(scope="module")
def start(server, folders, tmp_path_factory):
    import killing

    one = {"id": "one", "targets": ["ab"], "retained": ["ef"]}
    folder = tmp_path_factory.mktemp("suite")
    suite = write_suite(folder, tasks=[{**one, "prompts": {"set": str(folder / "prompts.csv")}}])

    def begin(store, output, shard="1/1"):
        process = server.Process(target=killing.job, args=(suite, folders["sd1"], store, output, shard))
        process.start()
        return process

    return begin


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """An uninterrupted run: what it gave, and how long each stage took on average."""
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder / "store", folder / "out")
    process.join(120)
    assert process.exitcode == 0, (folder / "out" / "log.txt").read_text()
    events = read_journal(folder / "out" / "journal.jsonl")
    lengths = collections.defaultdict(list)
    for a, b in pairwise([e for e in events if e["event"] in ("begin", "end")]):
        if (a["event"], b["event"]) == ("begin", "end"):
            lengths[a["stage"]].append(max(0.002, b["time"] - a["time"]))
    return given(folder), {s: sum(lengths[s]) / len(lengths[s]) for s in STAGES}


def given(folder: Path):
    """What must not depend on interruptions: images, records, canonical results."""
    document = json.loads((folder / "out" / "results.json").read_text())
    return image_bytes(folder / "store"), (folder / "out" / "records.csv").read_bytes(), document["canonical"]


def open_stage(events, pid):
    """The stage that a dead process was in."""
    begun = []
    for event in events:
        if event["pid"] == pid and event["event"] == "begin":
            begun.append(event["stage"])
        elif event["pid"] == pid and event["event"] == "end":
            begun.remove(event["stage"])
    return begun[-1] if begun else None


def kill_in(stage, start, folder, seconds, rng):
    """Kills a run at a random moment of a stage. Returns whether it was in that stage; None if it ended before."""
    journal = folder / "out" / "journal.jsonl"
    process = start(folder / "store", folder / "out")
    skip = rng.randrange(3) if stage in ("generate", "score") else 0
    size = 0
    while process.is_alive():
        if not journal.exists() or journal.stat().st_size == size:
            time.sleep(0.001)
            continue
        size = journal.stat().st_size
        begun = [e for e in read_journal(journal) if (e["pid"], e["event"], e["stage"]) == (process.pid, "begin", stage)]
        if len(begun) > skip or (begun and stage == "generate"):
            time.sleep(rng.random() * seconds)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            return open_stage(read_journal(journal), process.pid) == stage if process.exitcode == -signal.SIGKILL else None
    process.join()
    return None


def judged_twice(store: Path):
    seen = collections.Counter()
    for path in (store / "judged").rglob("*.npz"):
        seen.update((path.parent.parent.name, str(k)) for k in np.load(path)["keys"])
    return [k for k, n in seen.items() if n > 1]


def test_killed_anywhere_it_goes_on_to_the_same_bytes(start, whole, tmp_path):
    expected, seconds = whole
    rng = random.Random(20)
    hits = collections.Counter()
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        for stage in STAGES:
            for _ in range(12):
                hit = kill_in(stage, start, folder, seconds[stage], rng)
                if hit:
                    hits[stage] += 1
                    break
                if hit is None and stage in ("erase", "generate"):  # it was over before the signal came: begin again
                    shutil.rmtree(folder)
        process = start(folder / "store", folder / "out")
        process.join(120)
        assert process.exitcode == 0, (folder / "out" / "log.txt").read_text()
        assert given(folder) == expected
        events = read_journal(folder / "out" / "journal.jsonl")
        drawn = collections.Counter(k for e in events if (e["event"], e["stage"]) == ("batch", "generate") for k in e["keys"])
        steps = collections.Counter((e["unit"], e["step"]) for e in events if e["event"] == "checkpoint")
        assert set(drawn.values()) <= {1} and set(steps.values()) <= {1}  # only what was under way is done again
        assert not judged_twice(folder / "store")
        assert not list((folder / "store" / "training").iterdir())
        shutil.rmtree(folder)
    assert all(hits[s] >= 0.9 * ROUNDS for s in STAGES), hits


def test_sigterm_finishes_the_batch_and_exits_for_a_requeue(start, whole, tmp_path):
    process = start(tmp_path / "store", tmp_path / "out")
    journal = tmp_path / "out" / "journal.jsonl"
    while process.is_alive() and not any(e["event"] == "batch" for e in read_journal(journal)):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143 or "StoppedError" in (tmp_path / "out" / "log.txt").read_text()
    images = len(image_bytes(tmp_path / "store"))
    assert 0 < images < len(whole[0][0]) and images == sum(len(e["keys"]) for e in read_journal(journal) if e["event"] == "batch")
    process = start(tmp_path / "store", tmp_path / "out")
    process.join(120)
    assert given(tmp_path) == whole[0]


def test_two_runs_on_one_store_at_once_are_safe(start, whole, tmp_path):
    runs = [start(tmp_path / "store", tmp_path / name) for name in ("out", "other")]
    for process in runs:
        process.join(180)
        assert process.exitcode == 0
    assert given(tmp_path) == whole[0]
    assert (tmp_path / "other" / "records.csv").read_bytes() == whole[0][1]
    made = [e for n in ("out", "other") for e in read_journal(tmp_path / n / "journal.jsonl") if (e["event"], e["stage"]) == ("end", "erase")]
    assert len(made) == 1  # the second waited for the first


def test_shards_make_what_one_run_makes(start, whole, tmp_path):
    for part in ("1/3", "2/3", "3/3"):
        process = start(tmp_path / "store", tmp_path / part[0], part)
        process.join(120)
        assert process.exitcode == 0 and not (tmp_path / part[0] / "results.json").exists()
    parts = [[k for e in read_journal(tmp_path / n / "journal.jsonl") if e["event"] == "batch" for k in e["keys"]] for n in "123"]
    assert all(parts) and sum(map(len, parts)) == len(set().union(*parts)) == len(whole[0][0])  # a partition
    process = start(tmp_path / "store", tmp_path / "out")
    process.join(120)
    assert given(tmp_path) == whole[0]
    # nothing was left to make; pairs are judged by the run that sees both images
    assert {e["stage"] for e in read_journal(tmp_path / "out" / "journal.jsonl")} == {"judge", "score", "report"}
