"""Every command of the README runs, as written, with its own example files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
NEEDS_WEIGHTS = "# needs weights"


def commands():
    found = [line for kind, _, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [c for c in found if not c.startswith("make ") and NEEDS_WEIGHTS not in c]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An empty folder with the README's example files in it."""
    path = tmp_path_factory.mktemp("readme")
    for _, name, text in BLOCKS:
        if name:
            (path / name).write_text(text)
    return path


@pytest.mark.parametrize("command", commands())
def test_command(command, folder):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CONCEPTBENCH_STORE": str(folder / "store"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(["bash", "-ec", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_make_targets_exist():
    targets = set(re.findall(r"^make (\w+)", "\n".join(t for k, _, t in BLOCKS if k == "sh"), re.MULTILINE))
    assert {"run", "test"} <= targets <= set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
