"""How numbers are written for people."""

from __future__ import annotations

COUNTS = ("bytes", "evaluations", "tensors", "MB", "detections")
"""Units whose fractions say nothing."""
FRACTIONS = ("distance", "entropy")
"""Units of small numbers that are shown with three digits."""


def show_number(value: float | None, unit: str) -> str:
    """A value for people: rates in per cent with one digit, other numbers with two digits or as many as a small one needs."""
    if value is None:
        return "–"
    if unit == "rate":
        return f"{100 * value:.1f}"
    size = abs(value)
    if unit in COUNTS:
        return f"{value:,.0f}"
    if size >= 10_000:
        return f"{value:,.0f}"
    if unit in FRACTIONS and (size >= 0.0005 or not size):
        return f"{value:.3f}"
    return f"{value:.2g}" if 0 < size < 0.095 else f"{value:.2f}"


def show_signed(value: float | None, unit: str) -> str:
    """A difference for people: with its sign, and none where it is zero to the digits shown."""
    shown = show_number(value, unit)
    if value is None or not any(c in "123456789" for c in shown.partition("e")[0]):
        return shown.lstrip("-")
    return f"−{shown[1:]}" if shown.startswith("-") else f"+{shown}"
