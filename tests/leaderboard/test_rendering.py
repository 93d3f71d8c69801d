from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from tabular import filled, row

from conceptbench.leaderboard.cells import FilledTable, Measured, TableCell, fill
from conceptbench.leaderboard.grids import header_spans, make_grid
from conceptbench.leaderboard.published import Cell
from conceptbench.leaderboard.rendering import FORMATS, to_csv, to_html, to_latex, to_markdown
from conceptbench.leaderboard.spec_files import load_table

HOSTILE = r'<img src=x onerror="alert(1)"> & 100%|$x_1^2$ #{a} \input{f} ~ *b* `c` [d]'


def kpop(tier="mini", value=0.9, **changes):
    made = row(task="*", eraser="esd-x", value=value, ci_low=value - 0.02, ci_high=value + 0.02, spread=0.01, **changes)
    return fill(load_table("kpop/2"), tier, {"main": [made]})


def sepme():
    common = {"task": "d1", "eraser": "sepme", "concept": "mosaic"}
    rows = [
        row(**common, metric="acc-1", protocol="acc-1@p", value=0.25, ci_low=0.125, ci_high=0.5),
        row(**common, metric="lpips", protocol="lpips@p", value=0.375, ci_low=None, ci_high=None, unit="distance"),
    ]
    return fill(load_table("sepme/4"), "mini", {"apart": rows})


class Page(HTMLParser):
    """The tags of a page, and the texts of its cells by row."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.lines, self.open = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.lines.append([])
        if tag in ("td", "th"):
            self.lines[-1].append("")
        self.open = tag in ("td", "th", "span", "sup")

    def handle_data(self, data):
        if self.open and self.lines and self.lines[-1]:
            self.lines[-1][-1] += data

    def handle_endtag(self, tag):
        self.open = self.open and tag not in ("td", "th", "table")


def read_csv(table):
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def test_published_and_measured_stand_side_by_side():
    grid = make_grid(kpop())
    cell = next(r for r in grid.rows if r.labels == ("ESD",)).cells[0]
    assert (cell.published, cell.measured, cell.interval) == ("95.5 ± 0.8", "90.0 ± 1.0", "[88.0, 92.0]")


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_not_measured_is_empty_and_never_copied(form):
    with_nothing, with_one = (FORMATS[form][1](t) for t in (fill(load_table("kpop/2"), "mini", {}), kpop()))
    assert with_nothing.count("84.4") == with_one.count("84.4") == 0
    for text in ("98.4", "66.5"):  # published, of a method that is not measured
        assert with_one.count(text) == with_nothing.count(text)
    for line in read_csv(kpop()):
        assert bool(line["value"]) is ((line["row"], line["column"]) == ("ESD", "ESR-1"))
        assert bool(line["protocol"]) is bool(line["value"]) and line["published"]


def test_a_row_without_a_value_says_why():
    table = kpop(status="failed", reason="it broke")
    failed = FilledTable(table.spec, "mini", tuple(_without_value(c) for c in table.cells))
    cell = next(r for r in make_grid(failed).rows if r.labels == ("ESD",)).cells[0]
    assert cell.measured == "– (failed)" and "28 of 28 cells are not measured." in make_grid(failed).facts
    line = next(x for x in read_csv(failed) if x["status"])
    assert (line["value"], line["status"], line["reason"]) == ("", "failed", "it broke")


def _without_value(cell):
    m = cell.measured
    return cell if m is None else TableCell(cell.row, cell.column, cell.published, Measured(None, None, None, None, 1, m.row))


def test_two_values_in_one_cell():
    grid = make_grid(sepme())
    assert grid.columns[0].labels == ("+Δθ1", "ACC / LPIPS") and len(grid.columns) == 7 and len(grid.rows) == 12
    cell = grid.rows[0].cells[0]
    assert grid.rows[0].labels == ("SepME1", "VG")
    assert (cell.published, cell.measured, cell.interval) == ("0.356 / 0.364", "0.250 / 0.375", "[0.125, 0.500] / –")
    assert (grid.rows[0].cells[1].measured, grid.rows[0].cells[1].interval) == ("", "")


def test_a_column_of_one_level_beside_joined_ones(tmp_path):
    """Changes of weights beside ACC / LPIPS."""
    columns = [
        [[{"label": "X"}, {"label": "Y"}], [{"label": "ACC", "where": {"metric": "esr-1"}}, {"label": "LPIPS", "where": {"metric": "psr-1"}}]],
        [[{"label": "X", "where": {"metric": "l1"}, "value": "n_scored"}]],
        [[{"label": "change", "where": {"metric": "l1"}}]],
    ]
    grid = make_grid(filled(tmp_path, [], columns=columns, joined=True))
    assert [c.labels for c in grid.columns] == [("X", "ACC / LPIPS"), ("Y", "ACC / LPIPS"), ("change", "")]


def test_header_levels_span_their_columns(tmp_path):
    columns = [[[{"label": "kept"}, {"label": "erased"}], [{"label": "1"}, {"label": "2"}]], [[{"label": "alone"}]]]
    grid = make_grid(filled(tmp_path, [], columns=columns))
    assert [[(t, n) for t, n, _ in line] for line in header_spans(grid)] == [
        [("kept", 2), ("erased", 2), ("alone", 1)],
        [("1", 1), ("2", 1), ("1", 1), ("2", 1), ("", 1)],
    ]
    tex = to_latex(filled(tmp_path, [], columns=columns))
    assert r" & \multicolumn{2}{c}{kept} & \multicolumn{2}{c}{erased} & alone \\" in tex and r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}" in tex
    spans = [a.get("colspan") for t, a in Page(to_html(filled(tmp_path, [], columns=columns))).tags if t == "th" and "colspan" in a]
    assert spans == ["2", "2", "1", "1", "1", "1", "1", "1"]


def test_every_line_of_latex_has_all_its_columns():
    for table in (kpop(), sepme()):
        body = to_latex(table).split(r"\toprule")[1].split(r"\bottomrule")[0]
        preamble = re.search(r"\\begin\{tabular\}\{(l+)(r+)\}", to_latex(table))
        for line in (x for x in body.splitlines() if x.endswith(r"\\")):
            spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert line.count(" & ") + 1 + spanned == len(preamble[1]) + len(preamble[2]), line
    assert to_latex(kpop()).count("{") == to_latex(kpop()).count("}")


def test_text_is_escaped_everywhere(tmp_path):
    table = filled(tmp_path, [row(protocol=HOSTILE)], title=HOSTILE, rows=[[[{"label": HOSTILE, "where": {"eraser": "uce"}}]]])
    page = Page(to_html(table))
    assert not {"img", "script", "iframe"} & {t for t, _ in page.tags} and not any(k.startswith("on") for _, a in page.tags for k in a)
    assert any(HOSTILE in cell for line in page.lines for cell in line)
    tex = to_latex(table)
    assert r"\textbackslash{}input\{f\}" in tex and r"100\%" in tex and r"\$x\_1\textasciicircum{}2\$" in tex and r"\#\{a\}" in tex
    assert not re.search(r"(?<!\\)[%#]", tex.replace("tablenotes", "")) and r"\input{f}" not in tex.replace(r"\textbackslash{}input", "")
    md = to_markdown(table)
    rows = [x for x in md.splitlines() if x.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", x)) for x in rows} == {4} and "<img" not in md.replace(r"\<img", "")


def test_labels_that_latex_takes_for_arguments(tmp_path):
    rows = [[[{"label": "*starred", "where": {"eraser": "uce"}}, {"label": "[bracket]", "where": {"eraser": "esd-x"}}]]]
    tex = to_latex(filled(tmp_path, [], rows=rows))
    assert "\n{}*starred & " in tex and "\n{}[bracket] & " in tex


def test_formulas_are_neutralised_in_csv(tmp_path):
    table = filled(tmp_path, [row(preset="=cmd()")], rows=[[[{"label": "=1+1", "where": {"eraser": "uce"}}]]])
    line = read_csv(table)[0]
    assert (line["row"], line["preset"], line["value"], line["ci_low"]) == ("'=1+1", "'=cmd()", "50", "40")
    assert read_csv(sepme())[0]["column"] == "'+Δθ1 | ACC"


def test_notes_of_the_original_are_footnotes():
    table = fill(load_table("kpop/2"), "mini", {})
    grid = make_grid(table)
    numbered = [(r.labels[0], i) for r in grid.rows for i, c in enumerate(r.cells) if c.notes]
    assert numbered == [("CA", 1)] and len(grid.footnotes) == 1 and "6.1" in grid.footnotes[0]
    assert "96.8 ± 6.1¹" in to_markdown(table) and r"96.8 $\pm$ 6.1$^{1}$" in to_latex(table) and r"\item[1]" in to_latex(table)
    assert ("sup", {}) in Page(to_html(table)).tags and grid.footnotes[0] in to_html(table)


def test_a_note_of_a_whole_row_is_on_its_label():
    grid = make_grid(fill(load_table("sepme/4"), "mini", {}))
    row = next(r for r in grid.rows if r.labels == ("AbConcept", "VG"))
    assert row.notes and not any(c.notes for c in row.cells) and "not Concept Ablation as published" in grid.footnotes[row.notes[0] - 1]


def test_only_the_paper_tier_marks_what_is_outside():
    inside, outside, limited = (kpop("paper", value=v, status=s) for v, s in ((0.95, "ok"), (0.9, "ok"), (0.9, "limited")))
    shown = [next(r for r in make_grid(t).rows if r.labels == ("ESD",)).cells[0].published for t in (inside, outside, limited, kpop("mini"))]
    assert shown == ["95.5 ± 0.8", "95.5 ± 0.8†", "95.5 ± 0.8", "95.5 ± 0.8"]
    assert [read_csv(t)[4]["outside"] for t in (inside, outside, limited, kpop("mini"))] == ["False", "True", "", ""]
    assert any("1 of 1 with one" in f for f in make_grid(outside).facts)


def test_the_facts_say_how_numbers_were_got():
    facts = " ".join(make_grid(kpop(status="limited", protocol="esr-1@top1/judge")).facts)
    for part in ("tiny 1.0 on b", "status limited", "n 10", "training seed 0", "protocols esr-1@top1/judge", "27 of 28 cells are not measured", "Mapping: "):
        assert part in facts
    assert "`conceptbench table run kpop/2 --tier paper`" in " ".join(make_grid(fill(load_table("kpop/2"), "paper", {})).facts)


def test_the_order_of_methods_is_said_with_its_interval():
    rows = [row(task="*", eraser=e, value=v, ci_low=v, ci_high=v) for e, v in (("esd-x", 0.5), ("ca", 0.75), ("uce", 0.875))]
    facts = make_grid(fill(load_table("kpop/2"), "mini", {"main": rows})).facts
    assert any("tau-b 1.00 [1.00, 1.00]" in f and "3 methods, 3 pairs" in f for f in facts) and not any(f.startswith("One by one") for f in facts)


def test_the_page_asks_for_nothing_and_runs_nothing():
    text = to_html(sepme())
    assert "default-src 'none'" in text and "<script" not in text and not re.search(r"(src|href)=", text)


def test_cells_of_a_published_table_without_digits(tmp_path):
    printed = Cell("A", "E", "1.", 1.0, "", None, "rate", "p")
    assert printed.printed == "1." and TableCell("A", "E", printed, Measured(0.9, 0.5, 0.95, None, 0, row())).outside is False  # 1. may be 0.5 to 1.5
