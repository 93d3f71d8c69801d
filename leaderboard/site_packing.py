"""Rows as compact JSON inside a page: a column at a time, repeated values once, and nothing that could end the script element."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from conceptbench.core.results import COLUMNS, ResultRow

FEW = 0.4  # distinct values a row, up to which a table of them is shorter than the values
ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""What the HTML parser, or a JavaScript parser of old, would not take for a part of a string."""


def packed(values: Sequence[Any]) -> dict[str, Any]:
    """One column: ``one`` value for all rows, or ``words`` and each row's number ``at`` them, or ``all`` values."""
    places: dict[tuple[type, Any], int] = {}
    at = [places.setdefault((type(v), v), len(places)) for v in values]
    words = [value for _, value in places]
    if len(words) == 1:
        return {"one": words[0]}
    return {"words": words, "at": at} if len(words) <= FEW * len(values) else {"all": list(values)}


def packed_rows(rows: Sequence[ResultRow]) -> dict[str, Any]:
    """All columns of the rows (at least one) by name, in the order of the CSV."""
    return {name: packed([getattr(row, name) for row in rows]) for name in COLUMNS}


def script_json(value: Any) -> Markup:
    """JSON that can stand in a ``<script type="application/json">``: whatever is in its texts, it neither ends the element nor begins a comment.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.translate(ESCAPES))  # noqa: S704 - no character of HTML is left in it
