"""Sums and differences of erasures: task arithmetic on weights (Ilharco et al. 2023, arXiv:2212.04089).

>>> combine("church + van-gogh - 0.5*dog", {"church": a, "van-gogh": b, "dog": c})
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from conceptbench.core.errors import UserInputError, nearest
from conceptbench.models.base import Base
from conceptbench.models.erasure import Change, Erasure

GRAMMAR = "write names with + and -, and factors as 0.5*NAME; names that have dashes may stand in quotes: 'esd-x' - 'uce'"
FACTOR = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?\s*\*\s*")


@dataclass(frozen=True)
class Term:
    """One term of a sum: a name and its exact factor, sign included."""

    name: str
    factor: Fraction

    def __str__(self) -> str:
        size = abs(self.factor)
        return f"{'-' if self.factor < 0 else '+'} " + (f"{float(size):g}*" if size != 1 else "") + repr(self.name)


def parse(expression: str, names: Mapping[str, Any]) -> list[Term]:
    """The terms of an expression over known names.

    Names may have dashes, so an expression is read in every way that uses known names only; there must be exactly one.

    Raises:
        UserInputError: there is none (the unknown name is shown with the nearest known one), or more than one.
    """
    readings = list(_readings(expression, 0, sorted(names, key=len, reverse=True), first=True))
    if len(readings) == 1:
        return readings[0]
    if readings:
        meanings = "; or ".join(" ".join(str(t) for t in r) for r in readings)
        raise UserInputError(f"{expression!r} can be read in {len(readings)} ways: {meanings}", "put spaces around operators, or quotes around names")
    raise _unreadable(expression, names)


def _readings(text: str, start: int, names: list[str], *, first: bool) -> Iterator[list[Term]]:
    """All ways to read the rest of an expression as signed terms; longest names first."""
    rest = text[start:]
    if not rest.strip():
        if not first:
            yield []
        return
    sign = re.match(r"\s*([+-])?\s*", rest)
    assert sign is not None  # it matches the empty text too
    if not (sign[1] or first):
        return
    place = start + sign.end()
    for factor, after in _factors(text, place):
        for name, end in _operands(text, after, names):
            for tail in _readings(text, end, names, first=False):
                yield [Term(name, -factor if sign[1] == "-" else factor), *tail]


def _factors(text: str, place: int) -> Iterator[tuple[Fraction, int]]:
    """The factor at a place and where it ends: 1 without one."""
    found = FACTOR.match(text, place)
    if found:
        yield Fraction(found[1].rstrip(".") + (found[2] or "")), found.end()
    else:
        yield Fraction(1), place


def _operands(text: str, place: int, names: list[str]) -> Iterator[tuple[str, int]]:
    """Names that can stand at a place: in quotes, or up to a space, an operator or the end."""
    quote = text[place : place + 1]
    if quote and quote in "'\"":
        close = text.find(quote, place + 1)
        if close > 0 and text[place + 1 : close] in names:
            yield text[place + 1 : close], close + 1
        return
    for name in names:
        if text.startswith(name, place) and re.match(r"\s|[+-]|$", text[place + len(name) :]):
            yield name, place + len(name)


def _unreadable(expression: str, names: Mapping[str, Any]) -> UserInputError:
    """Why an expression cannot be read."""
    if not names:
        return UserInputError(f"{expression!r} has nothing to refer to: no erasures are loaded", GRAMMAR)
    known = f"known: {', '.join(sorted(names))}; {GRAMMAR}"
    if not expression.strip():
        return UserInputError("the combination is empty", known)
    # words as people think of them: first with their dashes, then cut at them
    for cut in (r"[\s+*]+|(?<=\s)-(?=\s)", r"[\s+*-]+"):
        for word in filter(None, (w.strip("-'\"") for w in re.split(cut, expression))):
            if word not in names and not re.fullmatch(r"[\d.eE]+", word) and not any(_covers(word, n) for n in names):
                close = nearest(word, names)
                return UserInputError(f"{expression!r}: unknown name {word!r}" + (f"; did you mean {close!r}?" if close else ""), known)
    return UserInputError(f"{expression!r} is no sum of names", known)


def _covers(word: str, name: str) -> bool:
    return re.search(rf"(^|[+-]){re.escape(name)}($|[+-])", word) is not None


def combine(expression: str, loaded: Mapping[str, Erasure]) -> Erasure:
    """The weighted sum of additive (and low-rank) erasures.

    All terms are added in float64 in an order that depends on their weights only, and rounded once to float32: the result is the
    same bits however the sum is written, and a - a is empty. A concept's tag is kept where something adds to that concept; what is only
    taken away is applied always. Artefacts of the terms, public and hidden, are not carried over.

    Args:
        expression: e.g. ``a+b-c`` or ``0.5*a + b`` over the names of ``loaded``.
        loaded: erasures by name; see :func:`as_additive` for replacements and masks.

    Returns:
        An erasure of ``additive`` changes; ``meta["combination"]`` records expression, terms, factors and hashes.

    Raises:
        UserInputError: the expression cannot be read, a term cannot be added, or terms are of different bases.
    """
    terms = parse(expression, loaded)
    for term in terms:
        _check_summable(term.name, loaded[term.name])
    base = _common_base({t.name: loaded[t.name] for t in terms})
    hashes = {t.name: loaded[t.name].weights_hash() for t in terms}
    factors: dict[str, Fraction] = {}
    holders: dict[str, str] = {}
    for term in terms:  # equal weights are one term, whatever they are called
        factors[hashes[term.name]] = factors.get(hashes[term.name], Fraction(0)) + term.factor
        holders.setdefault(hashes[term.name], term.name)
    sums: dict[tuple[str, str | None], dict[str, Tensor]] = {}
    added = {(c.component, c.concept) for h, f in factors.items() if f > 0 for c in loaded[holders[h]].changes}
    for digest in sorted(factors):
        if factors[digest]:
            for change in loaded[holders[digest]].changes:
                key = (change.component, change.concept if (change.component, change.concept) in added else None)
                _add(sums.setdefault(key, {}), change, float(factors[digest]), holders[digest])
    changes = []
    for (component, concept), total in sorted(sums.items(), key=lambda item: (item[0][0], item[0][1] or "")):
        tensors = {n: _rounded(component, n, t) for n, t in sorted(total.items())}
        tensors = {n: t for n, t in tensors.items() if bool(t.any())}
        if tensors:
            changes.append(Change(component, "additive", tensors, concept))
    record = [{"name": t.name, "factor": str(t.factor), "weights": hashes[t.name]} for t in terms]
    return Erasure(changes, meta={"combination": {"expression": expression, "terms": record}, **({"base": base} if base else {})})


def _check_summable(name: str, erasure: Erasure) -> None:
    if erasure.runtime is not None:
        raise UserInputError(
            f"{name!r} works while sampling ({erasure.runtime.name}); only changes of weights can be added", "leave it out, or run it as an eraser of its own"
        )
    for change in erasure.changes:
        if change.kind not in ("additive", "low-rank"):
            hint = "make it a difference from the base first: conceptbench.models.combine.as_additive(erasure, base)"
            raise UserInputError(f"{name!r} holds a {change.kind} of {change.component}, which has no sum with others", hint)


def _common_base(erasures: Mapping[str, Erasure]) -> dict[str, Any] | None:
    """The component hashes that all terms name, as far as they name any; an error if two differ in a network that is changed."""
    changed = {c.component for e in erasures.values() for c in e.changes}
    first: tuple[str, dict[str, Any]] | None = None
    for name, erasure in erasures.items():
        base = erasure.meta.get("base")
        if not isinstance(base, dict):
            continue
        if first is None:
            first = (name, base)
            continue
        differ = sorted(c for c in changed if c in base and c in first[1] and base[c] != first[1][c])
        if differ:
            raise UserInputError(f"{first[0]!r} and {name!r} were made for different bases: {', '.join(differ)} differ", "add erasures of one base only")
    return first[1] if first else None


def _add(total: dict[str, Tensor], change: Change, factor: float, source: str) -> None:
    """Adds a change's differences to a float64 sum in place."""
    for name in change.names():
        delta = factor * _dense(change, name)
        if name not in total:
            total[name] = delta
        elif total[name].shape == delta.shape:
            total[name] += delta
        else:
            theirs, ours = tuple(total[name].shape), tuple(delta.shape)
            raise UserInputError(f"{source!r} changes {change.component}.{name} in shape {ours}, another term in {theirs}", "add erasures of one base only")


def _dense(change: Change, name: str) -> Tensor:
    """A change's difference in float64 on the CPU: of two factors B A in A's shape, (out, in, ...)."""
    if change.kind == "additive":
        return change.tensors[name].detach().cpu().double()
    a, b = change.tensors[f"{name}::A"].detach().cpu().double(), change.tensors[f"{name}::B"].detach().cpu().double()
    return (b @ a.flatten(1)).view(b.shape[0], *a.shape[1:])


def _rounded(component: str, name: str, total: Tensor) -> Tensor:
    value = total.to(torch.float32)
    if not bool(torch.isfinite(value).all()):
        raise UserInputError(f"the sum is not finite in {component}.{name}", "use smaller factors")
    return value


def as_additive(erasure: Erasure, base: Base) -> Erasure:
    """The same erasure with every change as a difference from the base, so that it can be added to others.

    Base + difference equals the original within one rounding of float32. Concept tags are kept unless a replacement or mask meets
    another change of the same parameter: what one concept changes alone is then not defined. Runtime, artefacts and meta stay.

    Args:
        erasure: any; it is not changed.
        base: what it was made for; it is not changed.

    Raises:
        UserInputError: the erasure does not fit the base.
    """
    erasure.check(base)
    current: dict[tuple[str, str], Tensor] = {}
    original = {c: dict(m.named_parameters()) for c, m in base.modules().items()}
    separable = _separable(erasure)
    sums: dict[tuple[str, str | None], dict[str, Tensor]] = {}
    for change in erasure.changes:
        into = sums.setdefault((change.component, change.concept if separable else None), {})
        for name in change.names():
            weight = original[change.component][name].detach().cpu()
            if change.kind in ("additive", "low-rank"):
                delta = _dense(change, name).view_as(weight)
            else:
                before = current.get((change.component, name), weight.double())
                value = change.tensors[name].detach().cpu().double()
                delta = (value if change.kind == "replacement" else before * value) - before
            current[change.component, name] = current.get((change.component, name), weight.double()) + delta
            into[name] = into[name] + delta if name in into else delta
    parts = [Change(c, "additive", _nonzero(c, total), tag) for (c, tag), total in sums.items()]
    changes = [p for p in parts if p.tensors or p.concept is not None]  # a target whose part is empty can be left out, too
    return replace(erasure, changes=changes, meta=dict(erasure.meta))


def _nonzero(component: str, total: dict[str, Tensor]) -> dict[str, Tensor]:
    rounded = {n: _rounded(component, n, t) for n, t in total.items()}
    return {n: t for n, t in rounded.items() if bool(t.any())}


def _separable(erasure: Erasure) -> bool:
    """Whether each concept's change is the same with and without the others'."""
    touched: set[tuple[str, str]] = set()
    absolute: set[tuple[str, str]] = set()
    for change in erasure.changes:
        own = {(change.component, n) for n in change.names()}
        if own & absolute or (change.kind in ("replacement", "mask") and own & touched):
            return False
        touched |= own
        if change.kind in ("replacement", "mask"):
            absolute |= own
    return True
