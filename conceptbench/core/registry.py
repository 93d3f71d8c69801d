"""Finding plugins by name: entry points, and the user's own files.

>>> ERASERS.names()            # what is installed, without importing it
>>> ERASERS.load("esd")        # the class
>>> ERASERS.add_file(Path("my_method.py"), "MyEraser")
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from conceptbench.core.errors import PluginError, UserInputError, unknown_name


class Registry:
    """Plugins of one kind.

    Args:
        kind: what one of them is called in messages, e.g. ``eraser``.
        group: the entry point group, e.g. ``conceptbench.erasers``.
        base: dotted name of the class that a plugin must inherit, or None for functions.
    """

    def __init__(self, kind: str, group: str, base: str | None = None) -> None:
        self.kind, self.group, self._base = kind, group, base
        self._added: dict[str, Any] = {}
        self._installed: dict[str, EntryPoint] | None = None

    def _entries(self) -> dict[str, EntryPoint]:
        if self._installed is None:  # finding them reads every installed package's metadata
            self._installed = {e.name: e for e in entry_points(group=self.group)}
        return self._installed

    def names(self) -> list[str]:
        """All names, sorted; imports nothing."""
        return sorted({*self._entries(), *self._added})

    def origin(self, name: str) -> str:
        """Where a plugin comes from: ``module:attribute`` or the user's file."""
        if name in self._added:
            return inspect.getsourcefile(self._added[name]) or "?"
        return self._entries()[name].value

    def load(self, name: str) -> Any:
        """The plugin's class or function.

        Raises:
            UserInputError: no plugin has that name (with the nearest one).
            PluginError: it does not import.
        """
        if name in self._added:
            return self._added[name]
        entries = self._entries()
        if name not in entries:
            raise unknown_name(self.kind, name, self.names(), f"conceptbench list {self.kind}s")
        try:
            return entries[name].load()
        except Exception as error:
            raise PluginError(f"the {self.kind} {name!r} does not import: {error!r}", f"it is {entries[name].value}") from error

    def add(self, name: str, plugin: Any) -> None:
        """Registers a class or function of the user's.

        Raises:
            PluginError: the name is taken.
        """
        taken = self._added.get(name)
        if name in self._entries() or (taken is not None and taken is not plugin and inspect.getsourcefile(taken) != inspect.getsourcefile(plugin)):
            raise PluginError(f"the {self.kind} name {name!r} is taken by {self.origin(name)}", "give your class another `name`")
        self._added[name] = plugin

    def add_file(self, path: Path, attribute: str | None = None) -> str:
        """Imports a file and registers the plugin class in it.

        Args:
            path: a Python file.
            attribute: the class; may be left out if the file defines exactly one.

        Returns:
            The registered name.
        """
        module = import_file(path)
        base = self._base_class()
        classes = {n: c for n, c in vars(module).items() if inspect.isclass(c) and issubclass(c, base) and c.__module__ == module.__name__}
        if attribute is None and len(classes) != 1:
            found = ", ".join(sorted(classes)) or "none"
            raise PluginError(f"{path} defines {len(classes)} {self.kind} classes ({found}), not one", f"name it: {path}:ClassName")
        if attribute is not None and attribute not in classes:
            raise unknown_name(f"{self.kind} class in {path.name}", attribute, classes)
        plugin: Any = classes[attribute] if attribute else next(iter(classes.values()))
        name = str(getattr(plugin, "name", "") or plugin.__name__.lower())
        plugin.name = name
        self.add(name, plugin)
        return name

    def _base_class(self) -> type:
        assert self._base is not None
        module, _, name = self._base.partition(":")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, type)
        return found


def import_file(path: Path) -> ModuleType:
    """Imports a Python file under a name of its own. Raises PluginError with the cause if it does not import."""
    if not path.is_file():
        raise UserInputError(f"no such plugin file: {path}", "give a path to a .py file, optionally with :ClassName")
    name = f"conceptbench_plugin_{path.stem}_{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file", "plugins are .py files")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(f"the plugin {path} does not import: {error!r}", "run it with python to see the whole traceback") from error
    return module


def source_hash(objects: Iterable[Any]) -> str:
    """sha256 over the source files of the given classes or modules; an edited plugin never sees yesterday's results."""
    digest = hashlib.sha256()
    for file in sorted({inspect.getsourcefile(o) or "" for o in objects}):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


ERASERS = Registry("eraser", "conceptbench.erasers", "conceptbench.models.eraser:Eraser")
METRICS = Registry("metric", "conceptbench.metrics", "conceptbench.core.metric:Quantity")
JUDGES = Registry("judge", "conceptbench.judges")
BASES = Registry("base", "conceptbench.bases")
REFERENCES = Registry("reference set", "conceptbench.references")
RUNTIMES = Registry("runtime", "conceptbench.runtimes", "conceptbench.models.runtime:Runtime")
SUITES = Registry("suite", "conceptbench.suites")
