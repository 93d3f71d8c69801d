"""The reader of published figures: order, footnotes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from conceptbench.core.errors import UserInputError
from conceptbench.leaderboard.published import Cell, PublishedTable, load_published, read_published

FOLDER = Path(__file__).parents[2] / "leaderboard" / "published"


def test_rows_and_columns_are_in_the_papers_order():
    table = load_published("selective-amnesia/1")
    assert table.columns == ("FID", "Precision", "Recall", "H(Pφ(y|xf))", "Pφ(y = cf|xf)")  # its first row has the last two only
    assert table.rows[:3] == ("MNIST | Original", "MNIST | λ = 100", "CIFAR10 | Original")
    assert table.cell("MNIST | Original", "FID") is None
    assert load_published("sepme/7").columns[-5:] == ("G-CiRs | Others | LPIPS", "FMN20", "FMN50", "AbConcept", "G-CiRs")


def test_footnotes_are_numbered_as_they_appear():
    cells = [Cell("a", c, "1", 1.0, "", None, "%", "p", notes) for c, notes in (("x", ()), ("y", ("second", "first")), ("z", ("first", "third")))]
    table = PublishedTable("t/1", tuple(cells))
    assert table.footnotes == ("second", "first", "third") and [table.marks(cell) for cell in cells] == [(), (1, 2), (2, 3)]
    assert table.units == ("%",) and table.rows == ("a",) and table.columns == ("x", "y", "z")


def test_an_unknown_table_is_refused_with_the_nearest():
    with pytest.raises(UserInputError, match="unknown published table 'kpop/12'; did you mean 'kpop/2'") as error:
        load_published("kpop/12")
    assert "sepme/8" in error.value.hint


HEADER = "table,row,column,value,spread,unit,protocol,note\n"
GOOD = "kpop/2,SD,ESR-1,22.0,11.6,%,how,\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER.replace("note", "notes") + GOOD, r"kpop\.csv:1: unknown column 'notes'; did you mean 'note'\?"),
        (HEADER.replace(",note", "") + GOOD.replace(",\n", "\n"), r"kpop\.csv:1: the column 'note' is missing"),
        (HEADER.replace("row", "table") + GOOD, r"kpop\.csv:1: the column 'table' is there twice"),
        (HEADER + GOOD + GOOD, r"kpop\.csv:3: kpop/2 has the cell 'SD', 'ESR-1' already, in line 2"),
        (HEADER + GOOD.replace("22.0", "22,0"), r"kpop\.csv:2: 9 cells where the header has 8"),
        (HEADER + GOOD.replace("22.0", "22.0*"), r"kpop\.csv:2: value: .*22\.0\*"),
        (HEADER + GOOD.replace("22.0", ""), r"kpop\.csv:2: value: "),
        (HEADER + GOOD.replace("22.0", "nan"), r"kpop\.csv:2: value: .*nan"),
        (HEADER + GOOD.replace("11.6", "-11.6"), r"kpop\.csv:2: spread: .*-11\.6"),
        (HEADER + GOOD.replace("%", "percent"), r"kpop\.csv:2: unit: .*'rate'.*percent"),
        (HEADER + GOOD.replace("how", ""), r"kpop\.csv:2: protocol: "),
        (HEADER + GOOD.replace("kpop/2", "kpop/two"), r"kpop\.csv:2: table: .*kpop/two"),
        (HEADER + GOOD.replace("kpop", "sepme"), r"kpop\.csv:2: table is 'sepme/2', and this file is of 'kpop'"),
        (HEADER + GOOD.replace("SD", "SD | "), r"kpop\.csv:2: .*row is 'SD \| '"),
        (HEADER + GOOD.replace("SD", " SD"), r"kpop\.csv:2: .*row is ' SD'"),
        (HEADER + GOOD.replace("SD", '"SD'), r"kpop\.csv:2: not valid CSV"),
        (HEADER, r"kpop\.csv: the file has no rows"),
        ("", r"kpop\.csv: the file has no rows"),
    ],
)
def test_a_damaged_file_is_refused_with_the_line(tmp_path, text, message):
    path = tmp_path / "kpop.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserInputError, match=message) as error:
        read_published(path)
    assert "install it again" in error.value.hint


def test_all_that_is_wrong_is_named_at_once(tmp_path):
    path = tmp_path / "kpop.csv"
    path.write_text(HEADER + GOOD.replace("22.0", "x") + GOOD.replace("%", "y"), encoding="utf-8")
    with pytest.raises(UserInputError, match=r"(?s)2 problem.*kpop\.csv:2: value.*kpop\.csv:3: unit"):
        read_published(path)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(UserInputError, match=r"kpop\.csv"):
        read_published(tmp_path / "kpop.csv")


def test_a_good_file_is_read(tmp_path):
    path = tmp_path / "kpop.csv"
    path.write_text(HEADER + GOOD + 'kpop/3,"A, b | C",x,1.,,count,"how, exactly",must be 2: why | and more\n', encoding="utf-8")
    first, second = read_published(path)
    assert (first.id, second.id) == ("kpop/2", "kpop/3")
    assert second.cells == (Cell("A, b | C", "x", "1.", 1.0, "", None, "count", "how, exactly", ("must be 2: why", "and more")),)
    assert second.cells[0].must_be == "2" and first.cells[0].must_be is None


def test_files_are_named_after_papers():
    assert sorted(path.stem for path in FOLDER.glob("*.csv")) == ["forget-me-not", "kpop", "selective-amnesia", "sepme"]
