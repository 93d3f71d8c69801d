"""The layout: imports go downward, the wheel holds everything, names are where they belong."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SOURCES = ("conceptbench", "erasers", "metrics", "prompts", "leaderboard")


def tracked(pattern):
    """Files of the source tree, symlinked folders not followed twice."""
    return [
        p
        for top in SOURCES
        for p in sorted((ROOT / top).rglob(pattern))
        if "__pycache__" not in p.parts and not any(x.is_symlink() for x in p.parents if ROOT in x.parents)
    ]


def copy_of_the_tree(target):
    for name in (*SOURCES, "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        else:
            shutil.copy(source, target / name)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("conceptbench/core/seeds.py", "import conceptbench.models.groups"),
        ("conceptbench/engine/store.py", "import conceptbench.metrics.clip_score"),
        ("erasers/uce.py", "import conceptbench.metrics.clip_score"),
        ("metrics/clip_score.py", "import conceptbench.engine.store"),
        ("leaderboard/cells.py", "import conceptbench.metrics.clip_score"),
        ("conceptbench/engine/plan.py", "import conceptbench.leaderboard.cells"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path, where, line):
    copy_of_the_tree(tmp_path)
    command = [BIN / "lint-imports", "--config", "pyproject.toml", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    clean = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert clean.returncode == 0, clean.stdout
    with (tmp_path / where).open("a") as file:
        file.write(f"\n{line}\n")
    planted = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert planted.returncode == 1 and "BROKEN" in planted.stdout


def test_the_wheel_holds_everything_and_runs(tmp_path):
    """Built, installed beside the same dependencies, started from an empty folder."""
    source = tmp_path / "source"
    source.mkdir()
    copy_of_the_tree(source)
    for weights in ("conceptbench/mini/weights", "conceptbench/classes/weights"):
        shutil.copytree(ROOT / weights, source / weights, dirs_exist_ok=True)
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source], check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    inside = set(zipfile.ZipFile(wheel).namelist())
    for path in tracked("*"):
        if path.is_file():
            name = path.relative_to(ROOT).as_posix()
            assert (name if name.startswith("conceptbench/") else f"conceptbench/{name}") in inside, name
    site = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel], check=True, capture_output=True)
    work = tmp_path / "work"
    work.mkdir()
    code = "import conceptbench, sys; assert 'site' in conceptbench.__file__, conceptbench.__file__; from conceptbench.cli.app import main; main()"
    arguments = [sys.executable, "-c", code, "run", "mini-explicit", "--eraser", "negative-prompt", "--limit", "1", "--store", "store", "--output", "out"]
    done = subprocess.run(arguments, cwd=work, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (work / "out" / "report.html").exists()


def test_only_one_module_writes_files():
    """Everything is written atomically, through core/files."""
    offenders = []
    for path in tracked("*.py"):
        if path.name == "files.py" or "training" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            receiver = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            writes = called in {"write_text", "write_bytes"} and receiver not in {"temporary", ""}
            modes = [a.value for a in [*node.args, *(k.value for k in node.keywords)] if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            opens = called == "open" and any(set(m) & set("wax+") and len(m) <= 3 for m in modes)
            saves = called == "save_file" and "temporary" not in ast.unparse(node)
            if writes or opens or saves:
                offenders.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not offenders


def test_printing_and_global_randomness_have_their_places():
    for path in tracked("*.py"):
        text = path.read_text()
        if "training" not in path.parts:
            assert "torch.manual_seed(" not in text.replace("Generator().manual_seed(", ""), path
        assert path.name != "utils.py"


def test_files_can_be_held_in_ones_head():
    long = {str(p.relative_to(ROOT)): n for p in tracked("*.py") if (n := len(p.read_text().splitlines())) > 300}
    assert not long
