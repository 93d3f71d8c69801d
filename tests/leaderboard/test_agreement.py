from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau
from tabular import row

from conceptbench.leaderboard.agreement import agreement_of, agreement_parts, pooled_tau
from conceptbench.leaderboard.cells import fill
from conceptbench.leaderboard.spec_files import load_table

METHODS = {"ESD": "esd-x", "CA": "ca", "UCE": "uce-plain", "UCE*": "uce", "Ours": "kpop", "Ours*": "kpop-star"}
PUBLISHED = {"ESR-1": (95.5, 98.4, 100, 100, 99.5, 99.2), "PSR-1": (41.2, 44.2, 23.4, 62.1, 26.6, 75.3)}
ROLES = {"ESR-1": "target", "PSR-1": "retained"}


def table(width=0.0, **columns):
    """KPOP's table 2 with measured values of the six methods; the base is always measured."""
    rows = []
    for column, measured in columns.items():
        column = column.replace("_", "-")
        metric = column.lower()
        for eraser, v in (("base", 0.5), *zip(METHODS.values(), measured, strict=True)):
            ends = {"ci_low": max(0.0, v - width), "ci_high": min(1.0, v + width)} if width else {"ci_low": None, "ci_high": None}
            rows.append(row(task="*", eraser=eraser, value=v, metric=metric, protocol=f"{metric}@p", role=ROLES[column], **ends))
    return fill(load_table("kpop/2"), "mini", {"main": rows})


@pytest.mark.parametrize("seed", range(5))
def test_tau_is_scipys_with_ties_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    published, measured = rng.integers(0, 4, 9).astype(float), rng.integers(0, 4, (20, 9)).astype(float)
    found = pooled_tau([published], [measured])
    np.testing.assert_allclose(found, [kendalltau(published, m).statistic for m in measured], atol=1e-12)


def test_pooling_counts_pairs_within_lines_only():
    rng = np.random.default_rng(3)
    lines = [(rng.permutation(4).astype(float), rng.permutation(4).astype(float) + 100 * k) for k in range(3)]
    pairs = [(np.sign(p[i] - p[j]), np.sign(m[i] - m[j])) for p, m in lines for i in range(4) for j in range(i)]
    assert pooled_tau([p for p, _ in lines], [m[None] for _, m in lines])[0] == pytest.approx(np.mean([a * b for a, b in pairs]))


def test_order_of_methods_is_that_of_each_column_and_of_all():
    esr, psr = (0.95, 0.99, 1.0, 1.0, 0.98, 0.97), (0.5, 0.4, 0.2, 0.9, 0.3, 0.8)
    found = table(ESR_1=esr, PSR_1=psr)
    parts = agreement_parts(found)
    expected = {"ESR-1": kendalltau(PUBLISHED["ESR-1"], esr).statistic, "PSR-1": kendalltau(PUBLISHED["PSR-1"], psr).statistic}
    assert {k: a.tau for k, a in parts.items()} == pytest.approx(expected)
    whole = agreement_of(found)
    assert (whole.methods, whole.lines, whole.pairs) == (6, 2, 30) and min(expected.values()) <= whole.tau <= max(expected.values())


def test_the_base_is_no_method():
    """With it a table in reversed order would still agree in part, because everything differs from the base."""
    reverse = [1 - v / 200 for v in PUBLISHED["PSR-1"]]
    assert agreement_of(table(PSR_1=reverse)).tau == pytest.approx(-1)


def test_the_interval_comes_from_the_measured_ones():
    order = [v / 100 for v in PUBLISHED["PSR-1"]]
    sure, unsure = agreement_of(table(PSR_1=order)), agreement_of(table(width=0.2, PSR_1=order))
    assert (sure.tau, sure.low, sure.high) == pytest.approx((1, 1, 1))
    assert unsure.tau == pytest.approx(1) and -1 <= unsure.low < 0.8 < unsure.high <= 1
    assert unsure == agreement_of(table(width=0.2, PSR_1=order))  # the draws are seeded
    assert agreement_of(table(width=0.02, PSR_1=order)).low > unsure.low


def test_draws_are_as_wide_as_each_side_of_the_interval():
    from conceptbench.leaderboard.agreement import _draws
    from conceptbench.leaderboard.cells import Measured

    m = Measured(10.0, 10 - 1.96 * 2, 10 + 1.96 * 0.5, None, 1, row())
    draws = _draws([m, Measured(3.0, None, None, None, 1, row())], np.random.default_rng(0))
    below, above = 10 - draws[:, 0][draws[:, 0] < 10], draws[:, 0][draws[:, 0] > 10] - 10
    assert np.sqrt(np.mean(below**2)) == pytest.approx(2, rel=0.1) and np.sqrt(np.mean(above**2)) == pytest.approx(0.5, rel=0.1)
    assert (draws[:, 1] == 3).all()


def test_ties_at_the_ceiling_do_not_put_the_value_outside_of_its_interval():
    """Draws order what was measured as equal, and the paper has these as equal, too: every draw then agrees less."""
    found = agreement_of(table(width=0.1, ESR_1=(0.2, 0.5, 1.0, 1.0, 0.8, 0.7)))
    assert found.tau == pytest.approx(1) and found.low < found.tau <= found.high


def test_no_order_without_two_methods_that_differ():
    assert agreement_of(table()).tau is None
    tied = agreement_of(table(PSR_1=[0.5] * 6))
    assert tied.tau is None and tied.low is None and tied.pairs == 15
