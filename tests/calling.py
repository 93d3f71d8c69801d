"""Calls the command line in this process."""

from __future__ import annotations

import sys

import pytest

from conceptbench.cli import app as application


def call(*arguments, monkeypatch, capsys):
    """Returns exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["conceptbench", *map(str, arguments)])
    code = 0
    try:
        application.main()
    except SystemExit as stop:
        code = stop.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture
def cli(monkeypatch, capsys):
    return lambda *arguments: call(*arguments, monkeypatch=monkeypatch, capsys=capsys)
