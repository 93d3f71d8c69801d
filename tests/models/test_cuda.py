"""The same pictures on a GPU as on the CPU, within a tolerance; half precision, compiled, and a training that goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from running import ESD, carry_out
from world import write_suite

from conceptbench.core.schemas import Sampler
from conceptbench.engine.provenance import canonical
from conceptbench.models.conditions import Condition
from conceptbench.models.families import load_base

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: the GPU paths are checked where there is one")

SAMPLER = Sampler(steps=4, guidance=3.0)
CONDITIONS, SEEDS = [Condition("ab"), Condition("cd"), Condition("ef g")], [2, 4, 6]


def drawn(folder, device, precision="fp32", *, compiled=False):
    base = load_base(str(folder), device=device, precision=precision, compiled=compiled)
    with base.drawing():
        latents = base.sample(CONDITIONS, SEEDS, SAMPLER, until=SAMPLER.steps)
    return base.decode(latents).astype(int)


def test_float32_agrees_with_the_cpu(folders):
    for family, folder in folders.items():
        apart = np.abs(drawn(folder, "cpu") - drawn(folder, "cuda"))
        assert apart.max() <= 2 and (apart > 0).mean() < 0.05, family


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close(folders, precision):
    apart = np.abs(drawn(folders["sd1"], "cpu") - drawn(folders["sd1"], "cuda", precision))
    assert apart.mean() < 4


def test_compiled_agrees(folders):
    apart = np.abs(drawn(folders["sd1"], "cuda") - drawn(folders["sd1"], "cuda", compiled=True))
    assert apart.max() <= 2


def test_a_whole_run_on_the_gpu(folders, tmp_path, monkeypatch):
    suite = write_suite(tmp_path / "suite")
    import running

    monkeypatch.setattr(running, "load_base", lambda folder: load_base(folder, device="cuda"))
    first, _ = carry_out(suite, folders, tmp_path / "store", [ESD, "uce"])
    again, _ = carry_out(suite, folders, tmp_path / "store", [ESD, "uce"])
    assert not first.failures and again.work.images == again.work.erasures == 0 and canonical(again.rows) == canonical(first.rows)
    assert all(r.peak_memory_mb > 0 for r in first.rows if r.peak_memory_mb is not None)
