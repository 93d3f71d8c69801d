from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner
from world import write_suite

from conceptbench.cli import compare, doctor, new, validate
from conceptbench.core.errors import ConceptBenchError, UserInputError
from conceptbench.engine.records import Record, write_records

app = typer.Typer()
for name, function in (("validate", validate.validate), ("doctor", doctor.doctor), ("compare", compare.compare), ("new", new.new)):
    app.command(name)(function)


def call(*arguments):
    """Exit code and stdout; errors of ours become their exit code and message, as in the entry point."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if isinstance(result.exception, ConceptBenchError):
        return result.exception.exit_code, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_validate_shipped():
    code, out = call("validate", "mini", "mini-explicit")
    assert code == 0 and "mini: no problems; checked 3 tasks, 17 concepts" in out and "error" not in out


def test_validate_prints_place_and_kind(tmp_path):
    path = write_suite(tmp_path)
    code, out = call("validate", path)
    assert "error: unknown base 'tiny'" in out and f"{path}:{path.read_text().splitlines().index('base: tiny') + 1}: error" in out and code == 2
    path = write_suite(tmp_path, base="some/model")
    code, out = call("validate", path, tmp_path / "prompts.csv", tmp_path / "concepts.yaml")
    assert code == 0 and out.count(": warning: ") == 6 and "0 errors, 3 warnings" in out  # few prompts, of the suite and of the set alone
    assert call("validate", "minni")[0] == 2


def test_validate_runs_nobodys_code(tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit(77)")
    path = write_suite(tmp_path, base="some/model", erasers=[str(tmp_path / "evil.py"), "esdx"])
    code, out = call("validate", path)
    assert code == 2 and "not checked: eraser" in out and "did you mean 'esd-x'" in out


def test_doctor(tmp_path):
    code, out = call("doctor", "mini", "--store", tmp_path / "store")
    assert code == 0 and "mini" in out and "yes" in out and not (tmp_path / "store").exists()
    path = write_suite(tmp_path, base="owner/model")
    code, out = call("doctor", "mini", path, "--store", tmp_path / "store")
    assert code == 2 and "hf download owner/model" in out
    code, out = call("doctor", path, "--json", "--store", tmp_path / "store")
    document = json.loads(out)
    assert code == 2 and not document["ready"] and [n["name"] for n in document["suites"][0]["needs"] if not n["ready"]] == ["owner/model"]


@pytest.fixture
def run_folder(tmp_path):
    records = [
        Record("t", "target", "c", eraser, preset, f"p{i}", 0, 2 * i, "[red]x", "i", {"esr-1@x/j": float(i < limit)})
        for eraser, preset, limit in (("base", "", 1), ("esd-x", "mini", 9))
        for i in range(10)
    ]
    write_records(tmp_path / "run" / "records.csv", records)
    canonical = {
        "suite": {"name": "s", "version": "1.0", "sampler": {}},
        "base": {"components": {}},
        "development": False,
        "judges": {},
        "rows": [{"protocol": "esr-1@x/j", "role": "target", "better": "higher", "unit": "rate"}],
    }
    (tmp_path / "run" / "results.json").write_text(json.dumps({"canonical": canonical}))
    return tmp_path / "run"


def test_compare(run_folder, tmp_path):
    code, out = call("compare", f"{run_folder}:esd-x", f"{run_folder}:base", "--csv", tmp_path / "c.csv")
    assert code == 0 and "90" in out and "80 [" in out and "8 : 0" in out and "0.008" in out
    (row,) = csv.DictReader((tmp_path / "c.csv").read_text().splitlines())
    assert (row["a"], row["b"], row["pairs"], float(row["p"])) == ("esd-x:mini", "base", "10", 2 / 2**8)
    code, out = call("compare", f"{run_folder}:esd-x", f"{run_folder}:base", "--json")
    assert json.loads(out)["comparisons"][0]["delta"] == pytest.approx(0.8)
    assert call("compare", run_folder, "nowhere")[0] == 2


def test_compare_refuses_with_exit_code_four(run_folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "records.csv").write_bytes((run_folder / "records.csv").read_bytes())
    (other / "results.json").write_text((run_folder / "results.json").read_text().replace('"1.0"', '"2.0"'))
    code, out = call("compare", run_folder, other)
    assert code == 4 and "s 1.x and s 2.x" in out
    assert call("compare", run_folder, other, "--force")[0] == 0


def test_new_eraser_passes_its_own_test(tmp_path):
    code, out = call("new", "eraser", "my-method", "--output", tmp_path)
    assert code == 0 and sorted(p.name for p in tmp_path.iterdir()) == ["my_method.py", "test_my_method.py"] and "--eraser" in out
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_method.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_new_files_are_in_the_house_style(tmp_path):
    call("new", "eraser", "my-method", "--output", tmp_path)
    ruff = [sys.executable, "-m", "ruff"]
    settings = ["--config", str(Path(__file__).parents[2] / "pyproject.toml")]
    subprocess.run([*ruff, "check", *settings, "--ignore", "D,S,ARG,INP", str(tmp_path)], check=True, capture_output=True)
    subprocess.run([*ruff, "format", "--check", *settings, str(tmp_path)], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("2fast", "cannot be the name of a Python file"),
        ("a/b", "cannot be the name"),
        ("../up", "cannot be the name"),
        ("class", "cannot be the name"),
        ("_x", "cannot be the name"),
        ("naïve", "cannot be the name"),
        ("", "cannot be the name"),
        ("esd", "is taken by conceptbench.erasers.esd:ESD"),
        ("ESD", "is taken by"),
        ("esd-x", "is taken by"),
        ("negative_prompt", "is taken by"),
        ("base", "what the unmodified model is called"),
        ("torch", "would hide the installed Python module"),
    ],
)
def test_new_refuses_bad_names(tmp_path, name, reason):
    code, out = call("new", "eraser", "--output", tmp_path / "out", "--", name)
    assert code == 2 and reason in out and not (tmp_path / "out").exists()


def test_new_overwrites_nothing(tmp_path):
    for file in ("test_mine.py", "mine.py"):
        (tmp_path / file).write_text("precious")
        code, out = call("new", "eraser", "mine", "--output", tmp_path)
        assert code == 2 and "exists already" in out and [p.read_text() for p in tmp_path.iterdir()] == ["precious"]
        (tmp_path / file).unlink()
    with pytest.raises(UserInputError, match="did you mean 'eraser'"):
        new.new("erase", "mine", tmp_path)
