"""What can run here: for each suite its base, judges, data and erasers; and the machine. Downloads nothing and writes nothing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from conceptbench import __version__
from conceptbench.core.errors import ConceptBenchError, MissingWeightsError, UserInputError, unknown_name
from conceptbench.core.judge import JudgeCard
from conceptbench.core.manifests import load_concepts, load_prompts, load_suite, prompts_for
from conceptbench.core.protocols import every_metric
from conceptbench.core.registry import BASES, JUDGES, METRICS
from conceptbench.core.schemas import Suite, Task
from conceptbench.engine.lineup import resolve
from conceptbench.engine.needs import foreign_sets, reference_folders
from conceptbench.engine.plan import check_supported

PACKAGES = ("torch", "diffusers", "transformers", "open_clip_torch", "torchvision", "ray")
WEIGHTLESS = ("scheduler", "tokenizer", "feature_extractor", "image_processor")
"""Parts of a pipeline that are settings only, by the beginning of their names."""


@contextmanager
def offline() -> Iterator[None]:
    """Inside it nothing can reach the network: the hub's libraries are told so, and any connection fails at once as an OSError."""
    from huggingface_hub import constants

    def refuse(*_: object, **__: object) -> Any:
        raise OSError("no network while checking")

    told, named = constants.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")
    connect, look_up = socket.create_connection, socket.getaddrinfo
    constants.HF_HUB_OFFLINE = True
    os.environ["HF_HUB_OFFLINE"] = "1"
    socket.create_connection, socket.getaddrinfo = refuse, refuse
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = told
        socket.create_connection, socket.getaddrinfo = connect, look_up
        if named is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = named


def judge_card(name: str) -> JudgeCard:
    """A judge's card, from its weights on this machine.

    Raises:
        MissingWeightsError: they are not here; the hint says how to get them.
        PluginError: it does not import.
    """
    with offline():
        card: JudgeCard = JUDGES.load(name)().card
    return card


def check_eraser(spec: str, base: str, tasks: Sequence[Task] = ()) -> str:
    """Checks the name, variant, preset and options of a suite's eraser, and whether it can do what the tasks ask.

    Returns:
        Why it was not looked at: a file is not imported, because checking a suite must run nobody's code. Otherwise empty.

    Raises:
        UserInputError: it does not exist (with the nearest name), or an option is wrong.
    """
    path, ending, _ = spec.partition(",")[0].partition(".py")
    if ending:
        if not Path(path + ending).is_file():
            raise UserInputError(f"no such plugin file: {path}{ending}", "give a path to a .py file, optionally with :ClassName")
        return "a file is not run to check it; `conceptbench plan` runs it"
    entry = resolve(spec, family=None, tier="mini" if base == "mini" else "paper")
    for task in tasks:
        check_supported(entry, task)
    return ""


# -- bases -----------------------------------------------------------------------------------------------------------
def _has_weights(folder: Path) -> bool:
    """Whether a component's folder has weights of the plain kind (not ``fp16``), all shards of them where an index lists shards."""
    plain = [p for p in folder.iterdir() if p.name.split(".")[1:2] in (["safetensors"], ["bin"])]
    for index in (p for p in plain if p.name.endswith(".index.json")):
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if all((folder / s).exists() for s in shards):
            return True
    # a link in the hub's cache may point nowhere
    return any(p.exists() for p in plain if p.suffix in {".safetensors", ".bin"} and "-of-" not in p.name)


def missing_parts(folder: Path) -> list[str]:
    """Which files of a diffusers pipeline are not in a folder, by component; reads no weights.

    Args:
        folder: with ``model_index.json``, or a snapshot in the hub's cache.

    Returns:
        Names; ``model_index.json`` alone if that is missing or damaged.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        parts = [name for name, kind in index.items() if not name.startswith("_") and isinstance(kind, list) and kind and kind[0] is not None]
        return [name for name in parts if not (folder / name).is_dir() or not (name.startswith(WEIGHTLESS) or _has_weights(folder / name))]
    except (OSError, ValueError, KeyError, AttributeError):
        return ["model_index.json"]


def check_base(name: str) -> None:
    """Whether a base is on this machine. Only a registered base is loaded: a folder or a hub id is looked at file by file.

    Raises:
        MissingWeightsError: it is not; the hint is the command that gets it.
        UserInputError: there is no such base.
    """
    if name in BASES.names():
        with offline():
            BASES.load(name)()
    elif Path(name).is_dir():
        missing = missing_parts(Path(name))
        if missing:
            raise MissingWeightsError(f"the folder {name} lacks {', '.join(missing)}", "copy it again, whole")
    elif "/" in name:
        _check_hub(name)
    else:
        raise unknown_name("base", name, BASES.names(), "or give a diffusers folder, or a hub id owner/name")


def _check_hub(name: str) -> None:
    from huggingface_hub import snapshot_download

    identity, _, revision = name.partition("@")
    command = f"hf download {identity}" + (f" --revision {revision}" if revision else "")
    try:
        with offline():
            folder = Path(snapshot_download(identity, revision=revision or None, local_files_only=True))
    except (OSError, ValueError) as error:
        raise MissingWeightsError(f"the base {name!r} is not in the hub's cache", command) from error
    missing = missing_parts(folder)
    if missing:
        raise MissingWeightsError(f"the base {name!r} is in the hub's cache without {', '.join(missing)}", command)


# -- suites ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Check:
    """One thing that a suite needs.

    Attributes:
        suite: its name.
        kind: ``suite``, ``data``, ``prompts``, ``reference``, ``base``, ``metric``, ``judge`` or ``eraser``.
        name: of the thing.
        ready: whether it is here.
        detail: what is wrong; empty if nothing is.
        remedy: the command that gets it, or what to do.
    """

    suite: str
    kind: str
    name: str
    ready: bool
    detail: str = ""
    remedy: str = ""


class Doctor:
    """Looks each thing up once, however many suites need it."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[str, str]] = {}

    def examine(self, name: str) -> list[Check]:
        """All that a suite needs; the suite alone if it cannot be read."""
        try:
            suite = load_suite(name)
        except ConceptBenchError as error:
            return [Check(name, "suite", name, False, error.message, error.hint or f"conceptbench validate {name}")]
        found = [self._check(name, "prompts", s, partial(load_prompts, s)) for s in foreign_sets(suite)]
        absent = [c.name for c in found if not c.ready]
        found += [
            self._check(name, "data", suite.concepts, partial(_check_data, suite, absent)),
            self._check(name, "base", suite.base, partial(check_base, suite.base)),
            *(self._check(name, "reference", folder.name, partial(folder.check, n)) for folder, n in reference_folders(suite)),
        ]
        metrics = [self._check(name, "metric", m, partial(METRICS.load, m)) for m in dict.fromkeys(m.metric for m in suite.metrics)]
        found += [c for c in metrics if not c.ready]  # worth a line only if one does not import
        judges = dict.fromkeys(m.judge for m in every_metric(suite.metrics) if m.judge is not None and m.judge not in suite.judges)
        found += [self._check(name, "judge", j, partial(judge_card, j)) for j in judges]
        found += [self._check(name, "eraser", e, partial(check_eraser, e, suite.base, suite.tasks)) for e in suite.erasers]
        return found

    def _check(self, suite: str, kind: str, name: str, look: Callable[[], object]) -> Check:
        key = (kind, suite if kind == "data" else name)
        if key not in self._known:
            try:
                look()
                self._known[key] = ("", "")
            except ConceptBenchError as error:
                self._known[key] = (error.message, error.hint)
            except Exception as error:  # a plugin's own; the doctor goes on with the others
                self._known[key] = (f"it does not load: {error!r}", "")
        detail, remedy = self._known[key]
        return Check(suite, kind, name, not detail, detail, remedy)


def _check_data(suite: Suite, absent: Sequence[str]) -> None:
    """The concepts, and prompts for them in the sets that are here."""
    load_concepts(suite.concepts)
    for task in suite.tasks:
        if task.prompts.set not in absent:
            prompts_for(task.prompts.set, task.prompts.split, [n for names in task.drawn.values() for n in names])


# -- the machine -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Machine:
    """Where this runs.

    Attributes:
        packages: versions; None for one that is not installed.
        cores: that this process may use.
        threads: of torch's sums.
        memory_bytes: of the machine, or the limit of the container.
        devices: CUDA devices with their memory in bytes.
        store, store_writable, store_free_bytes: the store's folder, or what it would be made in.
        hub_offline: whether the hub's libraries are told to stay offline; then nothing can be fetched.
    """

    python: str
    packages: Mapping[str, str | None]
    cores: int
    threads: int
    memory_bytes: int | None
    devices: tuple[tuple[str, int], ...]
    store: str
    store_writable: bool
    store_free_bytes: int
    hub_offline: bool

    def as_dict(self) -> dict[str, Any]:
        """By name, for JSON."""
        return {**asdict(self), "devices": [{"name": n, "memory_bytes": b} for n, b in self.devices]}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory() -> int | None:
    found = []
    if hasattr(os, "sysconf") and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(os.sysconf_names):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = Path(limit).read_text().strip() if Path(limit).is_file() else ""
        found += [int(text)] if text.isdigit() else []
    return min(found, default=None)


def _devices() -> tuple[tuple[str, int], ...]:
    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return tuple((str(p.name), int(p.total_memory)) for p in found)


def machine(store: Path) -> Machine:
    """The machine and the store's disk; makes no folder."""
    place = next(p for p in (store.resolve(), *store.resolve().parents) if p.exists())
    return Machine(
        python=platform.python_version(),
        packages={"conceptbench": __version__, **{p: _version(p) for p in PACKAGES}},
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_bytes=_memory(),
        devices=_devices(),
        store=str(store),
        store_writable=place.is_dir() and os.access(place, os.W_OK | os.X_OK),
        store_free_bytes=shutil.disk_usage(place).free,
        hub_offline=any(os.environ.get(v, "").upper() in {"1", "ON", "YES", "TRUE"} for v in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")),
    )
