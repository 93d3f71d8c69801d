"""Whatever goes wrong is a clear error or a counted unit that names the file, and nothing is lost."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from running import ESD, carry_out, image_bytes, runner_of
from world import write_suite

from conceptbench.core.errors import StoppedError, UserInputError, WriteError
from conceptbench.core.manifests import load_suite
from conceptbench.engine.generate import in_halves
from conceptbench.engine.provenance import canonical
from conceptbench.engine.session import Journal, Session, Shard, Stop, read_journal
from conceptbench.engine.store import Store


@pytest.fixture
def suite(tmp_path):
    return write_suite(tmp_path / "suite")


def test_a_full_disk_is_fatal_names_the_file_and_loses_nothing(suite, folders, tmp_path, monkeypatch):
    whole, _ = carry_out(suite, folders, tmp_path / "whole", ["uce"], batch=4)
    synced, real = [], os.fsync

    def fsync(handle):
        synced.append(handle)
        if len(synced) > 15:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(WriteError, match=r"cannot write .*\.(png|npz): No space left") as caught:
        carry_out(suite, folders, tmp_path / "store", ["uce"], batch=4)
    assert "run again to go on" in caught.value.hint and caught.value.exit_code == 3
    kept = image_bytes(tmp_path / "store")
    assert kept and not list((tmp_path / "store").rglob("*.part"))
    monkeypatch.setattr(os, "fsync", real)
    again, _ = carry_out(suite, folders, tmp_path / "store", ["uce"], batch=4)
    assert again.work.images == whole.work.images - len(kept) and canonical(again.rows) == canonical(whole.rows)
    assert image_bytes(tmp_path / "store") == image_bytes(tmp_path / "whole")


def test_a_read_only_folder_is_named(suite, folders, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(WriteError, match="Permission denied") as caught:
        carry_out(suite, folders, tmp_path / "store", [])
    assert "writable" in caught.value.hint


def test_a_store_below_a_file_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserInputError, match=r"cannot use .*file/store as a store"):
        Store(tmp_path / "file" / "store")


@pytest.mark.parametrize("name", ["../mini", "../../etc/passwd", "mini/../mini"])
def test_a_suite_name_is_no_path(name):
    with pytest.raises(UserInputError, match="unknown suite"):
        load_suite(name)


def test_a_suite_cannot_call_itself_a_path(tmp_path):
    with pytest.raises(UserInputError, match="name"):
        load_suite(str(write_suite(tmp_path, name="../../evil")))


def test_out_of_memory_halves_the_batch(suite, folders, tmp_path):
    whole, _ = carry_out(suite, folders, tmp_path / "whole", [], batch=8)
    runner = runner_of(suite, folders["sd1"], tmp_path / "store", [], batch=8)
    sizes, real = [], runner.base.sample

    def sample(conditions, *args, **kwargs):
        sizes.append(len(conditions))
        if len(conditions) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(conditions, *args, **kwargs)

    runner.base.sample = sample
    outcome = runner.run()
    assert sizes[:3] == [8, 4, 2] and image_bytes(tmp_path / "store") == image_bytes(tmp_path / "whole")
    assert canonical(outcome.rows) == canonical(whole.rows)
    assert any("out of memory with 8 images" in n and "--batch 4" in n for n in outcome.work.notes)


def test_out_of_memory_with_one_image_is_an_error_and_other_errors_are_not_halved():
    def greedy(indices):
        raise MemoryError("no")

    with pytest.raises(MemoryError):
        in_halves(greedy, [1, 2], lambda _: None)
    calls = []

    def wrong(indices):
        calls.append(indices)
        raise RuntimeError("shapes")

    with pytest.raises(RuntimeError, match="shapes"):
        in_halves(wrong, [1, 2, 3, 4], lambda _: None)
    assert calls == [[1, 2, 3, 4]]


def test_a_clock_that_goes_backwards_changes_nothing(suite, folders, tmp_path, monkeypatch):
    whole, _ = carry_out(suite, folders, tmp_path / "whole", [ESD])
    now = [1e9]

    def backwards():
        now[0] -= 1.0
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr(time, "monotonic", backwards)
    monkeypatch.setattr(time, "perf_counter", backwards)
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [ESD], session=Session(journal=Journal(tmp_path / "journal.jsonl")))
    assert canonical(outcome.rows) == canonical(whole.rows) and min(outcome.work.seconds.values()) >= 0
    assert all(r.erase_seconds is None or r.erase_seconds >= 0 for r in outcome.rows)


class StopAfter:
    """A reporter that asks to stop after so many items."""

    def __init__(self, stop, items):
        self.stop, self.left = stop, items

    def begin(self, what, total):
        pass

    def advance(self, items):
        self.left -= items
        if self.left <= 0:
            self.stop.asked = "SIGTERM"

    def end(self):
        pass


@pytest.mark.parametrize("items", [13, 14, 15, 17])
def test_stopped_in_training_it_goes_on_to_the_same_bytes(suite, folders, tmp_path, items):
    """12 images of the base are drawn, then three steps are trained; some stops fall into the training."""
    whole, _ = carry_out(suite, folders, tmp_path / "whole", [ESD])
    stop = Stop()
    with pytest.raises(StoppedError) as caught:
        carry_out(suite, folders, tmp_path / "store", [ESD], session=Session(reporter=StopAfter(stop, items), stop=stop))
    assert caught.value.exit_code == 143
    again, _ = carry_out(suite, folders, tmp_path / "store", [ESD])
    assert again.erasures == whole.erasures and canonical(again.rows) == canonical(whole.rows)
    assert image_bytes(tmp_path / "store") == image_bytes(tmp_path / "whole")
    assert [c for c in again.curves.values()] == [c for c in whole.curves.values()]


def test_a_damaged_training_state_is_not_used(suite, folders, tmp_path):
    whole, _ = carry_out(suite, folders, tmp_path / "whole", [ESD])
    stop = Stop()
    with pytest.raises(StoppedError):
        carry_out(suite, folders, tmp_path / "store", [ESD], session=Session(reporter=StopAfter(stop, 14), stop=stop))
    states = sorted((tmp_path / "store" / "training").rglob("*.safetensors"))
    assert {p.name for p in states} == {"once-trajectories.safetensors", "step-1.safetensors"}
    for path in states:
        data = bytearray(path.read_bytes())
        data[-5] ^= 1
        path.write_bytes(bytes(data))
    again, _ = carry_out(suite, folders, tmp_path / "store", [ESD])
    assert again.erasures == whole.erasures and canonical(again.rows) == canonical(whole.rows)


def test_a_damaged_image_is_counted_and_named(suite, folders, tmp_path):
    carry_out(suite, folders, tmp_path / "store", [])
    path = sorted((tmp_path / "store" / "images").rglob("*.png"))[0]
    path.write_bytes(b"\x89PNG")
    outcome, _ = carry_out(suite, folders, tmp_path / "store", [])
    assert [str(path) in n for n in outcome.work.notes] == [True]


def test_a_torn_journal_line_is_dropped(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("begin", "erase", "a")
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"event":"beg')
    assert [e["unit"] for e in read_journal(tmp_path / "journal.jsonl")] == ["a"]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_wrong_shard_is_bad_input(text):
    with pytest.raises(UserInputError, match="not a shard"):
        Shard.parse(text)


def test_shards_partition_and_rotate():
    items = list(range(11))
    assert sorted(i for k in range(1, 4) for i in Shard.parse(f"{k}/3").of(items)) == items
    assert all(sorted(Shard.parse(f"{k}/3").rotated(items)) == items for k in range(1, 4))
    assert len({Shard.parse(f"{k}/3").rotated(items)[0] for k in range(1, 4)}) == 3


def test_collecting_makes_nothing_and_marks_what_is_missing(suite, folders, tmp_path):
    stop = Stop()
    with pytest.raises(StoppedError):
        carry_out(suite, folders, tmp_path / "store", ["uce"], batch=4, session=Session(reporter=StopAfter(stop, 17), stop=stop))
    before = image_bytes(tmp_path / "store")
    outcome = runner_of(suite, folders["sd1"], tmp_path / "store", ["uce"], collect=True).run()
    assert image_bytes(tmp_path / "store") == before and not outcome.failures
    base = [r for r in outcome.rows if r.eraser == "base" and r.role != "model"]
    mine = {r.task: r for r in outcome.rows if r.eraser == "uce" and r.concept == "*" and r.metric == "psr-1"}
    assert {r.status for r in base} == {"ok"}
    assert mine["one"].status == mine["two"].status == "partial"
    assert (mine["two"].n_scored, mine["two"].n_failed, mine["two"].value) == (0, 0, None) and mine["two"].n_planned == 8


def test_in_a_key_the_precision_counts(sd1):
    from conceptbench.core.schemas import Sampler
    from conceptbench.engine.images import ImageSpec
    from conceptbench.models.conditions import Condition

    spec = ImageSpec("t", "c", "target", "p", 0, Condition("ab"), 2, Sampler(steps=2))
    plain = spec.key(sd1.info, "base")
    sd1.sample_with("bf16")
    assert spec.key(sd1.info, "base") != plain and replace(sd1.info, precision="fp32").precision == "fp32"
    with pytest.raises(UserInputError, match="unknown precision 'bf61'; did you mean 'bf16'"):
        sd1.sample_with("bf61")


def test_half_precision_draws_nearly_the_same_picture(sd1):
    from conceptbench.core.schemas import Sampler
    from conceptbench.models.conditions import Condition

    sampler, conditions = Sampler(steps=4, guidance=3.0), [Condition("ab"), Condition("cd")]
    exact = sd1.sample(conditions, [2, 4], sampler)
    sd1.sample_with("bf16")
    with sd1.drawing():
        close = sd1.sample(conditions, [2, 4], sampler)
    apart = np.abs(exact.astype(int) - close.astype(int))
    assert apart.max() > 0 and apart.mean() < 4
    assert np.array_equal(sd1.sample(conditions, [2, 4], sampler), exact)  # outside `drawing` it is plain again
