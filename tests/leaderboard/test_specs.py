from __future__ import annotations

import pytest
from tabular import spec, write_spec

from conceptbench.core.errors import UserInputError
from conceptbench.leaderboard.published import load_published
from conceptbench.leaderboard.spec_files import load_table, read_table_spec, table_ids
from conceptbench.leaderboard.specs import cells_of, conditions_of, matches


@pytest.mark.parametrize("name", table_ids())
def test_shipped_specs_have_the_cells_of_the_published_table(name):
    table = load_table(name)
    assert table.id == name
    for tier in table.tiers:
        cells = [(r.label, c.label) for r, c in cells_of(table, tier)]
        assert len(cells) == len(set(cells)) > 0
        if table.published is not None:
            published = {(c.row, c.column) for c in load_published(table.published).cells}
            assert set(cells) <= published and (tier == "mini" or set(cells) == published)  # the mini tier need not have all


@pytest.mark.parametrize("name", sorted({*table_ids()} - {"kpop/5"}))  # its Concat is its k=10
def test_no_two_cells_of_a_shipped_spec_ask_for_the_same(name):
    table = load_table(name)
    for tier in table.tiers:
        asked = [
            (repr(sorted(repr(w) for w in conditions_of(table, tier, r, c) if w)), r.option("value") or c.option("value")) for r, c in cells_of(table, tier)
        ]
        assert len(asked) == len(set(asked))


def test_all_conditions_of_a_cell_hold_together(tmp_path):
    table = spec(
        tmp_path,
        where={"concept": "*"},
        tiers={t: {"mapping": "m", "runs": [{"suite": "mini"}], "where": {"status": t}} for t in ("mini", "paper")},
        rows=[[[{"label": "A", "where": {"eraser": ["uce", "esd-x"], "preset": "x"}, "paper": {"preset": "y"}}, {"label": "B", "where": {"eraser": "base"}}]]],
        columns=[[[{"label": "E", "where": {"metric": "esr-1"}}, {"label": "P", "where": {"metric": "psr-1", "eraser": ["uce", "base"]}}]]],
    )
    found = {(t, r.label, c.label): conditions_of(table, t, r, c) for t in ("mini", "paper") for r, c in cells_of(table, t)}
    assert found["mini", "A", "E"] == [{"concept": "*"}, {"status": "mini"}, {"eraser": ["uce", "esd-x"], "preset": "x"}, {"metric": "esr-1"}]
    assert found["paper", "A", "E"][2]["preset"] == "y" and found["paper", "B", "E"][1] == {"status": "paper"}
    row = {"concept": "*", "status": "mini", "preset": "x", "metric": "psr-1"}
    assert [e for e in ("uce", "esd-x", "base") if matches({**row, "eraser": e}, found["mini", "A", "P"])] == ["uce"]


def test_a_field_is_compared_as_text():
    values = {"task": "1", "train_seed": 0, "role": "target", "value": None}
    assert matches(values, [{"task": 1, "train_seed": "0"}, {"role": ["retained", "target"], "value": ""}])
    assert not matches(values, [{"task": 10}]) and not matches(values, [{"task": 1}, {"role": ["retained"]}]) and not matches(values, [{"value": "None"}])


@pytest.mark.parametrize(
    ("asked", "fits"), [("a-*", True), ("*-1", True), ("a-b-1", True), ("b-*", False), ("*", False), (["*", "a-*-1"], True), ("a-b-?", False)]
)
def test_a_star_is_any_text_but_alone_it_is_itself(asked, fits):
    assert matches({"metric": "a-b-1"}, [{"metric": asked}]) == fits and matches({"metric": "*"}, [{"metric": "*"}])


def test_labels_are_products_of_axes_and_blocks(tmp_path):
    rows = [[[{"label": "x"}, {"label": "y"}], [{"label": "1"}, {"label": "2"}]], [[{"label": "sum"}]]]
    table = spec(tmp_path, rows=rows, columns=[[[{"label": "c"}, {"label": "only paper", "tiers": ["paper"]}]]])
    assert [r.label for r in table.lines("rows", "mini")] == ["x | 1", "x | 2", "y | 1", "y | 2", "sum"]
    assert len(cells_of(table, "mini")) == 5 and len(cells_of(table, "paper")) == 10


def test_everything_that_is_wrong_is_told_at_once_with_lines(tmp_path):
    path = write_spec(
        tmp_path,
        published="kpop/22",
        rows=[[[{"label": "A", "where": {"erasr": "uce"}, "value": "valu"}, {"label": "B", "where": {"run": "man"}}]]],
    )
    with pytest.raises(UserInputError) as caught:
        read_table_spec(path)
    text, lines = str(caught.value), path.read_text().splitlines()

    def line(part):
        return next(i for i, x in enumerate(lines, start=1) if part in x)

    assert "4 problem(s)" in text
    for part, message in (
        ("erasr", "did you mean 'eraser'"),
        ("valu", "did you mean 'value'"),
        ("run: man", "did you mean 'main'"),
        ("kpop/22", "did you mean 'kpop/2'"),
    ):
        assert any(f"mine.yaml:{line(part)}:" in x and message in x for x in text.splitlines()), (part, text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methodz": "rows.0"}, "did you mean 'methods'"),
        ({"methods": "rows.1"}, "fewer levels"),
        ({"rows": [[[{"label": "A", "value": "eraser"}]]]}, "unknown number of a result row 'eraser'"),
        ({"tiers": {"mini": {"runs": [{"suite": "mini"}]}}}, "`mapping` is missing"),
        ({"tiers": {"paper": {"runs": [{"suite": "mini"}, {"suite": "mini-object"}]}}}, "two runs have one id: main"),
        ({"tiers": {"maxi": {"runs": [{"suite": "mini"}]}}}, "tiers.maxi"),
        ({"tiers": {}}, "tiers"),
    ],
)
def test_what_a_spec_must_not_be(tmp_path, changes, message):
    with pytest.raises(UserInputError, match=message):
        spec(tmp_path, **changes)


def test_labels_are_those_of_the_published_table(tmp_path):
    """A cell must not get lost by a typing error, on either side."""
    text = (load_table.__globals__["_folder"]() / "kpop-2.yaml").read_text()
    path = tmp_path / "kpop-2.yaml"
    path.write_text(text.replace("label: ESR-5", "label: ESR-55").replace("label: Ours*", "label: Our*"))
    with pytest.raises(UserInputError) as caught:
        read_table_spec(path)
    for part in ("no 'ESR-55'; did you mean 'ESR-5'", "'ESR-5' of kpop/2 is missing", "'Ours*' of kpop/2 is missing"):
        assert part in str(caught.value)


def test_unknown_tables_and_tiers(tmp_path):
    with pytest.raises(UserInputError, match="did you mean 'kpop/2'"):
        load_table("kpop/22")
    with pytest.raises(UserInputError, match="no such file"):
        load_table(str(tmp_path / "none.yaml"))
    with pytest.raises(UserInputError, match="did you mean 'paper'"):
        spec(tmp_path).tier("papr")
