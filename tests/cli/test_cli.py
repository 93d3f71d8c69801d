from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from calling import cli  # noqa: F401 - a fixture
from typer.testing import CliRunner

from conceptbench.cli import app as application
from conceptbench.core.manifests import names_in
from conceptbench.core.registry import ERASERS


def test_help_imports_no_heavy_library():
    code = "import sys; sys.argv=['conceptbench','--help']\nfrom conceptbench.cli.app import app\ntry: app()\nexcept SystemExit: pass\nprint([m for m in ('torch','numpy','diffusers','pandas','scipy') if m in sys.modules], file=sys.stderr)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "run" in out.stdout and out.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["run", "mnii"], "did you mean 'mini'"),
        (["run", "mini", "--eraser", "esdx"], "did you mean 'esd-x'"),
        (["run", "mini", "--eraser", "esd-y"], "variant of esd 'y'"),
        (["run", "mini", "--eraser", "esd-x:papr"], "did you mean 'paper'"),
        (["run", "mini", "--base", "minni"], "did you mean 'mini'"),
        (["run", "mini", "--device", "cuda:99"], "no device 'cuda:99'"),
        (["run", "mini", "--eraser", "nowhere.py"], "no such plugin file"),
        (["list", "eraser"], "did you mean 'erasers'"),
        (["show", "metric", "est"], "did you mean 'esr'"),
        (["show", "concept", "chruch"], "did you mean 'church'"),
        (["report", "nowhere"], "no readable results"),
    ],
)
def test_bad_input_is_exit_code_two_with_a_suggestion(cli, arguments, suggestion):
    code, _, err = cli(*arguments)
    assert code == 2 and suggestion in err and "Traceback" not in err


def test_unknown_options_and_commands():
    runner = CliRunner()
    for arguments, expected in ((["run", "--erazer", "uce"], "--eraser"), (["rn"], "run")):
        result = runner.invoke(application.app, arguments)
        assert result.exit_code == 2 and expected in result.output


def test_unknown_yaml_key(cli, tmp_path):
    _, text, _ = cli("show", "suite", "mini")
    (tmp_path / "s.yaml").write_text(text.replace("guidance", "guidanec", 1))
    code, _, err = cli("run", tmp_path / "s.yaml")
    assert code == 2 and "did you mean 'guidance'" in err and "s.yaml:" in err


@pytest.mark.parametrize("kind", ["suites", "erasers", "metrics", "judges", "bases", "concepts"])
def test_list(cli, kind):
    code, out, _ = cli("list", kind)
    assert code == 0 and len(out.splitlines()) >= 1


def test_list_names_every_suite(cli):
    _, out, _ = cli("list")
    assert [line.split()[0] for line in out.splitlines()] == names_in("suites")


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [("eraser", "esd", "negative_guidance"), ("metric", "esr", "classifier"), ("judge", "mini-classifier", "sha256"), ("concept", "church", "anchor")],
)
def test_show(cli, kind, name, expected):
    code, out, _ = cli("show", kind, name)
    assert code == 0 and expected in out


@pytest.mark.parametrize("name", ERASERS.names())
def test_show_every_eraser(cli, name):
    code, out, err = cli("show", "eraser", name)
    assert code == 0, err
    assert yaml.safe_load(out)["name"] == name


def test_show_suite_prints_a_valid_suite(cli, tmp_path):
    from conceptbench.core.manifests import load_suite

    _, out, _ = cli("show", "suite", "mini-object")
    (tmp_path / "again.yaml").write_text(out)
    assert load_suite(str(tmp_path / "again.yaml")) == load_suite("mini-object") and yaml.safe_load(out)["name"] == "mini-object"


def test_run_plan_report_on_the_mini_model(cli, tmp_path):
    """The real thing, small: shipped weights, two prompts a concept, one eraser without training."""
    store, out = tmp_path / "store", tmp_path / "out"
    arguments = ("mini-object", "--eraser", "uce", "--limit", "2", "--store", store)
    code, text, _ = cli("plan", *arguments, "--json")
    before = json.loads(text)
    assert code == 0 and before["images_cached"] == 0 and before["erasures"] == 5 and before["seconds"] > 0 and not before["measured"]
    code, text, err = cli("run", *arguments, "--output", out)
    assert code == 0 and "uce" in text and "results in" in err
    assert {p.name for p in out.iterdir()} == {"leaderboard.csv", "records.csv", "results.json", "report.html", "journal.jsonl"}
    after = json.loads(cli("plan", *arguments, "--json")[1])
    assert after["images"] == after["images_cached"] == before["images"] and after["erasures_cached"] == 5
    page = (out / "report.html").read_bytes()
    (out / "report.html").unlink()
    assert cli("report", out, "--store", store)[0] == 0 and (out / "report.html").read_bytes() == page


def test_failed_units_are_exit_code_three(cli, tmp_path):
    (tmp_path / "bad.py").write_text(
        "from conceptbench.models.eraser import Eraser\nclass Bad(Eraser):\n    name = 'bad-one'\n    summary = 's'\n    def erase(self, base, request, config, ctx):\n        raise ValueError('no')\n"
    )
    code, _, err = cli("run", "mini-style", "--eraser", tmp_path / "bad.py", "--limit", "1", "--store", tmp_path / "s", "--output", tmp_path / "o")
    assert code == 3 and "ValueError('no')" in err and "Traceback" not in err


def test_a_plugin_that_does_not_import(cli, tmp_path):
    (tmp_path / "broken.py").write_text("import no_such_module_anywhere")
    code, _, err = cli("run", "mini", "--eraser", tmp_path / "broken.py")
    assert code == 2 and "no_such_module_anywhere" in err


def test_a_bug_is_exit_code_one(cli, monkeypatch):
    def bug(*_):
        raise RuntimeError("planted")

    monkeypatch.setattr("conceptbench.core.manifests.names_in", bug)
    code, _, err = cli("list")
    assert code == 1 and "this is a bug" in err and "planted" in err


def test_console_script_starts():
    script = Path(sys.executable).parent / "conceptbench"
    out = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"})
    assert "benchmark" in out.stdout.lower() or "erased" in out.stdout
