"""One small real run and its submission, and copies of it that somebody changed."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys

import pytest

from conceptbench.cli import app
from conceptbench.core.files import sha256_file
from conceptbench.leaderboard.exporting import export

ARGUMENTS = ("run", "mini", "--task", "object", "--limit", "1", "-e", "negative-prompt")


def run_mini(folder):
    """The results of ``conceptbench run`` in a folder; its store is beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["conceptbench", *ARGUMENTS, "--store", str(folder / "store"), "--output", str(folder / "run")])
        try:
            app.main()
        except SystemExit as stop:
            assert not stop.code
    return folder / "run"


MADE = []


@pytest.fixture(scope="module")
def submission(tmp_path_factory):
    """A submission of a run that is made once; do not change it."""
    if not MADE:
        folder = tmp_path_factory.mktemp("submitting")
        export([run_mini(folder)], folder / "submission")
        MADE.append(folder / "submission")
    return MADE[0]


class Copy:
    """A copy of a submission that can be changed, with or without putting the manifest right afterwards."""

    def __init__(self, source, path):
        shutil.copytree(source, path)
        self.path = path

    def cells(self, name="leaderboard.csv"):
        return list(csv.reader(io.StringIO((self.path / name).read_text())))

    def write_cells(self, cells, name="leaderboard.csv"):
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(cells)
        (self.path / name).write_text(out.getvalue())

    def set(self, column, value, name="leaderboard.csv", **where):
        """Sets a cell in the rows that match; gives the lines."""
        cells = self.cells(name)
        at = {c: i for i, c in enumerate(cells[0])}
        lines = [i for i, row in enumerate(cells) if i and all(row[at[k]] == v for k, v in where.items())]
        for i in lines:
            cells[i][at[column]] = value
        self.write_cells(cells, name)
        assert lines
        return [i + 1 for i in lines]

    def document(self):
        return json.loads((self.path / "manifest.json").read_text())

    def edit(self, change):
        document = self.document()
        change(document)
        (self.path / "manifest.json").write_text(json.dumps(document))

    def sign(self):
        """Makes the manifest's hashes those of the files: what a forger does, too."""
        self.edit(lambda d: d["files"].update({n: sha256_file(self.path / n) for n in d["files"]}))


@pytest.fixture
def copy(submission, tmp_path):
    return Copy(submission, tmp_path / "copy")
