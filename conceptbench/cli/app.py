"""The entry point: errors that the user caused are three lines and an exit code, never a traceback."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import typer

from conceptbench.cli import compare, doctor, erase, export, generate, leaderboard, listing, new, plan, report, run, score, show, train, validate
from conceptbench.core.errors import EXIT_BUG, ConceptBenchError

app = typer.Typer(
    name="conceptbench",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="How well was a concept erased from a text-to-image model, what else was damaged, and what did it cost?",
)
VERBS: dict[str, Callable[..., None]] = {
    "list": listing.list_names,
    "show": show.show,
    "validate": validate.validate,
    "doctor": doctor.doctor,
    "plan": plan.plan,
    "run": run.run,
    "erase": erase.erase,
    "generate": generate.generate,
    "train": train.train,
    "score": score.score,
    "report": report.report,
    "compare": compare.compare,
    "export": export.export,
    "new": new.new,
}
for name, verb in VERBS.items():
    app.command(name)(verb)
app.add_typer(leaderboard.app, name="leaderboard")


def main() -> None:
    """Runs the command line and exits."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    else:
        warnings.simplefilter("ignore")
    try:
        app()
    except ConceptBenchError as error:
        if debug:
            raise
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if debug:
            raise
        print(f"this is a bug in conceptbench: {error!r}\n  run again with --debug for the traceback", file=sys.stderr)
        raise SystemExit(EXIT_BUG) from error
