from __future__ import annotations

import csv
import gzip
import shutil

import pytest
import yaml
from calling import cli  # noqa: F401 - a fixture
from tabular import row, write_spec
from world import write_suite

from conceptbench.core.manifests import load_concepts, load_prompts
from conceptbench.core.results import to_csv
from conceptbench.leaderboard.spec_files import load_table, table_ids

COLUMNS = [
    [[{"label": "ESR-1", "where": {"metric": "esr-1", "role": "target"}}, {"label": "LPIPS", "where": {"metric": "lpips", "role": "retained"}, "digits": 2}]]
]
BAD = (
    "from conceptbench.models.eraser import Eraser\n"
    "class Bad(Eraser):\n    name = 'bad'\n    summary = 'raises'\n    def erase(self, base, request, config, ctx):\n        raise KeyError('oops')\n"
)


@pytest.fixture
def tiny(folders, tmp_path, monkeypatch):
    """A spec of two runs of a suite, in an empty working folder: `write(runs, **changes)` gives its path."""
    monkeypatch.chdir(tmp_path)
    load_concepts.cache_clear()
    load_prompts.cache_clear()
    suite = str(write_suite(tmp_path / "suite", metrics=[{"metric": m, "judge": j} for m, j in (("esr", "colour"), ("psr", "colour"), ("lpips", "distance"))]))

    def write(*erasers, **changes):
        runs = [
            {"id": "one", "suite": suite, "base": str(folders["sd1"]), "tasks": ["one"], "erasers": list(erasers) or ["uce:mini"]},
            {"id": "two", "suite": suite, "base": str(folders["sd1"]), "tasks": ["two"], "erasers": ["uce:mini"]},
        ]
        rows = [
            [
                [{"label": "base", "where": {"eraser": "base"}}, {"label": "UCE", "where": {"eraser": "uce"}}],
                [{"label": "ab", "where": {"task": "one"}}, {"label": "ef", "where": {"task": "two"}}],
            ]
        ]
        given = {"tiers": {"mini": {"mapping": "colours stand for objects", "runs": runs}}, "rows": rows, "columns": COLUMNS, **changes}
        return write_spec(tmp_path / "spec", **given)

    return write


def run(cli, path, *more):
    return cli("table", "run", path, "--store", "store", *more)


def test_list_names_every_table(cli):
    code, out, _ = cli("table", "list")
    assert code == 0 and all(name in out for name in table_ids()) and "28/28" in out


@pytest.mark.parametrize("name", table_ids())
def test_show_needs_no_results(cli, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for tier in load_table(name).tiers:
        code, out, _ = cli("table", "show", name, "--tier", tier)
        assert code == 0 and f"{name}: " in out and f"`conceptbench table run {name} --tier {tier}`" in out


@pytest.mark.parametrize(("form", "part"), [("markdown", "| ESD |"), ("latex", r"\toprule"), ("csv", "table,tier,row"), ("html", "<table>"), ("text", "ESD")])
def test_show_has_formats(cli, form, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cli("table", "show", "kpop/2", "--format", form)
    assert code == 0 and part in out and "95.5" in out


def test_run_plan_and_show_end_to_end(cli, tiny, tmp_path):
    path = tiny()
    code, out, _ = cli("table", "plan", path, "--store", "store")
    assert code == 0 and "one: suite tiny 1.0" in out and "two: suite tiny 1.0" in out
    assert "in all, 2 run(s)" in out and "erasures: 2 to make, 0 in the store" in out.split("in all")[1] and not (tmp_path / "runs").exists()

    code, out, err = run(cli, path)
    folder = tmp_path / "runs" / "tables" / "mine-1-mini"
    assert code == 0 and "run two of table mine/1" in err and "Mapping: colours stand for objects" in out
    assert {p.name for p in folder.iterdir()} == {"one", "two", "table.md", "table.tex", "table.csv", "table.html"}
    assert all((folder / r / f).is_file() for r in ("one", "two") for f in ("leaderboard.csv", "results.json", "report.html"))

    lines = list(csv.DictReader((folder / "table.csv").open()))
    made = {
        (r["task"], r["eraser"], r["metric"], r["role"]): r
        for f in ("one", "two")
        for r in csv.DictReader((folder / f / "leaderboard.csv").open())
        if r["concept"] == "*"
    }
    assert len(lines) == 8
    for line in lines:
        method, concept = line["row"].split(" | ")
        key = ({"ab": "one", "ef": "two"}[concept], {"base": "base", "UCE": "uce"}[method])
        metric = ("esr-1", "target") if line["column"] == "ESR-1" else ("lpips", "retained")
        source = made.get((*key, *metric))
        if source is None:  # the base has no distance to itself
            assert line["value"] == "" and method == "base" and line["column"] == "LPIPS"
        else:
            assert float(line["value"]) == pytest.approx((100 if metric[0] == "esr-1" else 1) * float(source["value"]), abs=1e-4)

    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "store" / "images").rglob("*.png")}
    code, again, err = run(cli, path)
    assert code == 0 and again == out and err.count("made 0 erasures and 0 images") == 2
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "store" / "images").rglob("*.png")} == stamps
    assert cli("table", "show", path)[1] == out

    shutil.rmtree(folder / "two")  # what is not there yet is empty, and not an error
    code, part, _ = cli("table", "show", path)
    assert code == 0 and "5 of 8 cells are not measured" in part


def test_limited_runs_say_so(cli, tiny):
    code, out, _ = run(cli, tiny(), "--limit", "1", "--output", "here")
    assert code == 0 and "status limited; n 1" in out


def test_a_failed_unit_is_exit_code_three_and_the_rest_is_shown(cli, tiny, tmp_path):
    (tmp_path / "bad.py").write_text(BAD)
    code, out, err = run(cli, tiny(str(tmp_path / "bad.py"), "uce:mini"))
    assert code == 3 and "oops" in err and "UCE" in out and "run two of table" in err
    assert (tmp_path / "runs" / "tables" / "mine-1-mini" / "table.md").is_file()


def test_bases_of_all_runs_and_of_one(cli, tiny, folders):
    path = tiny()
    both = cli("table", "plan", path, "--store", "store", "--base", folders["sd2"])[1]
    one = cli("table", "plan", path, "--store", "store", "--base", f"two={folders['sd2']}")[1]
    assert both.count(f"on {folders['sd2'].name};") == 2 and one.count(f"on {folders['sd2'].name};") == 1 and one.count(f"on {folders['sd1'].name};") == 1
    code, _, err = cli("table", "plan", path, "--base", "tow=mini")
    assert code == 2 and "did you mean 'two'" in err
    code, _, err = cli("table", "plan", path, "--base", "mini", "--base", "digits-cvae")
    assert code == 2 and "is the second for all runs" in err


def test_results_by_folder_by_file_and_packed(cli, tiny, tmp_path):
    rows = [row(task="one", value=0.25), row(task="two", value=0.75)]
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "leaderboard.csv").write_text(to_csv(rows))
    (tmp_path / "given.csv").write_text(to_csv(rows[:1]))
    (tmp_path / "given.csv.gz").write_bytes(gzip.compress(to_csv(rows).encode()))
    path = tiny()
    shown = {name: cli("table", "show", path, "--results", name) for name in ("given", "given.csv", "given.csv.gz")}
    assert all(code == 0 and "25.0" in out for code, out, _ in shown.values())
    assert ["75.0" in out for _, out, _ in shown.values()] == [True, False, True]
    code, out, _ = cli("table", "show", path, "--results", "one=given.csv", "--results", "two=given.csv.gz")
    assert code == 0 and "25.0" in out and "75.0" in out


@pytest.mark.parametrize("content", [None, b"no,leaderboard\n1,2\n", b"\xff\xfe", b"\x1f\x8b broken"])
def test_results_that_are_none(cli, tiny, tmp_path, content):
    name = tmp_path / "bad.csv.gz" if content and content[:1] == b"\x1f" else tmp_path / "bad.csv"
    if content is not None:
        name.write_bytes(content)
    code, _, err = cli("table", "show", tiny(), "--results", name)
    assert code == 2 and "bad.csv" in err and "Traceback" not in err


def test_what_does_not_compare_is_exit_code_four(cli, tiny, tmp_path):
    rows = [row(task="one"), row(task="two", protocol="esr-1@top1/other")]
    (tmp_path / "mixed.csv").write_text(to_csv(rows))
    code, out, err = cli("table", "show", tiny(), "--results", "mixed.csv")
    assert code == 4 and "esr-1@top1/other" in err and "--force" in err and not out
    assert cli("table", "show", tiny(), "--results", "mixed.csv", "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "kpop/22"], "did you mean 'kpop/2'"),
        (["run", "sepme/44"], "did you mean 'sepme/4'"),
        (["show", "kpop/2", "--tier", "papr"], "did you mean 'paper'"),
        (["show", "kpop/2", "--format", "latecs"], "did you mean 'latex'"),
        (["run", "kpop/2", "--format", "htm"], "did you mean 'html'"),
        (["plan", "nowhere.yaml"], "no such file"),
        (["show", "kpop/2", "--results", "nowhere"], "no readable results in nowhere"),
    ],
)
def test_bad_input(cli, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("table", *arguments)
    assert code == 2 and message in err and not out and "Traceback" not in err


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("suite", "mini-objcet", "did you mean 'mini-object'"), ("erasers", ["ucee"], "did you mean 'uce'"), ("tasks", ["twoo"], "did you mean 'two'")],
)
def test_a_typing_error_in_the_last_run_is_found_before_the_first(cli, tiny, tmp_path, verb, key, value, message):
    path = tiny()
    spec = yaml.safe_load(path.read_text())
    spec["tiers"]["mini"]["runs"][1][key] = value
    path.write_text(yaml.safe_dump(spec))
    code, _, err = cli("table", verb, path, "--store", "store")
    assert code == 2 and message in err and not (tmp_path / "store").exists() and not (tmp_path / "runs").exists()


def test_a_faulty_spec_names_file_and_line(cli, tiny):
    path = tiny(columns=[[[{"label": "E", "where": {"metrik": "esr-1"}}]]])
    code, _, err = cli("table", "show", path)
    line = next(i for i, x in enumerate(path.read_text().splitlines(), start=1) if "metrik" in x)
    assert code == 2 and f"mine.yaml:{line}: " in err and "did you mean 'metric'" in err
