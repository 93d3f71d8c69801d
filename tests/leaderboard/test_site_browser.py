"""The page in a real browser: headless Chromium, driven over its DevTools pipe."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re

import pytest
from boards import HOSTILE, base_row, board, row, run_folder, sha
from browser import Browser, chromium

from conceptbench.core.results import COLUMNS, to_csv
from conceptbench.engine.figures.numbers import show_number
from conceptbench.leaderboard.site import write_site
from conceptbench.leaderboard.site_citing import Citation

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here; on Debian: apt-get install chromium")

METHODS = ("uce", "esd-x", "fmn", "sa-full", "negative-prompt")
TROUBLE = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled", "Page.javascriptDialogOpening", "Target.targetCreated")
LIMITED = {"status": "limited", "suite_sha256": sha("part")}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def rows():
    """Two suites; in the second one a method lacks a task, another was only run in part, and there are two bases."""
    known = board(METHODS, ("church", "fish"), ("house", "truck"), suite="mini-object", suite_version="1.1")
    made_up = [r for r in board(METHODS, ("one", "two")) if (r.eraser, r.task) != ("fmn", "two")]
    made_up += [r for r in board(("part",), ("one",), **LIMITED)] + [r for r in board(("uce",), ("one",), base="sd14", base_sha256=sha("sd14"))]
    return [*known, *made_up]


@pytest.fixture(scope="module")
def page(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    (folder / "board.csv").write_text(to_csv(rows))
    write_site([folder / "board.csv"], folder / "board.html", citation=Citation("Our board", year="2026"))
    return folder / "board.html"


@pytest.fixture
def shown(browser, page):
    """The page, opened; afterwards nothing may have gone wrong in it, and nothing may have been asked for."""
    browser.open(page.as_uri())
    yield browser
    assert not browser.did(*TROUBLE)
    assert requests(browser) == [page.as_uri()]


def requests(browser):
    return [p["request"]["url"].partition("#")[0] for _, p in browser.did("Network.requestWillBeSent") if not p["request"]["url"].startswith("data:")]


def methods(browser):
    return browser.texts("#table tbody .name")


def column(browser, metric, first=1):
    """The numbers of the first (or a later) column of a metric, from top to bottom."""
    heads = browser.texts("#table thead .metric")
    place = [i for i, h in enumerate(heads) if h == metric][first - 1]
    return browser.texts(f"#table tbody td:nth-child({place + 2}) .value")


def expected(rows, eraser, metric, task, concept="*", suite="mini-object"):
    return next(r for r in rows if (r.suite, r.eraser, r.metric, r.task, r.concept) == (suite, eraser, metric, task, concept))


def click_cell(browser, eraser, metric):
    place = browser.texts("#table thead .metric").index(metric) + 2
    line = methods(browser).index(eraser) + 1
    browser.click(f"#table tbody tr:nth-child({line}) td:nth-child({place})")


def choose_tab(browser, text):
    browser.js(f"[...document.querySelectorAll('[role=tab]')].find((t) => t.textContent.startsWith({json.dumps(text)})).click()")


# -- the table ---------------------------------------------------------------------------------------------------------------------
def test_a_task_shows_its_rows(shown, rows):
    shown.choose("#task", "task fish")
    assert methods(shown)[0] == "base" and set(methods(shown)) == {"base", *METHODS}
    for metric in ("esr-1", "psr-1", "lpips"):
        values = [expected(rows, m, metric, "fish") for m in methods(shown)]
        assert column(shown, metric) == [show_number(r.value, r.unit) for r in values]
    assert shown.texts("#table thead .lead .metric") == ["esr-1", "psr-1"] and shown.texts("#suite-title") == ["Ten objects, five of them erased one by one"]
    assert [shown.js(f"document.querySelectorAll('#table tbody .{c}').length > 0") for c in ("range", "point", "tick", "good")] == [True] * 4


def test_sorting_goes_best_worst_and_back(shown, rows):
    shown.choose("#task", "task church")
    listed = ["base", *METHODS]
    for metric, falls in (("esr-1", True), ("lpips", False)):
        order = sorted(METHODS, key=lambda m: expected(rows, m, metric, "church").value, reverse=falls)
        if metric != "esr-1":  # the headline sorts the page when it opens
            shown.click("#table thead .metric", metric)
        assert methods(shown) == ["base", *order]
        assert shown.js("document.querySelector('#table th.by').getAttribute('aria-sort')") == ("descending" if falls else "ascending")
        shown.click("#table thead .metric", metric)
        assert methods(shown) == ["base", *reversed(order)]
        assert shown.js("document.activeElement.textContent").startswith(metric)  # the keyboard stays where it was
        shown.click("#table thead .metric", metric)
        assert methods(shown) == listed and shown.texts("#table th.by") == []


def test_a_mean_over_tasks_is_only_what_it_is(shown, rows):
    assert shown.js("document.getElementById('task').value") == "mean"
    for m, text in zip(methods(shown), column(shown, "psr-1"), strict=True):
        both = [expected(rows, m, "psr-1", t).value for t in ("church", "fish")]
        assert text == show_number(sum(both) / 2, "rate")
    assert shown.js("document.querySelectorAll('#table tbody tr:last-child td:nth-child(2) .part').length") == 2
    assert shown.js("document.querySelectorAll('#table tbody .range').length") == 0  # no interval is made up
    choose_tab(shown, "made-up")
    assert dict(zip(methods(shown), column(shown, "esr-1"), strict=True))["fmn"] == "1 of 2"
    click_cell(shown, "fmn", "esr-1")
    assert "Measured in 1 of 2 tasks, so there is no mean" in shown.texts("#drawer-body")[0] and shown.texts(".tasks .link") == ["one"]
    shown.click(".tasks .link", "one")
    assert shown.texts("[data-field=task]") == ["one"]


def test_one_concept(shown, rows):
    shown.choose("#task", "task church")
    shown.choose("#concept", "house")
    values = [expected(rows, m, "esr-1", "church", "house") for m in methods(shown)]
    assert column(shown, "esr-1") == [show_number(r.value, "rate") for r in values] and len(values) == 6


def test_filters_leave_the_base(shown):
    choose_tab(shown, "made-up")
    shown.choose("#task", "task one")
    assert len(methods(shown)) == 3 + len(METHODS) + 1 + 1  # the base of each base model and of the limited run
    shown.type("#text", "esd mini")
    assert set(methods(shown)) == {"base", "esd-x"} and shown.texts("#count") == ["1 of 7 methods"]
    shown.type("#text", "nothing like it")
    assert set(methods(shown)) == {"base"}
    shown.click("#reset")
    shown.choose("#task", "task one")
    shown.choose("#kind", "esd")
    assert set(methods(shown)) == {"base", "esd-x"}
    shown.choose("#kind", "")
    shown.choose("#base", "sd14")
    assert methods(shown) == ["base", "uce"] and shown.texts("#table tbody .tag") == ["on sd14"] * 2
    shown.choose("#base", "")
    shown.choose("#status", "limited")
    assert [m for m in methods(shown) if m != "base"] == ["part"] and "limited" in shown.texts("#table tbody .tag")
    assert shown.js("document.querySelectorAll('.model.hollow').length") >= 1 and "(0 of 1 methods)" in shown.texts("#readout")[0]


def test_roles_and_columns_are_chosen(shown):
    heads = shown.texts("#table thead .metric")
    assert heads == ["esr-1", "clip_score", "nothing", "psr-1", "lpips"]
    shown.click(".chip[data-role=model]")
    assert shown.texts("#table thead .metric") == [*heads, "cost-seconds"] and "Erased targets" in shown.texts("#table thead .role")
    shown.click(".chip[data-role=target]")
    assert shown.texts("#table thead .metric") == ["psr-1", "lpips", "cost-seconds"]
    shown.click("#columns summary")
    shown.click("#columns label", "lpips of retained")
    assert shown.texts("#table thead .metric") == ["psr-1", "cost-seconds"]
    assert len(methods(shown)) == 1 + len(METHODS)


def test_tabs_and_the_keyboard(shown):
    assert shown.texts("[role=tab]") == ["mini-object1.1", "made-up1.0"]
    shown.click("[role=tab]", "made-up1.0")
    assert shown.texts("[role=tab][aria-selected=true]") == ["made-up1.0"] and "one" in shown.texts("#task option")
    shown.press("ArrowRight")
    assert shown.texts("[role=tab][aria-selected=true]") == ["mini-object1.1"]
    assert shown.js("document.activeElement.id") == "tab-0"


# -- the drawer --------------------------------------------------------------------------------------------------------------------
def test_the_drawer_has_every_field(shown, rows):
    shown.choose("#task", "task fish")
    click_cell(shown, "esd-x", "psr-1")
    fields = dict(shown.js("[...document.querySelectorAll('[data-field]')].map((e) => [e.dataset.field, e.textContent])"))
    wanted = expected(rows, "esd-x", "psr-1", "fish")
    assert set(fields) == set(COLUMNS)
    for name in COLUMNS:
        value = getattr(wanted, name)
        assert fields[name] == ("–" if value in (None, "") else str(value)), name
    assert shown.texts("#drawer-title") == ["esd-x:mini: psr-1"]
    body = shown.texts(".headline")[0]
    assert f"{show_number(wanted.value, 'rate')} %" in body and f"[{100 * wanted.ci_low:.1f}, {100 * wanted.ci_high:.1f}]" in body
    assert "against the base +50.0 [+30.0, +70.0] ▲ better" in body


def test_the_drawer_is_opened_and_closed_with_the_keyboard(shown):
    shown.js("document.querySelector('#table td[tabindex=\"0\"]').focus()")
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
        shown.press(key)
    place = "[document.activeElement.parentElement.rowIndex, document.activeElement.cellIndex]"
    assert shown.js(place) == [3, 2]
    shown.press("Enter")
    assert not shown.js("document.getElementById('drawer').hidden") and shown.js("document.activeElement.id") == "close"
    assert shown.js("document.querySelectorAll('td.opened').length") == 1
    shown.press("Escape")
    assert shown.js("document.getElementById('drawer').hidden") and shown.js(place) == [3, 2]
    assert shown.js("document.querySelectorAll('#table td[tabindex=\"0\"]').length") == 1


def test_rows_are_copied_from_the_drawer(shown, rows):
    shown.choose("#task", "task fish")
    click_cell(shown, "uce", "esr-1")
    shown.click("#drawer button", "Copy this row as CSV")
    assert shown.clipboard() == to_csv([expected(rows, "uce", "esr-1", "fish")])


# -- the figure --------------------------------------------------------------------------------------------------------------------
def test_the_pareto_front(shown, rows):
    shown.choose("#task", "task church")
    value = {m: [expected(rows, m, metric, "church").value for metric in ("psr-1", "esr-1")] for m in METHODS}

    def is_beaten(m):
        return any(all(a >= b for a, b in zip(value[o], value[m], strict=True)) and value[o] != value[m] for o in METHODS)

    front = {m for m in METHODS if not is_beaten(m)}
    names = "[...document.querySelectorAll('.model%s')].map((g) => g.getAttribute('aria-label').split(':')[0])"
    assert set(shown.js(names % "")) == {"base mini", *METHODS} and set(shown.js(names % ".front")) == front
    assert set(shown.texts("svg .label.front")) == front
    marked = shown.js("[...document.querySelectorAll('#table .dot.front')].map((d) => d.parentElement.querySelector('.name').textContent)")
    assert set(marked) == front
    # lower is better: the axis is turned, and right is still better
    shown.choose("#x", str(shown.js("[...document.querySelectorAll('#x option')].find((o) => o.text.startsWith('lpips')).value")))
    at = dict(
        zip(shown.js(names % ":has(circle)"), shown.js("[...document.querySelectorAll('.model circle')].map((c) => Number(c.getAttribute('cx')))"), strict=True)
    )
    assert sorted(METHODS, key=at.get) == sorted(METHODS, key=lambda m: -expected(rows, m, "lpips", "church").value)


def test_the_front_with_ties(browser, tmp_path):
    value = {
        "twin": (0.9, 0.9),
        "other twin": (0.9, 0.9),
        "left": (0.8, 0.9),
        "below": (0.9, 0.8),
        "up": (0.5, 0.95),
        "beaten": (0.4, 0.9),
        "right": (0.95, 0.1),
    }
    both = (("psr-1", "retained"), ("esr-1", "target"))
    made = [row(eraser=m, metric=k, role=r, value=v) for m, values in value.items() for (k, r), v in zip(both, values, strict=True)]
    (tmp_path / "b.csv").write_text(to_csv(made))
    write_site([tmp_path / "b.csv"], tmp_path / "b.html")
    browser.open((tmp_path / "b.html").as_uri())
    assert set(browser.texts("svg .label.front")) == {"twin", "other twin", "up", "right"}


def test_points_are_read_and_opened(shown):
    shown.move(".model.front")
    label = shown.js("document.querySelector('.model.front').getAttribute('aria-label')")
    assert shown.texts("#readout") == [label] and shown.js("document.querySelectorAll('#table tr.lit').length") == 1
    shown.js("document.querySelector('.model.front').focus()")
    shown.press("Enter")
    assert shown.texts("#drawer-title")[0].startswith(label.split(":")[0])


# -- copying -----------------------------------------------------------------------------------------------------------------------
def test_the_visible_table_is_copied(shown, rows):
    shown.choose("#task", "task church")
    shown.type("#text", "e")
    shown.click("#copy-csv")
    lines = list(csv.DictReader(io.StringIO(shown.clipboard())))
    assert [line["eraser"] for line in lines] == methods(shown) and shown.texts("#toast") == [f"Copied {len(lines)} lines as CSV"]
    for line in lines:
        wanted = expected(rows, line["eraser"], "psr-1", "church")
        assert float(line[f"{wanted.protocol} of retained"]) == wanted.value and int(line[f"{wanted.protocol} of retained: n_scored"]) == 24
        assert float(line[f"{wanted.protocol} of retained: ci_low"]) == wanted.ci_low and line[f"{wanted.protocol} of retained: ci_kind"] == "wilson"
    shown.click("#copy-latex")
    latex = shown.clipboard()
    body = latex[latex.index("\\midrule") : latex.index("\\bottomrule")].splitlines()[1:]
    assert len(body) == len(lines) and all(line.count(" & ") == 5 and line.endswith(r" \\") for line in body)
    first = expected(rows, methods(shown)[1], "esr-1", "church")
    assert rf"{show_number(first.value, 'rate')} {{\scriptsize [{show_number(first.ci_low, 'rate')}, {show_number(first.ci_high, 'rate')}]}}" in body[1]
    assert r"\cmidrule(lr){2-4}\cmidrule(lr){5-6}" in latex and r"esr-1, \% $\uparrow$" in latex and "booktabs" in latex
    shown.click("#copy-bibtex")
    assert shown.clipboard().startswith("@misc{conceptbench-") and "{Our board}" in shown.clipboard()


def test_numbers_are_written_as_in_reports(browser, tmp_path):
    written = "0 1 0.0625 0.1875 0.4375 0.03125 0.21875 0.8333333 0.000004 12345.6 -3.125 0.125 9.995 99999.5 0.0004 0.015 250.5 251.5 -0.0625"
    values = [float(v) for v in written.split()]
    units = ("rate", "score", "distance", "bytes", "seconds")
    made = [row(eraser=f"m{i}", metric=f"in-{u}", unit=u, value=v, base_value=None, delta=None) for (i, v), u in itertools.product(enumerate(values), units)]
    (tmp_path / "b.csv").write_text(to_csv([base_row(), *made]))
    write_site([tmp_path / "b.csv"], tmp_path / "b.html")
    browser.open((tmp_path / "b.html").as_uri())
    for unit in units:
        texts = dict(zip([m for m in methods(browser) if m != "base"], column(browser, f"in-{unit}"), strict=True))
        assert [texts[f"m{i}"] for i in range(len(values))] == [show_number(v, unit) for v in values]


# -- light and dark, addresses, small screens -----------------------------------------------------------------------------------------
def test_light_and_dark(shown):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = shown.js(ground)
    shown.dark(True)
    dark = shown.js(ground)
    assert light != dark and shown.texts("#theme") == ["Light"]
    shown.click("#theme")
    assert shown.js(ground) == light and shown.texts("#theme") == ["Dark"]
    shown.js("localStorage.removeItem('conceptbench-theme')")
    assert contrast(shown, "#table .value") > 7 and contrast(shown, ".note") > 4.5


def contrast(browser, selector):
    """WCAG contrast of an element's text against the nearest ground behind it."""
    colours = browser.js(f"""(() => {{
      let e = document.querySelector({json.dumps(selector)});
      const ink = getComputedStyle(e).color;
      while (e && getComputedStyle(e).backgroundColor === "rgba(0, 0, 0, 0)") e = e.parentElement;
      return [ink, getComputedStyle(e).backgroundColor];
    }})()""")

    def luminance(text):
        parts = [int(v) / 255 for v in re.findall(r"\d+", text)[:3]]
        return sum(w * (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4) for w, v in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    high, low = sorted(map(luminance, colours), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_a_view_can_be_linked_to(shown, page):
    choose_tab(shown, "made-up")
    shown.choose("#task", "task one")
    shown.click("#table thead .metric", "lpips")
    shown.type("#text", "e")
    before = methods(shown), shown.texts("#table th.by .metric")
    address = page.as_uri() + shown.js("location.hash")
    shown.open(address)
    assert (methods(shown), shown.texts("#table th.by .metric")) == before and shown.js("document.getElementById('text').value") == "e"
    shown.open(page.as_uri() + "#tab=made-up+1&task=%3Cimg+src%3Dx%3E&sort=__proto__&up=constructor&concept=toString&status=x")
    assert shown.js("document.getElementById('task').value") == "mean" and methods(shown)[0] == "base"


def test_small_screens(shown):
    shown.size(380, 800)
    assert shown.js("document.documentElement.scrollWidth") <= 380
    click_cell(shown, "uce", "esr-1")
    assert 300 < shown.js("document.getElementById('drawer').getBoundingClientRect().width") <= 380


# -- images ------------------------------------------------------------------------------------------------------------------------
def test_sample_pairs_and_the_veil(browser, tmp_path):
    run_folder(tmp_path)
    write_site([tmp_path / "leaderboard.csv"], tmp_path / "b.html", images=[tmp_path])
    browser.open((tmp_path / "b.html").as_uri())
    click_cell(browser, "uce", "ner-0.5")
    assert browser.texts(".pair h4") == ["marks"] and browser.texts(".pair .who") == ["base", "uce"] and len(browser.texts(".pair li")) == 4
    assert browser.js("[...document.querySelectorAll('.pair img')].every((i) => i.complete && i.naturalWidth === 128)")
    veil = "getComputedStyle(document.querySelector('.pair img')).filter"
    assert "blur" in browser.js(veil)
    browser.click(".pair button", "Show explicit images")
    assert browser.js(veil) == "none" and browser.js("document.querySelector('.pair button').getAttribute('aria-pressed')") == "true"
    click_cell(browser, "uce", "psr-1")
    assert browser.texts(".pair h4") == ["person"] and browser.js(veil) == "none" and not browser.texts(".pair button")
    assert not browser.did(*TROUBLE)


# -- hostile boards ------------------------------------------------------------------------------------------------------------------
def hostile_rows():
    fields = ("eraser", "preset", "task", "concept", "metric", "protocol", "reason", "environment", "status", "base", "ci_kind", "unit")
    named = [dict.fromkeys(fields, text) for text in HOSTILE.values()]
    every = [{**n, "concept": concept, "task": task} for n in named for concept in ("*", n["concept"]) for task in ("one", n["task"])]
    rows = [row(suite="mini-explicit", **n) for n in every]
    rows += [row(suite=text, eraser=text) for text in HOSTILE.values()]
    return [base_row(suite="mini-explicit"), *rows]


def test_a_hostile_board_does_nothing(browser, tmp_path):
    run, _ = run_folder(tmp_path / "run", hostile=HOSTILE["image"] + HOSTILE["script"])
    (tmp_path / "b.csv").write_text(to_csv([*hostile_rows(), *run]), encoding="utf-8")
    write_site([tmp_path / "b.csv"], tmp_path / "b.html", images=[tmp_path / "run"], citation=Citation(HOSTILE["script"]))
    browser.open((tmp_path / "b.html").as_uri())
    count = "[document.scripts.length, document.querySelectorAll('iframe, object, embed, link, base, [onerror], [onmouseover], [onload]').length]"
    for tab in range(browser.js("document.querySelectorAll('[role=tab]').length")):
        browser.js(f"document.querySelectorAll('[role=tab]')[{tab}].click()")
        for task in range(browser.js("document.getElementById('task').options.length") if tab == 0 else 1):
            browser.js(f"(() => {{ const s = document.getElementById('task'); s.selectedIndex = {task}; s.dispatchEvent(new Event('input')); }})()")
            # every kind of cell, what the drawer shows of it, and all that is copied
            browser.js("[...document.querySelectorAll('#table td[tabindex]')].slice(0, 12).forEach((td) => td.click())")
            browser.js("document.querySelectorAll('#drawer details').forEach((d) => (d.open = true))")
            browser.js("[...document.querySelectorAll('.model')].slice(0, 4).forEach((g) => g.dispatchEvent(new MouseEvent('click', { bubbles: true })))")
            for button in ("#copy-csv", "#copy-latex", "#copy-bibtex"):
                browser.js(f"document.querySelector('{button}').click()")
        assert browser.js(count) == [2, 0]
    for text in HOSTILE.values():  # the search field takes texts as texts, too
        browser.set("#text", text)
    assert not browser.did(*TROUBLE) and requests(browser) == [(tmp_path / "b.html").as_uri()]
    assert browser.js("document.title") == HOSTILE["script"] and browser.js("getComputedStyle(document.body).backgroundColor") != "rgb(255, 0, 0)"


def test_hostile_names_are_seen_and_copied_harmlessly(browser, tmp_path):
    rows = [base_row(), *(row(eraser=text, preset="", metric=m, delta=-0.5) for text in HOSTILE.values() for m in ("esr-1", "=1+1"))]
    (tmp_path / "b.csv").write_text(to_csv(rows), encoding="utf-8")
    write_site([tmp_path / "b.csv"], tmp_path / "b.html")
    browser.open((tmp_path / "b.html").as_uri())
    names = methods(browser)
    assert HOSTILE["script"] in names and HOSTILE["image"] in names and HOSTILE["proto"] in names
    assert "abc⟨U+202E⟩gnp.exe⟨U+2066⟩⟨U+200F⟩" in names and "a⟨U+2028⟩b⟨U+2029⟩c" in names
    assert browser.js("document.documentElement.scrollWidth <= innerWidth") and max(len(n) for n in names) > 3000  # long names are cut by the eye only
    browser.click("#copy-csv")
    table = list(csv.reader(io.StringIO(browser.clipboard())))
    assert {r[0] for r in table[2:]} >= {"'" + HOSTILE["formula"], "'" + HOSTILE["plus"], "'" + HOSTILE["minus"], "'" + HOSTILE["at"], HOSTILE["script"]}
    numbers = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
    assert all(not c.startswith(("=", "+", "-", "@")) or numbers.fullmatch(c) for line in table for c in line)
    browser.click("#copy-latex")
    for line in browser.clipboard().splitlines():
        plain = re.sub(r"\\[{}]", "", line)
        assert plain.count("{") == plain.count("}")
        assert not re.search(r"(?<!\\)[#_]|\\input", line) and (line.startswith("%") or not re.search(r"(?<!\\)%", line))


def test_no_text_can_become_a_script(browser, page):
    """Even if the page's script had a mistake, its policy would stop it."""
    browser.open(page.as_uri())
    with pytest.raises(RuntimeError, match="TrustedHTML"):
        browser.js("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    browser.js("(() => { const i = document.createElement('img'); i.src = 'http://evil.example/x.png'; document.body.append(i); })()")
    browser.js("(() => { const s = document.createElement('style'); s.append('body { background: red }'); document.head.append(s); })()")
    with pytest.raises(RuntimeError, match="TrustedScript"):
        browser.js("(() => { const s = document.createElement('script'); s.textContent = 'window.broken = 1'; document.body.append(s); })()")
    browser.js("fetch('http://evil.example/').catch(() => null)")
    assert browser.js("[window.broken ?? null, getComputedStyle(document.body).backgroundColor]") != [1, "rgb(255, 0, 0)"]
    failed = [p for _, p in browser.did("Network.loadingFailed")]
    assert all(p.get("blockedReason") == "csp" for p in failed) and not browser.did("Network.responseReceivedExtraInfo")
