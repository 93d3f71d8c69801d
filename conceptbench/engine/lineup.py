"""Who runs: turns ``esd-x:paper,lr=1e-4`` or ``my_method.py:MyEraser`` into a class, its options and the hash of its source."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from conceptbench.core.errors import UserInputError, nearest, unknown_name
from conceptbench.core.files import key_of
from conceptbench.core.manifests import read_yaml
from conceptbench.core.registry import ERASERS, source_hash
from conceptbench.core.results import CHECKPOINT as CHECKPOINT  # also known by this name
from conceptbench.core.schemas import Concept
from conceptbench.models.eraser import Eraser, EraserConfig

DEFAULT_PRESET = "default"


class OptionLoader(yaml.SafeLoader):
    """Safe YAML in which ``1e-3`` is a number."""


OptionLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"), list("-+.0123456789"))


@dataclass(frozen=True)
class Entry:
    """One eraser of a line-up.

    Attributes:
        label: name and variant, the row's ``eraser``: ``esd-x``.
        preset: name of the preset, the row's ``preset``; ``default`` where the eraser has none. With options of the user's own behind
            it: ``mini,lr=0.001``.
        eraser: the class.
        config: its options.
        source_sha256: of the plugin's source and what it shares with others.
        by_kind: options for targets of a kind, where the preset has other ones for it.
    """

    label: str
    preset: str
    eraser: type[Eraser[Any]]
    config: EraserConfig
    source_sha256: str
    by_kind: Mapping[str, EraserConfig] = field(default_factory=dict)

    def on(self, targets: Sequence[Concept]) -> Entry:
        """The entry with the options for these targets; those of no kind if they are of several."""
        kinds = {c.kind for c in targets}
        return replace(self, config=self.by_kind.get(kinds.pop(), self.config) if len(kinds) == 1 else self.config)

    @property
    def spec(self) -> str:
        """``label:preset``."""
        return f"{self.label}:{self.preset}"


def presets_of(name: str) -> dict[str, dict[str, Any]]:
    """The presets that ship for an eraser: preset -> ``source`` and family -> options."""
    path = Path(str(files("conceptbench.erasers"))) / "presets" / f"{name}.yaml"
    return dict(read_yaml(path)) if path.is_file() else {}


def _split_name(label: str) -> tuple[str, str]:
    """``esd-x`` to (``esd``, ``x``): the longest registered name that the label begins with."""
    known = ERASERS.names()
    fitting = [n for n in known if label == n or label.startswith(f"{n}-")]
    if not fitting:
        everything = [*known, *(f"{n}-{v}" for n in known for v in ERASERS.load(n).variants if v)]
        raise unknown_name("eraser", label, everything, "conceptbench list erasers")
    name = max(fitting, key=len)
    return name, label[len(name) + 1 :]


def _resolve_file(spec: str) -> str | None:
    """Registers ``file.py`` or ``file.py:Class`` (and ``:preset`` after it) and returns the rest of the spec."""
    parts = re.fullmatch(r"([^,]+\.py)(?::([^:,]*))?(?::([^,]*))?(,.*)?", spec)
    if parts is None:
        return None
    path, attribute, preset, options = parts.groups()
    name = ERASERS.add_file(Path(path), attribute or None)
    return (f"{name}:{preset}" if preset else name) + (options or "")


@functools.cache
def shared_source_hash() -> str:
    """The hash of the code that all erasers run on; part of every erasure's key."""
    folders = [files("conceptbench.erasers") / "shared", files("conceptbench.models")]
    own = [files("conceptbench.engine") / f"{n}.py" for n in ("training", "joining", "pictures", "generate")]
    paths = [*(p for folder in folders for p in folder.iterdir() if p.name.endswith(".py")), *own]
    sources = sorted((str(p.name), p.read_text(encoding="utf-8")) for p in paths)
    return key_of(sources)


def split_options(text: str, config: type[EraserConfig]) -> dict[str, Any]:
    """``lr=1e-3,steps=50,targets=[a, b]`` to options; values are read as YAML, but what a text option gets stays as it is written.

    Args:
        text: commas inside brackets and quotes separate nothing; may be empty.
        config: whose options.

    Raises:
        UserInputError: a part is no ``name=value``, a name stands there twice, or a value is no YAML.
    """
    options: dict[str, Any] = {}
    for part in _parts(text) if text else ():
        key, sign, value = part.partition("=")
        key = key.strip()
        if not sign or not key or key in options:
            raise UserInputError(f"{part!r} is no option" + (" of its own" if key in options else ""), "write options as NAME:PRESET,OPTION=VALUE,...")
        known = config.model_fields.get(key)
        if known is not None and known.annotation in (str, str | None) and value not in ("null", "~") and value[:1] not in ("'", '"'):
            options[key] = value
            continue
        try:
            options[key] = yaml.load(value, OptionLoader)  # noqa: S506 - a safe loader
        except (yaml.YAMLError, ValueError) as error:
            raise UserInputError(f"the value {value!r} of option {key!r} is not readable", "numbers, true, false, null, words and [lists] are") from error
    return options


def _parts(text: str) -> list[str]:
    """The text cut at commas that are in no brackets and no quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "[{(") - (letter in "]})")
        if letter == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def config_for(
    eraser: type[Eraser[Any]], variant: str, preset: str, family: str, own: Mapping[str, Any] = MappingProxyType({}), kind: str = ""
) -> EraserConfig:
    """Options of an eraser: the preset's for all, for the family, for a kind of concept, then the variant's, then the user's own.

    Raises:
        UserInputError: there is no such preset or variant, or a value is not allowed.
    """
    if variant not in eraser.variants and not (variant == "" and eraser.variants):
        raise unknown_name(f"variant of {eraser.name}", variant, eraser.variants)
    presets = presets_of(eraser.name)
    if preset != DEFAULT_PRESET and preset not in presets:
        raise unknown_name(f"preset of {eraser.name}", preset, presets or [DEFAULT_PRESET])
    values = presets.get(preset, {})
    chosen = variant or next(iter(eraser.variants))
    layers = (
        values.get("all", {}),
        values.get(family, {}),
        values.get("kinds", {}).get(kind, {}),
        eraser.variants[chosen],
        values.get("variants", {}).get(chosen, {}),
        own,
    )
    try:
        return eraser.Config.model_validate({k: v for layer in layers for k, v in layer.items()})
    except ValidationError as error:
        lines = []
        for item in error.errors():
            name = str(item["loc"][-1])
            close = None if name in eraser.Config.model_fields else nearest(name, eraser.Config.model_fields)
            lines.append(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" + (f"; did you mean {close!r}?" if close else ""))
        raise UserInputError(f"options of {eraser.name}:{preset}: " + "; ".join(lines)) from error


def _written(value: Any) -> str:
    """An option's value so that it can be read again; whole numbers without a point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def resolve(spec: str, *, family: str | None, tier: str) -> Entry:
    """An entry from its spec: ``name[-variant][:preset][,option=value...]`` or ``file.py[:Class[:preset]]``.

    Args:
        spec: what the user or the suite wrote.
        family: of the base; presets differ by it. None if it is not known yet: then only names and options are checked.
        tier: the base's; ``mini`` bases use the preset ``mini`` unless told otherwise, others ``paper``.
    """
    plain, _, rest = (_resolve_file(spec) or spec).partition(",")
    label, _, preset = plain.partition(":")
    name, variant = _split_name(label)
    eraser: type[Eraser[Any]] = ERASERS.load(name)
    own = split_options(rest, eraser.Config)
    if not preset:
        preset = tier if tier in presets_of(name) else DEFAULT_PRESET
    config = config_for(eraser, variant, preset, family or "", own)
    kinds = presets_of(name).get(preset, {}).get("kinds", {})
    by_kind = {kind: config_for(eraser, variant, preset, family or "", own, kind) for kind in kinds}
    if family is not None and family not in eraser.supports.families:
        raise UserInputError(f"{label} cannot erase from family {family!r}", f"it supports: {', '.join(eraser.supports.families)}")
    chosen = variant or next(iter(eraser.variants))
    classes = [c for c in eraser.__mro__ if c.__module__ not in ("builtins", "abc", "typing")]
    shown = "".join(f",{k}={_written(own[k])}" for k in sorted(own))  # one name, in whatever order they were given
    return Entry(f"{name}-{chosen}" if chosen else name, preset + shown, eraser, config, source_hash([*classes, *eraser.uses]), by_kind)
