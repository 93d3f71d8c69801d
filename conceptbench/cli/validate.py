"""``conceptbench validate``: everything that is wrong with suites, concepts and prompts, at once."""

from __future__ import annotations

import functools
from typing import Annotated

import typer


def validate(files: Annotated[list[str], typer.Argument(help="Suites by name or YAML file, concepts files (YAML), prompt sets (CSV).")]) -> None:
    """Check suites, concepts files and prompt sets: all problems with file, line and the nearest valid name.

    Exit code 2 if there is an error; warnings alone are printed and pass. What was not checked is said, and why.
    """
    from conceptbench.core.errors import EXIT_BAD_INPUT
    from conceptbench.core.validation import Surroundings
    from conceptbench.core.validation import validate as check
    from conceptbench.engine.doctor import check_eraser, judge_card

    around = Surroundings(functools.cache(judge_card), check_eraser)
    failed, told = False, set()
    for name in dict.fromkeys(files):
        found = check(name, around)
        for problem in found.problems:
            if problem not in told:  # two suites may share a prompt set
                place = f"{problem.path}{f':{problem.line}' if problem.line else ''}"
                print(f"{place}: {'warning' if problem.warning else 'error'}: {problem.message}")
            told.add(problem)
        for text in found.skipped:
            print(f"{name}: not checked: {text}")
        verdict = f"{len(found.errors)} errors, {len(found.warnings)} warnings" if found.problems else "no problems"
        print(f"{name}: {verdict}; checked {'; '.join(found.checked) or 'nothing'}")
        failed = failed or bool(found.errors)
    if failed:
        raise typer.Exit(EXIT_BAD_INPUT)
