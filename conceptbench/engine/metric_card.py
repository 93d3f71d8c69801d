"""A metric's card: what it is, how it was used by whom, what it does not see, what it needs and where that comes from."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator

from conceptbench.core.errors import ConceptBenchError
from conceptbench.core.judge import OUTPUTS, JudgeCard
from conceptbench.core.metric import Metric, Quantity, SetMetric
from conceptbench.core.protocols import Preset, presets_of
from conceptbench.core.registry import JUDGES
from conceptbench.core.whole_metric import DerivedMetric, ErasureMetric
from conceptbench.models.probe import Probe

WIDTH = 120
KINDS: tuple[tuple[type[Quantity], str], ...] = (
    (Metric, "one value an image, averaged with an interval by prompt"),
    (SetMetric, "one value of a set of images beside a reference"),
    (ErasureMetric, "one value an erasure"),
    (DerivedMetric, "made of other metrics' estimates"),
    (Probe, "measured on the model itself, with its weights at hand"),
)


def metric_card(name: str, metric: type[Quantity], origin: str) -> str:
    """The card as plain text.

    Args:
        name: registered name.
        metric: its class.
        origin: where the class comes from.
    """
    kind = next((text for base, text in KINDS if issubclass(metric, base)), "")
    lines = [f"{name}: {metric.summary}", "", *_wrapped("what it is", kind), *_wrapped("unit", str(metric.unit))]
    lines += ["", "Definition", *textwrap.indent(inspect.cleandoc(metric.__doc__ or ""), "  ").splitlines()]
    lines += ["", "Options", *_options(metric)]
    lines += ["", "Protocols (use one by `preset: NAME` in a suite)", *_presets(presets_of(name))]
    lines += ["", *_wrapped("reference", metric.reference or "none given")]
    if metric.failure_modes:
        lines += ["", "Known failure modes", *(line for mode in metric.failure_modes for line in _item(mode))]
    lines += ["", "Needs", *_needs(metric, presets_of(name)), "", f"from: {origin}"]
    return "\n".join(lines)


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(f"{head}: {text}", WIDTH, subsequent_indent="  ") if text else []


def _item(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")


def _options(metric: type[Quantity]) -> Iterator[str]:
    fields = metric.Config.model_fields
    for name, info in fields.items():
        allowed = str(info.annotation).replace("typing.", "") if not isinstance(info.annotation, type) else info.annotation.__name__
        yield from _item(f"{name} = {info.get_default(call_default_factory=True)!r}  ({allowed})")
    if not fields:
        yield "  none"


def _presets(presets: dict[str, Preset]) -> Iterator[str]:
    for name, preset in presets.items():
        settings = [f"{k}={v}" for k, v in preset.options.items()]
        judge = [f"judge {preset.judge}"] if preset.judge else []
        yield from _item(f"{name}: {', '.join([*judge, *settings]) or 'as the options say'}. {preset.note}")
    if not presets:
        yield "  none but its options"


def _needs(metric: type[Quantity], presets: dict[str, Preset]) -> Iterator[str]:
    if not metric.role:
        yield "  no judge" + ("; the base and the erasure themselves" if issubclass(metric, Probe) else "")
        return
    yield from _item(f"a judge of role {metric.role!r}, which gives {OUTPUTS[metric.role]}")  # type: ignore[index] # a role
    for judge in dict.fromkeys(p.judge for p in presets.values() if p.judge):
        yield from _item(_where(judge))


def _where(judge: str) -> str:
    """Where a preset's judge comes from, and whether it is here."""
    if judge not in JUDGES.names():
        return f"{judge}: not installed"
    try:
        card: JudgeCard = JUDGES.load(judge)().card
    except ConceptBenchError as error:
        return f"{judge}: not here: {error.message}; {error.hint}"
    return f"{judge}: here, sha256 {card.sha256[:16]}, {card.source}; {card.licence}"
