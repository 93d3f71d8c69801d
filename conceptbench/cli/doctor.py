"""``conceptbench doctor``: what can run here, what is missing, and the command that gets it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from conceptbench.cli import options

if TYPE_CHECKING:
    from conceptbench.engine.doctor import Check, Machine


def doctor(
    suite: Annotated[list[str] | None, typer.Argument(help="Suites by name or YAML file. Default: all that ship.")] = None,
    store: options.StorePath = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say which suites can run here. Downloads nothing, changes nothing; exit code 2 if one that was asked for cannot run."""
    from conceptbench.core.errors import EXIT_BAD_INPUT
    from conceptbench.core.manifests import names_in
    from conceptbench.engine.doctor import Doctor, machine

    here = machine(options.store_root(store))
    examiner = Doctor()
    checks = {name: examiner.examine(name) for name in dict.fromkeys(suite or names_in("suites"))}
    ready = here.store_writable and all(c.ready for found in checks.values() for c in found)
    if as_json:
        suites = [{"suite": n, "ready": all(c.ready for c in found), "needs": [vars(c) for c in found]} for n, found in checks.items()]
        print(json.dumps({"ready": ready, "machine": here.as_dict(), "suites": suites}, indent=1))
    else:
        _print_machine(here)
        _print_suites(checks)
    if not ready:
        raise typer.Exit(EXIT_BAD_INPUT)


def _print_machine(here: Machine) -> None:
    memory = "unknown" if here.memory_bytes is None else f"{here.memory_bytes / 2**30:.1f} GiB"
    devices = ", ".join(f"cuda:{i} {name} ({size / 2**30:.0f} GiB)" for i, (name, size) in enumerate(here.devices)) or "none"
    packages = ", ".join(f"{p} {v}" for p, v in here.packages.items() if v)
    lacking = ", ".join(p for p, v in here.packages.items() if not v)
    print(f"python   {here.python}; {packages}" + (f"; not installed: {lacking}" if lacking else ""))
    print(f"cpu      {here.cores} cores, {here.threads} threads, {memory} memory")
    print(f"cuda     {devices}")
    writable = "writable" if here.store_writable else "NOT WRITABLE: give another with --store"
    print(f"store    {here.store}: {writable}, {here.store_free_bytes / 2**30:.1f} GiB free")
    print(f"hub      {'offline (HF_HUB_OFFLINE): unset it to fetch weights' if here.hub_offline else 'online: weights can be fetched'}\n")


def _print_suites(checks: dict[str, list[Check]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for head in ("suite", "can run", "missing"):
        table.add_column(head, overflow="fold")
    missing: dict[tuple[str, str], Check] = {}
    for name, found in checks.items():
        lacking = [c for c in found if not c.ready]
        missing.update({(c.kind, c.name): c for c in lacking})
        table.add_row(name, "no" if lacking else "yes", ", ".join(f"{c.kind} {c.name}" for c in lacking))
    Console(width=None if sys.stdout.isatty() else 120, markup=False).print(table)
    for check in missing.values():  # not in the table: a command must not be broken over lines
        print(f"\n{check.kind} {check.name}: {check.detail}" + (f"\n  {check.remedy}" if check.remedy else ""))
