"""``conceptbench list``: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

KINDS = ("suites", "erasers", "metrics", "judges", "references", "bases", "concepts")


def list_names(kind: Annotated[str, typer.Argument(help=f"One of: {', '.join(KINDS)}.")] = "suites") -> None:
    """List suites, erasers, metrics, judges, reference sets, bases or concepts."""
    from conceptbench.core import registry
    from conceptbench.core.errors import unknown_name
    from conceptbench.core.manifests import load_concepts, load_suite, names_in

    if kind not in KINDS:
        raise unknown_name("kind of thing", kind, KINDS)
    if kind == "suites":
        for name in names_in("suites"):
            suite = load_suite(name)
            print(f"{name:16} {suite.version:5} {suite.title}")
    elif kind == "concepts":
        for manifest in names_in("concepts"):
            for concept in load_concepts(manifest).values():
                print(f"{concept.name:16} {concept.kind:9} {concept.subcategory:10} {manifest}")
    elif kind == "erasers":
        for name in registry.ERASERS.names():
            eraser = registry.ERASERS.load(name)
            variants = ", ".join(f"{name}-{v}" for v in eraser.variants if v)
            print(f"{name:16} {eraser.summary}" + (f"  [{variants}]" if variants else ""))
    else:
        found: registry.Registry = getattr(registry, kind.upper())
        for name in found.names():
            print(f"{name:16} {getattr(found.load(name), 'summary', '') or found.origin(name)}")
