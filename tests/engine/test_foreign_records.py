"""Reading other tools' records: tables, roles, images, classes, detections."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conceptbench.core.errors import UserInputError
from conceptbench.engine.foreign_records import concept_roles, folded, images_of, numbered_columns, partners, read_mapping
from conceptbench.engine.foreign_tables import read_table

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)


def table(tmp_path, text, name="r.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return read_table(path)


def images(tmp_path, text, *entries, name="r.csv", **options):
    return images_of(table(tmp_path, text, name), read_mapping(entries), **options)


def refusal(call, *arguments, **options):
    with pytest.raises(UserInputError) as error:
        call(*arguments, **options)
    return str(error.value)


# -- tables ----------------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(TEXTS, TEXTS, st.sampled_from(["=1+1", "@x", "-1", "'=x", "", "nan"])), min_size=1, max_size=6),
    newline=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
    tab=st.booleans(),
)
def test_what_a_csv_writer_wrote_is_read_back(tmp_path_factory, rows, newline, bom, tab):
    assume(newline == "\r\n" or not any("\r" in cell for row in rows for cell in row))  # such a writer leaves it without quotes
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=newline, delimiter="\t" if tab else ",")
    writer.writerows([("case_number", "prompt", "x"), *rows])
    path = tmp_path_factory.mktemp("t") / ("r.tsv" if tab else "r.csv")
    path.write_bytes(out.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    found = read_table(path)
    assert found.columns == ("case_number", "prompt", "x")
    assert [tuple(cells.values()) for _, cells in found.rows] == rows
    lines = re.split("\r\n|\r|\n", out.getvalue())
    assert all(1 < line <= len(lines) for line, _ in found.rows)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"a": TEXTS, "n": st.one_of(st.none(), st.floats(allow_nan=False), st.booleans())}), min_size=1, max_size=5))
def test_json_lines_are_the_same_cells(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("t") / "r.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n")
    for (_, cells), row in zip(read_table(path).rows, rows, strict=True):
        assert cells["a"] == row["a"]
        assert cells["n"] == "" if row["n"] is None else float(cells["n"]) == float(row["n"])


def test_lines_are_those_of_the_file(tmp_path):
    found = table(tmp_path, 'a,b\n"one\ntwo",1\n\nthree,2\n')
    assert [line for line, _ in found.rows] == [2, 5]
    assert [line for line, _ in table(tmp_path, '{"a": 1}\n\n{"b": 2}\n', "r.jsonl").rows] == [1, 3]
    assert table(tmp_path, '{"a": 1}\n\n{"b": 2}\n', "r.jsonl").rows[0][1] == {"a": "1", "b": ""}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path, encoding):
    assert table(tmp_path, "prompt,x\n🪦 café,1\n", encoding=encoding).rows[0][1] == {"prompt": "🪦 café", "x": "1"}


def test_other_encodings(tmp_path):
    path = tmp_path / "r.csv"
    path.write_bytes("prompt,x\na,1\ncafé,2\n".encode("latin-1"))
    assert "r.csv:3: byte 0xe9" in refusal(read_table, path)
    assert read_table(path, "latin-1").rows[1][1]["prompt"] == "café"
    assert "unknown encoding 'latin-one'" in refusal(read_table, path, "latin-one")


def test_semicolons(tmp_path):
    assert table(tmp_path, "a;b\n1,5;2\n").rows[0][1] == {"a": "1,5", "b": "2"}


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("a,b\n1\n1,2,3\n", "r.csv", ["2 problem", "r.csv:2: 1 cells", "r.csv:3: 3 cells"]),
        ('a,b\n1,"x\n', "r.csv", ["r.csv:2: not valid CSV"]),
        ("a,a\n1,2\n", "r.csv", ["'a' is there twice"]),
        ("a,b\n", "r.csv", ["no rows"]),
        ("", "r.csv", ["no rows"]),
        ("[1]\nnope\n", "r.jsonl", ["r.jsonl:1: not a mapping", "r.jsonl:2: not valid JSON"]),
        ("a,b\n" + "1\n" * 9, "r.csv", ["9 problems in r.csv, the first 5"]),
    ],
)
def test_faulty_tables(tmp_path, text, name, expected):
    found = refusal(table, tmp_path, text, name)
    assert all(e in found for e in expected), found


def test_no_file(tmp_path):
    assert "cannot read the records" in refusal(read_table, tmp_path / "none.csv")


# -- roles -----------------------------------------------------------------------------------------------------------
def test_mappings(tmp_path):
    file = tmp_path / "m.yaml"
    file.write_text("image: case_number\nlpips: lpips_score\n")
    assert read_mapping([str(file), "value:q16=a=b"]) == {"image": "case_number", "lpips": "lpips_score", "value:q16": "a=b"}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["imag=case", "lpips=x"], ["unknown role 'imag'", "did you mean 'image'"]),
        (["lpips=x", "lpips=y"], ["mapped twice: 'x' and 'y'"]),
        (["lpips"], ["neither ROLE=COLUMN nor a YAML file"]),
        (["scores=s"], ["'scores' needs the role 'labels'"]),
        (["gcd=p"], ["'gcd' needs the role 'faces'"]),
        (["labels=l", "detections=d"], ["not both"]),
        (["image=i", "prompt=p"], ["anything measured"]),
        ([], ["anything measured"]),
        (["foo=1", "lpips=x", "lpips=y", "gcd=p"], ["unknown role 'foo'", "mapped twice", "'gcd' needs"]),
    ],
)
def test_faulty_mappings(entries, expected):
    found = refusal(read_mapping, entries)
    assert all(e in found for e in expected), found


def test_numbered_columns():
    columns = ["top1", "top2", "top4", "t0", "t1", "one"]
    assert numbered_columns("top{}", columns) == ["top1", "top2"] and numbered_columns("t{}", columns) == ["t0", "t1"]
    assert numbered_columns("one", columns) == ["one"] and numbered_columns("two", columns) == []


def test_missing_columns_are_named_all_at_once(tmp_path):
    found = refusal(images, tmp_path, "case_number,scores_top1,score1\n1,2,3\n", "image=case_numbr", "top=score_top{}", "clip=score1")
    assert "no column 'case_numbr' for the role 'image'; did you mean 'case_number'" in found
    assert "no column 'score_top1' for the role 'top'; did you mean 'scores_top1'" in found and "2 problem" in found


def test_roles_of_concepts():
    names = ["Church", "Gas Pump", "tench"]
    of = concept_roles(names, ["gas pump"], [])
    assert [of(n) for n in names] == ["retained", "target", "retained"]
    of = concept_roles(names, [], ["church", "tench"])
    assert [of(n) for n in names] == ["retained", "target", "retained"]
    assert concept_roles(["x"], [], [])("x") == "target"
    found = refusal(concept_roles, names, ["gas pupm", "church"], ["church"])
    assert "did you mean 'Gas Pump'" in found and "'Church' is both" in found and "'tench' is neither" in found
    assert "nothing says which were erased" in refusal(concept_roles, names, [], [])


def test_folded():
    assert folded("Kelly McKernan") == folded("kelly_mckernan") == folded("KellyMcKernan") != folded("Kilian Eng")
    assert folded("!!") == "!!"  # a name of punctuation is still a name


# -- images ----------------------------------------------------------------------------------------------------------
def test_images(tmp_path):
    text = "case,n,who,gone,v\n0.0,1,A b,a_B,=3\n0,2,C,a_B,4\n1,1,C,None,5\n"
    found = images(tmp_path, text, "image=case", "number=n", "concept=who", "erased=gone", "value:x=v")
    assert [(r.image, r.number, r.concept, r.role, r.cells["value:x"], r.cluster) for r in found.records] == [
        ("0", 1, "A b", "target", "=3", "row 2"),
        ("0", 2, "C", "retained", "4", "row 3"),
        ("1", 1, "C", "retained", "5", "row 4"),
    ]
    assert found.clustered == "row" and found.concepts() == ["A b", "C"]


def test_the_cluster_is_the_prompt(tmp_path):
    text = "p,i,v\na,x,1\na,y,2\n"
    assert [r.cluster for r in images(tmp_path, text, "prompt=p", "value:v=v").records] == ["a", "a"]
    assert [r.cluster for r in images(tmp_path, text, "prompt=p", "prompt_id=i", "value:v=v").records] == ["x", "y"]
    assert len({r.image for r in images(tmp_path, text, "prompt=p", "value:v=v").records}) == 2  # no id: each row is an image


def test_faulty_images(tmp_path):
    text = "case,n,c,v\n0,0,a,1\n0,0,a,2\n,1,a,3\n2,x,,4\n0,0,a,5\n"
    found = refusal(images, tmp_path, text, "image=case", "number=n", "concept=c", "value:v=v")
    for expected in (
        "r.csv:3: image '0', number 0, is in line 2 already",
        "r.csv:4: the image is empty",
        "r.csv:5: the concept is empty",
        "'x' is not a whole",
    ):
        assert expected in found
    assert "r.csv:6: image '0', number 0, is in line 2" in found


def test_concept_options(tmp_path):
    text = "c,g,v\na,b,1\n"
    assert "give one of both" in refusal(images, tmp_path, text, "concept=c", "value:v=v", concept="a")
    assert "neither --erased nor --kept" in refusal(images, tmp_path, text, "concept=c", "erased=g", "value:v=v", erased=["a"])
    assert images(tmp_path, text, "value:v=v", concept="nudity", kept=["nudity"]).records[0].role == "retained"


def test_partners(tmp_path):
    mine = images(tmp_path, "case,p,v\n2,b,1\n1,a,2\n", "image=case", "prompt=p", "value:v=v")
    base = images(tmp_path, "case,p,v\n1,a,3\n3,c,9\n2,b,4\n", "image=case", "prompt=p", "value:v=v", name="b.csv")
    assert [r.cells["value:v"] for r in partners(mine, base)] == ["4", "3"]
    found = refusal(partners, base, mine)
    assert "1 images have no partner in r.csv: image '3', number 0 (line 3)" in found
    other = images(tmp_path, "case,p,v\n1,x,3\n2,b,4\n", "image=case", "prompt=p", "value:v=v", name="o.csv")
    assert "1 images have a partner of another prompt in o.csv: '1' (lines 3 and 2)" in refusal(partners, mine, other)
    loose = images(tmp_path, "p,v\na,1\n", "prompt=p", "value:v=v")
    assert "which image each row is" in refusal(partners, loose, loose)
    numbered = images(tmp_path, "p,n,v\na,0,1\na,1,2\n", "prompt=p", "number=n", "value:v=v")
    assert [r.line for r in partners(numbered, numbered)] == [2, 3]
