"""Result rows and table specs as small as can be, for tests of tables."""

from __future__ import annotations

import yaml

from conceptbench.core.results import ResultRow
from conceptbench.leaderboard.cells import fill
from conceptbench.leaderboard.spec_files import read_table_spec

ROW = {
    "suite": "tiny", "suite_version": "1.0", "task": "one", "role": "target", "concept": "*", "base": "b", "eraser": "uce", "preset": "mini",
    "metric": "esr-1", "protocol": "esr-1@top1/judge", "better": "higher", "unit": "rate", "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "ci_kind": "wilson",
    "n_planned": 10, "n_scored": 10, "n_failed": 0, "clusters": 10, "base_value": 0.1, "delta": 0.4, "delta_low": 0.3, "delta_high": 0.5, "train_seed": 0,
    "status": "ok",
}  # fmt: skip


def row(**changes):
    return ResultRow.model_validate({**ROW, **changes})


def spec_dict(**changes):
    """Two methods by two metrics, without published figures."""
    return {
        "id": "mine/1",
        "title": "mine",
        "source": "here",
        "tiers": {"mini": {"mapping": "a stands for b", "runs": [{"suite": "mini"}]}, "paper": {"runs": [{"suite": "mini"}]}},
        "where": {"concept": "*"},
        "rows": [[[{"label": "A", "where": {"eraser": "uce"}}, {"label": "B", "where": {"eraser": "esd-x"}}]]],
        "columns": [[[{"label": "E", "where": {"metric": "esr-1"}}, {"label": "P", "where": {"metric": "psr-1"}}]]],
        **changes,
    }


def write_spec(folder, **changes):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(spec_dict(**changes), sort_keys=False, allow_unicode=True))
    return path


def spec(folder, **changes):
    return read_table_spec(write_spec(folder, **changes))


def filled(folder, found, /, tier="mini", force=False, **changes):
    """A table from rows by run, or from a list of rows of the run `main`."""
    results = found if isinstance(found, dict) else {"main": found}
    return fill(spec(folder, **changes), tier, results, force=force)
