"""``conceptbench show``: everything about one thing."""

from __future__ import annotations

import json
from typing import Annotated

import typer

KINDS = ("suite", "eraser", "metric", "judge", "concept")


def show(
    kind: Annotated[str, typer.Argument(help=f"One of: {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(help="Its name.")],
) -> None:
    """Show a suite, eraser, metric, judge or concept."""
    from conceptbench.core.errors import unknown_name

    if kind not in KINDS:
        raise unknown_name("kind of thing", kind, KINDS)
    print({"suite": _suite, "eraser": _eraser, "metric": _metric, "judge": _judge, "concept": _concept}[kind](name))


def _suite(name: str) -> str:
    import yaml

    from conceptbench.core.manifests import load_suite

    return yaml.safe_dump(load_suite(name).model_dump(mode="json", exclude_defaults=True), sort_keys=False, width=120).rstrip()


def _eraser(name: str) -> str:
    import yaml

    from conceptbench.core.registry import ERASERS
    from conceptbench.engine.lineup import presets_of

    eraser = ERASERS.load(name)
    defaults = {k: f.default for k, f in eraser.Config.model_fields.items()}
    card = {
        "name": eraser.name,
        "summary": eraser.summary,
        "reference": eraser.reference,
        "variants": [v for v in eraser.variants if v],
        "supports": {**vars(eraser.supports)},
        "options": defaults,
        "presets": presets_of(name),
        "from": ERASERS.origin(name),
    }
    return yaml.safe_dump(json.loads(json.dumps(card, default=lambda nested: nested.model_dump(mode="json"))), sort_keys=False, width=120).rstrip()


def _metric(name: str) -> str:
    from conceptbench.core.registry import METRICS
    from conceptbench.engine.metric_card import metric_card

    return metric_card(name, METRICS.load(name), METRICS.origin(name))


def _judge(name: str) -> str:
    from conceptbench.core.registry import JUDGES

    card = JUDGES.load(name)().card
    heads = "\n".join(f"  {h}: {', '.join(names)}" for h, names in card.labels.items())
    return f"{card.id}: {card.role}\nsha256: {card.sha256}\nsource: {card.source}\nlicence: {card.licence}\npreprocessing: {card.preprocessing}" + (
        f"\nlabels:\n{heads}" if heads else ""
    )


def _concept(name: str) -> str:
    import yaml

    from conceptbench.core.errors import unknown_name
    from conceptbench.core.manifests import load_concepts, names_in

    every = {n: c for manifest in names_in("concepts") for n, c in load_concepts(manifest).items()}
    if name not in every:
        raise unknown_name("concept", name, every, "conceptbench list concepts")
    return yaml.safe_dump(every[name].model_dump(mode="json"), sort_keys=False, width=120).rstrip()
