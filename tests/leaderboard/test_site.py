from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from boards import HOSTILE, base_row, board, row, sha
from calling import cli  # noqa: F401 - a fixture

from conceptbench.core.errors import UserInputError
from conceptbench.core.results import COLUMNS, to_csv
from conceptbench.leaderboard.site import shipped_suite, write_site
from conceptbench.leaderboard.site_citing import Citation
from conceptbench.leaderboard.site_data import Source, board_of, read_board
from conceptbench.leaderboard.site_packing import packed

KEPT = Path(__file__).parents[2] / "leaderboard" / "results"


class Page(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.scripts, self.styles, self.open = [], [], [], None
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.open = tag
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag):
        self.open = None if tag == self.open else self.open

    def handle_data(self, data):
        if self.open:
            (self.scripts if self.open == "script" else self.styles)[-1] += data

    @property
    def data(self):
        return json.loads(self.scripts[0])

    @property
    def policy(self):
        return next(a["content"] for tag, a in self.tags if a.get("http-equiv") == "Content-Security-Policy")


def unpacked(columns, count):
    """The rows of a page again, as dictionaries."""

    def value(c, i):
        return c["one"] if "one" in c else c["words"][c["at"][i]] if "words" in c else c["all"][i]

    return [{name: value(c, i) for name, c in columns.items()} for i in range(count)]


@pytest.fixture
def made(tmp_path):
    """Writes boards and the page of them; gives the page."""

    def make(*boards, **options):
        paths = []
        for i, rows in enumerate(boards):
            paths.append(tmp_path / f"board-{i}.csv")
            paths[-1].write_text(to_csv(rows), encoding="utf-8")
        make.made = write_site(paths, tmp_path / "page.html", **options)
        make.html = (tmp_path / "page.html").read_text(encoding="utf-8")
        return Page(make.html)

    return make


def arranged(*boards):
    return board_of([Source(f"{chr(97 + i)}.csv", rows) for i, rows in enumerate(boards)])


def names(tab):
    return [" ".join(filter(None, [line.eraser, line.preset, *line.tags])) for line in tab.lines]


# -- what may share a column, and what is one line --------------------------------------------------------------------------
def test_tabs_are_by_suite_and_major_version():
    rows = [row(), row(suite_version="1.1", eraser="fmn"), row(suite_version="2.0"), row(suite="other")]
    tabs = arranged(rows).tabs
    assert [(t.suite, t.major, t.versions, t.count) for t in tabs] == [
        ("made-up", "1", ("1.0", "1.1"), 2),
        ("made-up", "2", ("2.0",), 1),
        ("other", "1", ("1.0",), 1),
    ]
    assert [t.start for t in tabs] == [0, 2, 3]


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"protocol": "esr-1@other/judge"}, ["arithmetic/judge", "other/judge"]),
        ({"judge_sha256": sha("another judge")}, [f"judge {sha('judge')[:8]}", f"judge {sha('another judge')[:8]}"]),
        ({"unit": "score"}, ["rate", "score"]),
        ({"better": "lower"}, ["higher is better", "lower is better"]),
        ({"reference_sha256": sha("photos")}, ["reference ", f"reference {sha('photos')[:8]}"]),
    ],
)
def test_what_is_not_comparable_has_a_column_of_its_own(change, detail):
    tab = arranged([row(), row(eraser="fmn", **change)]).tabs[0]
    assert len(tab.columns) == 2 and len({c.id for c in tab.columns}) == 2 and tab.column_of == (0, 1)
    assert [c.detail for c in tab.columns] == detail


def test_references_of_different_tasks_share_a_column():
    tab = arranged([row(reference_sha256=sha("a")), row(task="fish", reference_sha256=sha("b"))]).tabs[0]
    assert [c.detail for c in tab.columns] == [""]


def test_columns_are_by_role():
    tab = arranged([row(role="model"), row(role="retained"), row()]).tabs[0]
    assert [c.role for c in tab.columns] == ["target", "retained", "model"] and tab.column_of == (2, 1, 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train_seed": 1}, ["seed 0", "seed 1"]),
        ({"plugin_sha256": sha("edited")}, [f"code {sha('uce')[:8]}", f"code {sha('edited')[:8]}"]),
        ({"suite_version": "1.3"}, ["version 1.0", "version 1.3"]),
        ({"base": "sd14"}, ["on mini", "on sd14"]),
        ({"base_sha256": sha("tuned")}, [f"base {sha('base')[:8]}", f"base {sha('tuned')[:8]}"]),
        ({"status": "limited", "suite_sha256": sha("part")}, ["full run", "limited"]),
    ],
)
def test_lines_say_what_tells_them_apart(change, told):
    tab = arranged([row(), row(**change), row(eraser="fmn")]).tabs[0]
    several_bases = ["on mini"] if "base" in change else []
    assert [list(line.tags) for line in tab.lines] == [[told[0]], [told[1]], several_bases] and tab.line_of == (0, 1, 2)


def test_a_failed_row_of_a_limited_run_stays_in_its_line():
    limited = {"status": "limited", "suite_sha256": sha("part")}
    failed = row(task="fish", **{**limited, "status": "failed"}, value=None)
    tab = arranged([row(**limited), failed, row()]).tabs[0]
    assert names(tab) == ["uce mini limited", "uce mini full run"] and tab.line_of == (0, 0, 1)


def test_kinds_are_registered_methods():
    rows = [
        base_row(),
        row(eraser="base-under-euler-20-3"),
        row(eraser="esd-x"),
        row(eraser="esdx"),
        row(eraser="negative-prompt"),
        row(eraser="sum", preset="checkpoint"),
    ]
    assert [line.kind for line in arranged(rows).tabs[0].lines] == ["base", "base", "esd", "esdx", "negative-prompt", "checkpoint"]


# -- several files -------------------------------------------------------------------------------------------------------------
def test_rows_that_agree_are_shown_once():
    seconds = {"metric": "cost-seconds", "role": "model", "unit": "seconds", "value": 3.0}
    mine = [base_row(), row(), row(**seconds)]
    theirs = [base_row(hardware="another"), row(suite_sha256=sha("more tasks"), erase_seconds=4.0), row(**{**seconds, "value": 5.0}), row(eraser="fmn")]
    found = arranged(mine, theirs)
    assert (len(found.rows), found.repeated, found.split) == (4, 3, ()) and names(found.tabs[0]) == ["base", "uce mini", "fmn mini"]
    assert next(r.value for r in found.rows if r.unit == "seconds") == 3.0


def test_a_method_measured_otherwise_elsewhere_is_shown_by_file():
    found = arranged([base_row(), row(), row(eraser="fmn")], [base_row(), row(value=0.5)])
    assert names(found.tabs[0]) == ["base", "uce mini a.csv", "fmn mini", "uce mini b.csv"] and found.split == ("a.csv", "b.csv")


def test_where_the_base_is_another_one_all_lines_are_shown_by_file():
    found = arranged([base_row(), row()], [base_row(value=0.3), row(eraser="fmn")])
    assert names(found.tabs[0]) == ["base a.csv", "uce mini a.csv", "base b.csv", "fmn mini b.csv"]


def test_a_file_that_contradicts_itself_is_refused():
    with pytest.raises(UserInputError, match=r"a.csv: lines 2 and 4 give different values.*esr-1 of target \* in task church, uce:mini"):
        arranged([row(), row(task="fish"), row(value=0.5)])


# -- files ---------------------------------------------------------------------------------------------------------------------
def test_packed_boards_are_read(tmp_path):
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(to_csv([row()]).encode()))
    assert read_board(tmp_path / "b.csv.gz") == [row()]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "cannot read the board"),
        ("torn.csv.gz", gzip.compress(b"suite", mtime=0)[:-9], "cannot read the board"),
        ("text.csv.gz", b"suite,task", "cannot read the board"),
        ("bytes.csv", b"\xff\xfe\x00", "is no leaderboard CSV"),
        ("other.csv", b"a,b\n1,2\n", "lacks the columns"),
        ("empty.csv", to_csv([]).encode(), "has no rows"),
        ("huge.csv", to_csv([row(reason="x" * 200_000)]).encode(), "not valid CSV: field larger"),
        ("damaged.csv", to_csv([row()]).replace("0.75", "much").encode(), r"damaged.csv:2: value is 'much'"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserInputError, match=said) as error:
        read_board(tmp_path / name)
    assert name in error.value.message


# -- the page ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("values", [["a"] * 5, ["a", "b", "a", "a", "a", "b"], [1.5, 2.5, None], [True, 1, 1.0, 0, False], [None] * 3, ["", None, ""]])
def test_packing_loses_nothing(values):
    found = [r["x"] for r in unpacked({"x": packed(values)}, len(values))]
    assert found == values and [type(v) for v in found] == [type(v) for v in values]


def test_the_page_holds_all_rows(made):
    rows = board(concepts=("house",))
    data = made(rows).data
    assert list(data["rows"]) == list(COLUMNS) and len(data["tabs"]) == 1
    assert unpacked(data["rows"], len(rows)) == [r.model_dump(mode="json") for r in rows]
    tab = data["tabs"][0]
    for i, r in enumerate(rows):
        assert (tab["lines"][tab["line"][i]]["eraser"], tab["columns"][tab["column"][i]]["protocol"]) == (r.eraser, r.protocol)
    assert tab["tasks"] == ["church", "fish"] and tab["headline"] == {}


def test_the_policy_allows_this_page_and_nothing_else(made):
    page = made(board())
    policy = dict(part.split(" ", 1) for part in page.policy.split("; "))
    assert policy["default-src"] == "'none'" and policy["img-src"] == "data:" and "unsafe" not in page.policy and "http" not in page.policy
    assert len(page.scripts) == 2 and len(page.styles) == 1
    for name, text in (("script-src", page.scripts[1]), ("style-src", page.styles[0])):
        assert policy[name] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_nothing_comes_from_elsewhere(made):
    page = made(board())
    assert set(re.findall(r"https?://[^\s\"'`)]+", made.html)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|//cdn|fetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", made.html)
    for tag, attributes in page.tags:
        assert not {"src", "href", "srcset", "action", "style"} & set(attributes) and not any(a.startswith("on") for a in attributes), tag
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", page.scripts[1])


def test_hostile_texts_stay_texts(made):
    rows = [row(eraser=text, preset=text, task=text, concept=text, reason=text, metric=text, protocol=text, environment=text) for text in HOSTILE.values()]
    rows += [row(suite=text) for text in HOSTILE.values()] + [base_row()]
    page = made(rows, citation=Citation(title=HOSTILE["script"], author=HOSTILE["latex"], url=HOSTILE["image"]))
    ordinary = [tag for tag, _ in made(board()).tags]
    assert [tag for tag, _ in page.tags] == ordinary
    data = page.data
    assert {r["eraser"] for r in unpacked(data["rows"], len(rows))} == {*HOSTILE.values(), "base", "uce"}
    for raw in ("</script", "<!--", "<script", "\u2028", "\u2029", "<img"):
        assert raw not in page.scripts[0].lower()
    assert data["bibtex"].count("{") - data["bibtex"].count(r"\{") == data["bibtex"].count("}") - data["bibtex"].count(r"\}")
    assert re.search(r"title += \{\{\\textless\{\}/script\\textgreater\{\}", data["bibtex"])


def test_the_same_input_gives_the_same_bytes(made):
    made(board(), board(suite="other"))
    first = made.html
    made(board(), board(suite="other"))
    assert made.html == first


def test_ten_thousand_rows_are_small(made):
    rows = board(methods=[f"method-{i}" for i in range(120)], tasks=("a", "b", "c"), concepts=("d", "e", "f", "g", "h"))[:10_000]
    made(rows)
    assert len(rows) == 10_000 and made.made.rows == 10_000 and made.made.size == len(made.html.encode()) < 3_000_000


def test_kept_results_have_headlines_and_titles(made):
    page = made([*read_board(KEPT / "marks.csv.gz"), *read_board(KEPT / "mini-restore.csv.gz")])
    for tab in page.data["tabs"]:
        suite = shipped_suite(tab["suite"], tab["major"])
        assert tab["title"] == suite.title and tab["facts"]["sampler"].startswith("ddim, 10 steps")
        erased, kept = (tab["columns"][tab["headline"][k]] for k in ("erased", "kept"))
        assert (erased["role"], erased["metric"]) == ("target", suite.headline.erased) and (kept["role"], kept["metric"]) == ("retained", suite.headline.kept)


def test_a_suite_is_looked_up_by_name_and_never_as_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.yaml").write_text("name: [")
    for name in ("evil.yaml", "./evil.yaml", "../mini", "", "nothing"):
        assert shipped_suite(name, "1") is None
    assert shipped_suite("mini-object", "1").headline.erased == "esr-1" and shipped_suite("mini-object", "9") is None


def test_bibtex_says_what_is_given(made):
    data = made(board(), citation=Citation("Ours & theirs", "Ada Moss and Zed Novak", "2026", "https://example.org/{board}%20")).data
    rows = to_csv(board())
    digest = hashlib.sha256(rows.encode()).hexdigest()
    lines = data["bibtex"].splitlines()
    assert lines[0] == f"@misc{{conceptbench-{digest[:8]}," and lines[-1] == "}"
    assert r"  title        = {{Ours \& theirs}}," in lines and "  author       = {Ada Moss and Zed Novak}," in lines and "  year         = {2026}," in lines
    assert r"  howpublished = {\url{https://example.org/board20}}," in lines and f"sha256 {digest[:16]}" in lines[-2]


# -- the command ---------------------------------------------------------------------------------------------------------------
def test_command(cli, tmp_path):
    (tmp_path / "a.csv").write_text(to_csv(board()))
    (tmp_path / "b.csv").write_text(to_csv(board(methods=("sa",))))
    code, out, err = cli("leaderboard", "site", tmp_path / "a.csv", tmp_path / "b.csv", "--output", tmp_path / "o.html", "--title", "Ours")
    assert code == 0 and out.startswith(f"{tmp_path}/o.html: ") and " in 1 tabs, 0 strips of images" in out, err
    assert "agree" in err or "apart" in err
    assert "<title>Ours</title>" in (tmp_path / "o.html").read_text()


def test_command_says_what_is_wrong(cli, tmp_path):
    code, _, err = cli("leaderboard", "site", tmp_path / "none.csv", "--output", tmp_path / "o.html")
    assert code == 2 and "none.csv" in err and "leaderboard.csv" in err and not (tmp_path / "o.html").exists()
    (tmp_path / "a.csv").write_text(to_csv(board()))
    code, _, err = cli("leaderboard", "site", tmp_path / "a.csv", "--output", tmp_path / "o.html", "--images", tmp_path)
    assert code == 2 and "no readable results" in err
