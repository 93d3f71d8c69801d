"""The leaderboard's page with 10,000 rows: bytes, seconds to make it, and how soon it answers in headless Chromium.

All rows are of one suite, one task and one concept, so that nothing of them is hidden by a choice: the most that the page can be asked
to sort. Answering is the time from a click on a column's head until the next frame with the new order is there; opening is from the
start of the navigation to the first frame with the table.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.measuring import Row, Settings

ROWS, ROUNDS = 10_000, 9
MEGABYTES, MILLISECONDS = 10.0, 200.0
TIMED = """new Promise((done) => {
  const start = performance.now();
  %s
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
})"""
OPENED = "new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
SORT = TIMED % "document.querySelectorAll('#table thead button')[%d].click();"
FIND = TIMED % "const field = document.getElementById('text'); field.value = 'method-00'; field.dispatchEvent(new Event('input'));"


def run(settings: Settings) -> list[Row]:
    """Size, time to make, time to open, time of a sort and of a filter."""
    from boards import board
    from browser import chromium

    from benchmarks.measuring import Row, middle
    from conceptbench.core.files import write_text
    from conceptbench.core.results import to_csv
    from conceptbench.leaderboard.site import write_site

    rows = board(methods=[f"method-{i:04d}" for i in range(ROWS)], tasks=("church",))[:ROWS]
    how = f"{len(rows):,} rows of one suite and task"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "board.csv", to_csv(rows))
        start = time.perf_counter()
        made = write_site([folder / "board.csv"], folder / "board.html")
        seconds = time.perf_counter() - start
        found = [
            Row("site: size", f"{made.size / 1e6:.2f} MB", "", made.size / 1e6, "MB", ("at most", MEGABYTES), how=how),
            Row("site: making", f"{seconds:.1f} s", "", seconds, "s", how=how),
        ]
        if chromium() is None:
            sys.stderr.write("site: no Chromium here, so that only making is measured\n")
            return found
        (folder / "profile").mkdir()
        times = in_the_browser(folder / "board.html", folder / "profile", settings.rounds_or(ROUNDS))
    for what, values in times.items():
        value, spread = middle(values)
        bound = ("at most", MILLISECONDS) if what == "sorting" else None
        found.append(Row(f"site: {what}", f"{value:.0f} ms", "", value, "ms", bound, spread, how))
    return found


def in_the_browser(page: Path, profile: Path, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round, by what was done."""
    from browser import Browser

    browser = Browser(profile)
    times: dict[str, list[float]] = {"opening": [], "sorting": [], "finding": []}
    try:
        for i in range(rounds):
            browser.open(page.as_uri())
            times["opening"].append(browser.js(OPENED))
            times["sorting"].append(browser.js(SORT % (i % 5)))
            times["finding"].append(browser.js(FIND))
    finally:
        browser.close()
    return times
