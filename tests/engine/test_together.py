"""What several processes, precisions, phases and people share must not mix."""

from __future__ import annotations

import os
import stat

import pytest
import torch
from running import ESD, carry_out, entry, image_bytes, runner_of
from world import write_suite

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import append_line, locked, safe_name
from conceptbench.core.registry import ERASERS
from conceptbench.engine.brought import checkpoint_entries
from conceptbench.engine.erasing import stored_erasure
from conceptbench.engine.foreign import claims_of_manifest, claims_of_names, matched
from conceptbench.engine.lineup import resolve
from conceptbench.engine.memory import in_halves
from conceptbench.engine.provenance import canonical
from conceptbench.engine.session import Session, Shard
from conceptbench.engine.state import load_state, save_state
from conceptbench.engine.training import TrainingContext
from conceptbench.erasers.shared.loop import TrainingConfig, train, trainable
from conceptbench.models.conditions import Condition
from conceptbench.models.erasure import Change, Erasure
from conceptbench.models.families import load_base


@pytest.fixture
def suite(tmp_path):
    return write_suite(tmp_path / "suite")


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1)])
def test_shards_in_any_order_make_all_and_fail_nothing(suite, folders, tmp_path, order):
    """Also with a judge of pairs, whose partner may be another shard's image."""
    whole, _ = carry_out(suite, folders, tmp_path / "whole", ["uce"], batch=2)
    for i in order:
        part = runner_of(suite, folders["sd1"], tmp_path / "store", ["uce"], batch=2, session=Session(shard=Shard.parse(f"{i}/3"))).run()
        assert not part.failures and not part.rows and part.work.images > 0
    last, _ = carry_out(suite, folders, tmp_path / "store", ["uce"], batch=2)
    assert last.work.images == 0 and canonical(last.rows) == canonical(whole.rows)
    assert image_bytes(tmp_path / "store") == image_bytes(tmp_path / "whole")
    assert any(r.metric == "lpips" and r.value > 0 for r in last.rows if r.eraser == "uce")


def test_embeddings_are_the_same_whoever_asks_first(folders):
    """Drawing in half precision must not leave its embeddings to an eraser."""
    base = load_base(str(folders["sd1"]), precision="bf16")
    with base.drawing():
        drawn = base.encode(["ab"]).hidden
    plain = load_base(str(folders["sd1"])).encode(["ab"]).hidden
    assert drawn.dtype == torch.float32 and torch.equal(drawn, plain)


def test_an_eraser_of_an_installed_package_is_hashed(tmp_path, monkeypatch):
    import importlib
    import sys

    monkeypatch.syspath_prepend(tmp_path)
    source = "from conceptbench.models.eraser import Eraser\nclass Theirs(Eraser):\n    name = 'theirs'\n    def erase(self, base, request, config, ctx):\n        return {}\n"
    hashes = []
    for body in ("None", "[]"):
        (tmp_path / "their_package.py").write_text(source.format(body))
        sys.modules.pop("their_package", None)
        importlib.invalidate_caches()
        monkeypatch.setitem(ERASERS._added, "theirs", importlib.import_module("their_package").Theirs)
        hashes.append(resolve("theirs", family="sd1", tier="paper").source_sha256)
    assert hashes[0] != hashes[1]


def test_a_checkpoint_that_changes_under_way_is_refused(suite, folders, tmp_path):
    path = tmp_path / "theirs.safetensors"
    Erasure([Change("unet", "additive", {"conv_in.bias": torch.ones(8)})]).save(path)
    brought = checkpoint_entries([str(path)], [])
    runner = runner_of(suite, folders["sd1"], tmp_path / "store", brought)
    Erasure([Change("unet", "additive", {"conv_in.bias": 9 * torch.ones(8)})]).save(path)
    with pytest.raises(UserInputError, match=r"theirs\.safetensors changed after the run began"):
        runner.run()
    assert stored_erasure(runner.store, runner.plan.erasures[0].key) is None and not (tmp_path / "store" / "images").exists()


def test_a_combination_is_read_before_anything_starts(tmp_path):
    path = tmp_path / "a.safetensors"
    Erasure().save(path)
    with pytest.raises(UserInputError, match="typo"):
        checkpoint_entries([f"a={path}"], ["a+typo"])
    with pytest.raises(UserInputError, match="two rows would be called 'a-b'"):
        checkpoint_entries([f"a={path}", f"b={path}", f"a-b={path}"], ["a - b"])


def test_a_failure_does_not_depend_on_where_files_lie(suite, folders, tmp_path):
    rows = []
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bad.py").write_text(
            "from pathlib import Path\nfrom conceptbench.models.eraser import Eraser\nclass Bad(Eraser):\n    name = 'bad-place'\n"
            "    def erase(self, base, request, config, ctx):\n        raise ValueError(object())\n"
        )
        outcome, _ = carry_out(suite, folders, tmp_path / "store", [str(tmp_path / name / "bad.py")])
        rows.append(canonical(outcome.rows))
        assert outcome.failures and "object at 0x" in outcome.rows[-1].reason
    assert rows[0] == rows[1]


class TwoPhases:
    """Trains twice; the second training must neither be skipped nor begin with the first one's state."""

    @staticmethod
    def run(base, ctx):
        config = TrainingConfig(parameters="kv", steps=4, batch=1, lr=1e-2)
        steps = []

        def loss(step):
            steps.append(step)
            noise = torch.randn(1, 4, 8, 8, generator=ctx.generator)
            return (base.predict(noise, torch.tensor([500]), base.encode(["ab"])) ** 2).mean()

        with trainable(base, "kv") as parameters:
            train(parameters, loss, config, ctx)
            values = train(parameters, loss, config, ctx)
        return steps, values


@pytest.mark.parametrize("every", [0.0, 1e9])
def test_two_trainings_in_one_eraser(suite, folders, tmp_path, every):
    runner = runner_of(suite, folders["sd1"], tmp_path / "store", [ESD])
    context = TrainingContext(runner.base, runner.plan.suite, runner.store, f"key{every}", "unit", 5, Session(checkpoint_seconds=every))
    steps, values = TwoPhases.run(runner.base, context)
    assert steps == [0, 1, 2, 3, 0, 1, 2, 3]
    evaluations = context.spent()[1]
    again = TrainingContext(runner.base, runner.plan.suite, runner.store, f"key{every}", "unit", 5, Session(checkpoint_seconds=every))
    steps, resumed = TwoPhases.run(runner.base, again)
    assert steps == ([] if every == 0.0 else [0, 1, 2, 3, 0, 1, 2, 3])
    assert all(torch.equal(values[n], resumed[n]) for n in values) and again.spent()[1] == evaluations == 8


def test_a_flipped_number_in_a_training_state_is_seen(tmp_path):
    path = tmp_path / "s.safetensors"
    save_state(path, {"x": torch.ones(2)}, {"step": 12})
    assert load_state(path)[1] == {"step": 12}
    path.write_bytes(path.read_bytes().replace(b'\\"step\\":12', b'\\"step\\":72'))
    assert b"72" in path.read_bytes() and load_state(path) is None


def test_batches_that_ran_out_of_memory_are_let_go():
    import gc
    import weakref

    class Big:
        pass

    alive, seen = [], []

    def make(indices):
        big = Big()
        alive.append(weakref.ref(big))
        if len(indices) > 2:
            raise torch.OutOfMemoryError("out of memory")
        gc.collect()
        seen.append(sum(ref() is not None for ref in alive))

    in_halves(make, list(range(8)), lambda _: None)
    assert seen == [1, 1, 1, 1]  # its own only


def test_another_user_can_lock(tmp_path):
    with locked(tmp_path / "lock"):
        pass
    old = os.umask(0)
    try:
        with locked(tmp_path / "open"):
            assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == 0o666
    finally:
        os.umask(old)
    (tmp_path / "lock").chmod(0o444)
    with locked(tmp_path / "lock"):  # reading is enough
        pass


def test_a_line_after_a_torn_line_is_whole(tmp_path):
    path = tmp_path / "log"
    path.write_text("one\ntor")
    append_line(path, "two")
    assert path.read_text() == "one\ntor\ntwo\n"


def test_names_of_files_never_meet():
    texts = ["a b", "a/b", "a-b", "猫", "犬", "../x", ".hidden", "a" * 200, "a" * 201]
    names = [safe_name(t) for t in texts]
    assert len(set(names)) == len(texts) and all("/" not in n and not n.startswith(".") and len(n) < 100 for n in names)
    assert safe_name("church-h00") == "church-h00"


def specs_of(images, number):
    from conceptbench.core.schemas import Sampler
    from conceptbench.engine.images import ImageSpec

    return [ImageSpec("t", "c", "target", f"{p}-h0", k, Condition(f"a {p}"), 2 * k, Sampler()) for p in images for k in range(number)]


def test_numbers_in_file_names_are_numbers_and_begin_alike(tmp_path):
    for p, numbers in (("cat", range(1, 13)), ("dog", range(1, 12))):  # the dog's last is missing
        for n in numbers:
            (tmp_path / f"a_{p}_{n}.png").write_bytes(b"")
    found = matched(claims_of_names(tmp_path), specs_of(("cat", "dog"), 12), paired=True)
    assert [found[i].name for i in (0, 1, 9, 11, 12, 22)] == ["a_cat_1.png", "a_cat_2.png", "a_cat_10.png", "a_cat_12.png", "a_dog_1.png", "a_dog_11.png"]
    assert 23 not in found
    with pytest.raises(UserInputError, match="may count from 0 or from 1"):
        matched(claims_of_names(tmp_path), specs_of(("cat", "dog"), 13), paired=True)
    with pytest.raises(UserInputError, match="number 4 of 'a cat', and the suite draws 3"):
        matched([c for c in claims_of_names(tmp_path) if c.number in (3, 4)], specs_of(("cat", "dog"), 3))


def test_a_manifest_may_hold_formulas_and_must_be_utf8(tmp_path):
    (tmp_path / "-x_0.png").write_bytes(b"")
    (tmp_path / "m.csv").write_text("file,prompt_id,number\n'-x_0.png,'-x,0\n")
    claim = claims_of_manifest(tmp_path, tmp_path / "m.csv")[0]
    assert claim.path.name == "-x_0.png" and claim.prompt_id == "-x"
    (tmp_path / "m.csv").write_bytes("file,prompt\nä,b\n".encode("latin-1"))
    with pytest.raises(UserInputError, match="cannot read the manifest"):
        claims_of_manifest(tmp_path, tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("file,prompt,number\n-x_0.png,b,²\n")
    with pytest.raises(UserInputError, match=r"m\.csv:2: number '²'"):
        claims_of_manifest(tmp_path, tmp_path / "m.csv")


def test_a_judge_that_raises_is_named(suite, folders, tmp_path, monkeypatch):
    from world import ColourJudge

    from conceptbench.core.errors import UnitFailedError

    def fail(self, images):
        raise KeyError("no such layer")

    monkeypatch.setattr(ColourJudge, "__call__", fail)
    with pytest.raises(UnitFailedError, match=r"the judge 'colour' failed on \d+ images of 16 x 16 px: KeyError"):
        carry_out(suite, folders, tmp_path / "store", [])


def test_what_an_erasure_costs_is_counted_right(suite, folders, tmp_path):
    outcome, _ = carry_out(suite, folders, tmp_path / "store", ["uce", entry(ESD)])
    whole = [r for r in outcome.rows if r.role == "model"]
    assert {r.metric for r in whole} == {"weight_change-l1-changed", "cost-seconds", "cost-network_evaluations"}
    assert {r.status for r in whole} == {"ok"} and all((r.n_planned, r.n_scored, r.n_failed) == (1, 1, 0) for r in whole)
    assert next(r for r in whole if r.metric == "cost-network_evaluations" and r.eraser == "uce").value == 0
    assert not any(r.unit == "seconds" for r in canonical(outcome.rows) for r in [type("R", (), r)])
    collected = runner_of(suite, folders["sd1"], tmp_path / "empty", ["uce"], collect=True).run()
    assert all((r.status, r.n_scored, r.n_failed, r.reason) == ("partial", 0, 0, "the erasure is not made") for r in collected.rows if r.role == "model")
