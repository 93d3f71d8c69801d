from __future__ import annotations

import pytest
import scipy.linalg
import tiny
import torch
from correlating import short, states

from conceptbench.erasers.shared.null_space import null_space


@pytest.fixture(params=tiny.FAMILIES)
def base(request, tmp_path):
    return short(request.param, tmp_path)


def test_null_space_by_the_pseudo_inverse():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(6, 4, generator=generator, dtype=torch.float64) @ torch.randn(4, 10, generator=generator, dtype=torch.float64)
    found = null_space(a)
    assert (found.rank, tuple(found.basis.shape)) == (4, (10, 6))
    assert float((a @ found.basis).abs().max()) < 1e-14 and found.residual < 1e-14
    assert torch.allclose(found.basis.T @ found.basis, torch.eye(6, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(found.basis @ found.basis.T, torch.eye(10, dtype=torch.float64) - torch.linalg.pinv(a) @ a, atol=1e-13)


def test_nearly_collinear_rows_count():
    a = torch.eye(5, dtype=torch.float64)[[0, 0, 1]]
    a[1, 2] = 1e-8  # float32 would not see it
    assert null_space(a).rank == 3 and float((a @ null_space(a).basis).abs().max()) < 1e-15
    assert null_space(a[[0, 0, 2]]).rank == 2


def test_null_space_of_prompts_by_scipy(base):
    """States have rows that are there many times (the start token's); they change neither the span nor the rank."""
    a = states(base, "gh", "ef")
    distinct = torch.tensor(sorted({tuple(row) for row in a.tolist()}), dtype=torch.float64)
    assert len(distinct) < len(a)
    theirs = torch.from_numpy(scipy.linalg.null_space(distinct.numpy(), rcond=max(a.shape) * torch.finfo(torch.float64).eps))
    found, twice = null_space(a), null_space(torch.cat([a, a, a[:3]]))
    assert found.rank == twice.rank == len(a[0]) - theirs.shape[1]
    assert torch.equal(found.basis, twice.basis)  # to the bit: what is there twice is not seen
    assert torch.allclose(found.basis.T @ found.basis, torch.eye(theirs.shape[1], dtype=torch.float64), atol=1e-13)
    assert torch.allclose(found.basis @ found.basis.T, theirs @ theirs.T, atol=1e-9)
