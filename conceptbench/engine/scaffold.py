"""A new eraser to begin with: a short one that works, and its test."""

from __future__ import annotations

import importlib.util
import keyword
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import write_text
from conceptbench.core.registry import ERASERS
from conceptbench.engine.images import BASE


def module_name(name: str) -> str:
    """The Python module of an eraser's name: ``my-method`` to ``my_method``.

    Raises:
        UserInputError: it would be no module's name.
    """
    module = name.replace("-", "_")
    if not (module.isidentifier() and module.isascii()) or keyword.iskeyword(module) or module.startswith("_"):
        close = "".join(c if c.isascii() and c.isalnum() else "_" for c in module).strip("_")
        usable = close.isidentifier() and not keyword.iskeyword(close)
        raise UserInputError(
            f"{name!r} cannot be the name of a Python file", "letters, digits, - and _, a letter first" + (f": e.g. {close}" if usable else "")
        )
    return module


def _check_free(name: str, module: str) -> None:
    taken = {label: n for n in ERASERS.names() for label in (n, *(f"{n}-{v}" for v in ERASERS.load(n).variants if v))}
    same = next((label for label in (*taken, BASE) if label.replace("-", "_") == module.lower()), None)
    if same is not None:
        what = f"taken by {ERASERS.origin(taken[same])}" if same in taken else "what the unmodified model is called"
        raise UserInputError(f"the eraser name {name!r} is {what}", "choose another; `conceptbench list erasers` has them all")
    if importlib.util.find_spec(module) is not None:
        raise UserInputError(f"{module}.py would hide the installed Python module {module!r}", "choose another name")


def new_eraser(name: str, folder: Path) -> tuple[Path, Path]:
    """Writes ``NAME.py``, an eraser that trains, and ``test_NAME.py``, which passes.

    Args:
        name: of the eraser; in file names - becomes _.
        folder: where; it is made if it is not there.

    Returns:
        Both paths.

    Raises:
        UserInputError: the name is unusable or taken, or one of the files exists. Then nothing is written.
    """
    module = module_name(name)
    files = (folder / f"{module}.py", folder / f"test_{module}.py")
    for path in files:
        if path.exists() or path.is_symlink():
            raise UserInputError(f"{path} exists already and is left as it is", "choose another name, or another folder with --output")
    _check_free(name, module)
    templates = Environment(loader=PackageLoader("conceptbench.engine"), autoescape=select_autoescape(), undefined=StrictUndefined, keep_trailing_newline=True)
    words = module.replace("_", " ").split()
    values = {
        "module": module,
        "eraser": module.replace("_", "-"),
        "name": "".join(w[:1].upper() + w[1:] for w in words),
        "title": " ".join(words).capitalize(),
    }
    for path, template in zip(files, ("eraser.py.j2", "test_eraser.py.j2"), strict=True):
        write_text(path, templates.get_template(template).render(values))
    return files
