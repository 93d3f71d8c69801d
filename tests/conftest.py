from __future__ import annotations

import os
import socket

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import tiny
import torch

torch.set_num_threads(1)  # tiny tensors: threads would only wait for each other


LONGEST = ("test_readme.py", "test_kill.py", "test_stages.py")


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left with one of them at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Nothing in the tests may reach the network."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"network access: {args}")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return {f: tiny.save(f, tmp_path_factory.mktemp(f)) for f in tiny.FAMILIES}


@pytest.fixture(params=tiny.FAMILIES)
def base(request, folders):
    from conceptbench.models.families import load_base

    return load_base(str(folders[request.param]))


@pytest.fixture
def sd1(folders):
    from conceptbench.models.families import load_base

    return load_base(str(folders["sd1"]))
