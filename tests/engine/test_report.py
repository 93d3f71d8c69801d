from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from running import ESD, carry_out
from world import write_suite

from conceptbench.core.errors import UserInputError
from conceptbench.core.files import sha256_bytes
from conceptbench.core.manifests import load_concepts, load_prompts
from conceptbench.core.results import Difference, Estimate
from conceptbench.core.schemas import Suite
from conceptbench.engine.images import Images
from conceptbench.engine.provenance import write_results
from conceptbench.engine.records import Record, write_records
from conceptbench.engine.report import report_from_results, row_names
from conceptbench.engine.store import Store

HOSTILE = '<script>alert("1")</script>\'" onload=x &amp; </style></svg>'
VOID = {"meta", "img", "input", "br", "line", "circle", "rect", "path"}
PROTOCOLS = {"esr-1": "esr-1@top1/j", "psr-1": "psr-1@top1/j", "clip_score": "clip_score@x100/c", "lpips": "lpips@pairs/l"}
PROMPTS = 8


# -- a document tree -----------------------------------------------------------------------------------------------------
class Node:
    def __init__(self, tag, attrs, parent):
        self.tag, self.attrs, self.parent, self.children = tag, dict(attrs), parent, []

    def all(self, tag=None, cls=None):
        """Elements below, in the order of the page."""
        for child in self.children:
            if isinstance(child, Node):
                if (tag is None or child.tag == tag) and (cls is None or cls in child.attrs.get("class", "").split()):
                    yield child
                yield from child.all(tag, cls)

    def first(self, tag=None, cls=None):
        return next(self.all(tag, cls))

    @property
    def text(self):
        return "".join(c if isinstance(c, str) else c.text for c in self.children).strip()

    def inside(self, tag, cls):
        node = self
        while node := node.parent:
            if node.tag == tag and cls in node.attrs.get("class", "").split():
                return node
        return None


class Tree(HTMLParser):
    """Refuses a page whose tags do not close in order."""

    def __init__(self, page):
        super().__init__()
        self.here = self.root = Node("", [], None)
        self.feed(page)
        self.close()
        assert self.here is self.root, f"<{self.here.tag}> is not closed"

    def handle_starttag(self, tag, attrs):
        node = Node(tag, attrs, self.here)
        assert len(attrs) == len(node.attrs), f"<{tag}> has an attribute twice"
        self.here.children.append(node)
        if tag not in VOID:
            self.here = node

    def handle_startendtag(self, tag, attrs):
        self.here.children.append(Node(tag, attrs, self.here))

    def handle_endtag(self, tag):
        assert tag == self.here.tag, f"</{tag}> closes <{self.here.tag}>"
        self.here = self.here.parent

    def handle_data(self, data):
        self.here.children.append(data)


def parsed(path):
    return Tree(path.read_text(encoding="utf-8")).root


# -- a run without models ------------------------------------------------------------------------------------------------
class World:
    """A run's folder and store, made of random numbers, with rows that follow from its records."""

    def __init__(self, root, names=("ab", "ef", "gh"), kinds=("object", "object", "object"), erasers=("uce", "esd-x"), size=8, headline=("esr-1", "psr-1")):
        self.root, self.names, self.erasers = root, names, erasers
        self.rng, self.store = np.random.default_rng(0), Store(root / "store")
        self.out = root / "out"
        self.out.mkdir(parents=True)
        concepts = [{"name": n, "kind": k, "phrases": [n]} for n, k in zip(names, kinds, strict=True)]
        (root / "concepts.yaml").write_text(yaml.safe_dump(concepts))
        with (root / "prompts.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt_id", "text", "concept", "split"])
            writer.writerows([f"p{c}-{i}", f"{n} number {i}", n, "heldout"] for c, n in enumerate(names) for i in range(PROMPTS))
        tasks = [{"id": f"task {i}", "targets": [names[i]], "retained": [n for n in names if n != names[i]]} for i in range(2)]
        self.suite = Suite.model_validate(
            {
                **{"name": "tiny", "version": "1.0", "title": names[0], "base": "tiny", "sampler": {}, "seed": 1, "concepts": str(root / "concepts.yaml")},
                "tasks": [{**t, "prompts": {"set": str(root / "prompts.csv")}} for t in tasks],
                "metrics": [{"metric": m} for m in ("esr", "psr", "clip_score", "lpips")],
                "headline": dict(zip(("erased", "kept"), headline, strict=True)),
            }
        )
        load_concepts.cache_clear()
        load_prompts.cache_clear()
        self.pixels: dict[str, np.ndarray] = {}
        self.records = [self._record(s, e, size) for t in self.suite.tasks for e in ("base", *erasers) for s in Images(self.suite, t)]
        self.rows = [r for t in self.suite.tasks for e in ("base", *erasers) for r in self._rows(t.id, e)]
        self.document = self._document()

    def _record(self, spec, eraser, size):
        key = sha256_bytes(f"{spec.task}{eraser}{spec.prompt_id}".encode())
        self.pixels[key] = self.rng.integers(0, 256, (size, size, 3), np.uint8)
        self.store.write_image(key, self.pixels[key])
        values = {PROTOCOLS["esr-1" if spec.role == "target" else "psr-1"]: float(self.rng.integers(2)), PROTOCOLS["clip_score"]: float(self.rng.normal(30, 4))}
        if eraser != "base":
            values[PROTOCOLS["lpips"]] = float(self.rng.random())
        preset = "" if eraser == "base" else "mini"
        return Record(spec.task, spec.role, spec.concept, eraser, preset, spec.prompt_id, spec.number, spec.seed, spec.condition.text, key, values)

    def _rows(self, task, eraser):
        for metric, protocol in PROTOCOLS.items():
            for role in ("target", "retained"):
                group = [r for r in self.records if (r.task, r.eraser, r.role) == (task, eraser, role) and protocol in r.values]
                for concept in ["*", *dict.fromkeys(r.concept for r in group)] if group else []:
                    yield self._row(task, eraser, metric, protocol, role, concept, [r for r in group if concept in ("*", r.concept)])

    def _row(self, task, eraser, metric, protocol, role, concept, group):
        rate, better = metric in ("esr-1", "psr-1"), "lower" if metric == "clip_score" and role == "target" else "higher"
        values, clusters = [r.values[protocol] for r in group], [r.prompt_id for r in group]
        of_base = {r.pair: r.values[protocol] for r in self.records if r.eraser == "base" and protocol in r.values}
        unit = "rate" if rate else "score" if metric == "clip_score" else "distance"
        estimate = Estimate.of(values, clusters, planned=len(values), rate=rate, unit=unit, better=better)
        paired = eraser != "base" and metric != "lpips"
        delta = Difference.of(values, [of_base[r.pair] for r in group], clusters, rate=rate) if paired else Difference(value=None)
        return {
            **{"suite": "tiny", "suite_version": "1.0", "task": task, "role": role, "concept": concept, "base": "tiny", "eraser": eraser},
            **{"preset": "" if eraser == "base" else "mini", "metric": metric, "protocol": protocol, "better": better, "unit": unit, "value": estimate.value},
            **{"ci_low": estimate.low, "ci_high": estimate.high, "ci_kind": estimate.kind, "n_planned": estimate.planned, "n_scored": estimate.scored},
            **{"n_failed": 0, "clusters": estimate.clusters, "base_value": 0.5 if paired else None, "delta": delta.value, "delta_low": delta.low},
            **{"delta_high": delta.high, "status": "ok", "reason": ""},
        }

    def _document(self):
        entries = [{"spec": f"{e}:mini", "config": {"lr": 0.1}, "summary": "s", "reference": "r"} for e in self.erasers]
        steps = [{"step": i, "loss": 1 / (i + 1), "gradient_norm": 1.0 if i else None} for i in range(50)]
        return {
            "canonical": {
                **{"rows": self.rows, "suite": self.suite.model_dump(mode="json"), "erasers": entries, "judges": {}, "sha256": "0" * 64},
                "base": {"id": "tiny", "family": "sd1", "revision": "", "components": {"unet": "u" * 64}, "notes": ["a note"], "precision": "bf16"},
                "erasures": [{"spec": e["spec"], "task": t.id, "weights_sha256": "w"} for e in entries for t in self.suite.tasks],
                **{"limited": None, "development": False, "failures": []},
            },
            "curves": {f"{self.erasers[-1]}:mini [{t.id}]": steps for t in self.suite.tasks},
            "cost": [{"eraser": e["spec"], "task": t.id, "seconds": 1.5, "peak_memory_mb": 1024.4} for e in entries for t in self.suite.tasks],
            **{"environment": "here", "store": str(self.store.root)},
        }

    def report(self, records=True):
        (self.out / "results.json").write_text(json.dumps(self.document))
        if records:
            write_records(self.out / "records.csv", self.records)
        return report_from_results(self.out)

    def page(self, records=True):
        return parsed(self.report(records))


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def decoded(uri):
    head, _, data = uri.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))


def task_sections(page):
    return [s for s in page.all("section") if s.attrs.get("id", "").startswith("task-")]


def check_self_contained(page):
    policy = next(m for m in page.all("meta") if m.attrs.get("http-equiv") == "Content-Security-Policy").attrs["content"]
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'") and "script" not in policy
    assert not {n.tag for n in page.all()} & {"script", "link", "iframe", "object", "embed", "base", "form", "use", "image", "foreignobject"}
    ids = [n.attrs["id"] for n in page.all() if "id" in n.attrs]
    assert len(ids) == len(set(ids))
    for node in page.all():
        assert not [a for a in node.attrs if a.startswith("on")], node.tag
        assert node.attrs.get("src", "data:image/").startswith("data:image/")
        if "href" in node.attrs:
            assert node.attrs["href"][0] == "#" and node.attrs["href"][1:] in ids
        for attribute in set(node.attrs) - {"src", "title", "alt", "aria-label", "content"}:
            assert "url(" not in node.attrs[attribute] or attribute == "class"
    assert "url(" not in page.first("style").text and "@import" not in page.first("style").text


# -- the page ------------------------------------------------------------------------------------------------------------
def test_self_contained_and_the_same_bytes_twice(world):
    path = world.report()
    first = path.read_bytes()
    check_self_contained(parsed(path))
    assert world.report().read_bytes() == first
    for drawing in re.findall(r"<svg.*?</svg>", first.decode(), re.S):
        ElementTree.fromstring(drawing)


def test_navigation_leads_to_every_task(world):
    page = world.page()
    links = [(a.text, a.attrs["href"]) for a in page.first("nav").all("a")]
    assert links == [("Erased × evaluated", "#matrix"), ("task 0", "#task-1"), ("task 1", "#task-2"), ("How these numbers were got", "#how")]


def test_matrices_say_what_the_rows_say(world):
    section = next(s for s in world.page().all("section") if s.attrs.get("id") == "matrix")
    tables = list(section.all("table", "matrix"))
    assert [h.text for h in section.all("h4")] == ["uce", "esd-x"] and len(tables) == 2
    value = {(r["task"], r["eraser"], r["metric"], r["concept"]): r["value"] for r in world.rows}
    for eraser, table in zip(("uce", "esd-x"), tables, strict=True):
        assert [th.text for th in table.first("thead").all("th")] == ["erased", "ab", "ef", "gh"]
        base, *lines = table.first("tbody").all("tr")
        assert base.first("th").text == "base" and [line.first("th").text for line in lines] == ["ab", "ef"]
        for i, line in enumerate(lines):
            for name, cell in zip(("ab", "ef", "gh"), line.all("td"), strict=True):
                own = name == ("ab", "ef")[i]
                seen = 1 - value[f"task {i}", eraser, "esr-1", name] if own else value[f"task {i}", eraser, "psr-1", name]
                assert cell.text == f"{100 * seen:.0f}" and ("own" in cell.attrs.get("class", "")) == own
                assert f"n {PROMPTS}" in cell.attrs["title"] and f"{100 * seen:.1f} (" in cell.attrs["title"] and "background:#" in cell.attrs["style"]
        assert next(base.all("td")).text == f"{100 - 100 * value['task 0', 'base', 'esr-1', 'ab']:.0f}"


def test_headline_table_has_every_model_metric_and_difference(world):
    table = task_sections(world.page())[0].first("table", "stack")
    assert [th.text.split("target")[0].split("retained")[0] for th in table.first("thead").all("th")][1:3] == ["esr-1", "psr-1"]
    lines = list(table.first("tbody").all("tr"))
    assert [line.first("th").text.removesuffix("mini") for line in lines] == ["base", "uce", "esd-x"]
    row = next(r for r in world.rows if (r["task"], r["eraser"], r["metric"], r["concept"]) == ("task 0", "uce", "esr-1", "*"))
    cell = next(lines[1].all("td"))
    assert cell.first("b").text == f"{100 * row['value']:.1f}" and row["protocol"] in cell.attrs["title"]
    assert cell.text.count(f"{100 * row['ci_low']:.1f} – {100 * row['ci_high']:.1f}") == 1
    assert ("Δ 0.0" if row["delta"] == 0 else f"Δ {100 * row['delta']:+.1f}".replace("-", "−")) in cell.text


def test_pair_metrics_have_no_base_and_break_nothing(world):
    table = task_sections(world.page())[0].first("table", "stack")
    heads = [th.text for th in table.first("thead").all("th")]
    column = next(i for i, h in enumerate(heads) if h.startswith("lpips")) - 1
    cells = [list(line.all("td"))[column].text for line in table.first("tbody").all("tr")]
    assert cells[0] == "" and all(re.match(r"0\.\d{3}", c) and "Δ" not in c for c in cells[1:])


def test_a_headline_that_is_no_rate_gives_no_matrix_and_a_scatter_in_its_units(tmp_path):
    page = World(tmp_path, headline=("esr-1", "lpips")).page()
    labels = [s.attrs["aria-label"] for s in page.all("svg")]
    assert "lpips by concept and eraser" in labels and not list(page.all("table", "matrix"))
    assert any("against" in x for x in labels) and "kept: lpips  →" in page.text


def test_bars_curves_and_scatter_are_there_once_a_task(world):
    for section in task_sections(world.page()):
        labels = [s.attrs["aria-label"] for s in section.all("svg")]
        assert labels == [
            "erased against kept, one point a model; upper right is best",
            "esr-1 by concept and eraser",
            "psr-1 by concept and eraser",
            "loss by training step",
            "gradient_norm by training step",
        ]


def test_galleries_show_the_recorded_images(world):
    # keys of the records, not those that a plan would have now: the weights' hash here is made up
    section = task_sections(world.page())[1]
    galleries = list(section.first("div", "galleries").children)
    galleries = [g for g in galleries if isinstance(g, Node)]
    assert [(g.attrs["class"], g.first("h4").text.removesuffix("target")) for g in galleries] == [("target", "ef"), ("retained", "ab"), ("retained", "gh")]
    strips = [decoded(i.attrs["src"]) for i in galleries[0].all("img")]
    assert [w.text for w in galleries[0].all("span", "who")] == ["base", "uce", "esd-x"]
    for eraser, strip in zip(("base", "uce", "esd-x"), strips, strict=True):
        wanted = [world.pixels[r.image] for r in world.records if (r.task, r.eraser, r.concept) == ("task 1", eraser, "ef")]
        assert np.array_equal(strip, np.concatenate(wanted, axis=1))


def test_large_images_become_small_jpegs(tmp_path):
    world = World(tmp_path, size=200, erasers=("uce",))
    page = world.page()
    sources = [i.attrs["src"] for i in page.all("img")]
    assert sources and all(s.startswith("data:image/jpeg") for s in sources) and decoded(sources[0]).shape == (112, 112 * PROMPTS, 3)
    assert not list(page.all("img", "sharp"))


def test_a_missing_image_is_grey(world):
    gone = world.records[0].image
    world.store.image_path(gone).unlink()
    strip = decoded(next(task_sections(world.page())[0].all("img")).attrs["src"])
    assert (strip[:, :8] == 110).all() and np.array_equal(strip[:, 8:16], world.pixels[world.records[1].image])


# -- the images behind the numbers ---------------------------------------------------------------------------------------
def extremes_of(section):
    for details in section.all("details"):
        if details.first("summary").text.startswith("Images behind"):
            return {d.first("summary").text.split(":")[0]: d for d in details.all("details")}
    return {}


def test_extremes_are_the_extremes(world):
    found = extremes_of(task_sections(world.page())[0])
    assert set(found) == {
        f"{m} on {r} concepts"
        for m, r in [("esr-1", "target"), ("psr-1", "retained"), *((m, r) for m in ("clip_score", "lpips") for r in ("target", "retained"))]
    }
    for (metric, role), details in ((k.split(" concepts")[0].split(" on "), d) for k, d in found.items() if "sr-1" not in k):
        for series in details.all("div", "series"):
            who, end = series.first("b").text, series.first("small").text
            own = [r for r in world.records if (r.task, r.eraser, r.role) == ("task 0", who, role)]
            wanted = sorted(own, key=lambda r: r.values[PROTOCOLS[metric]], reverse=end == "highest")[:3]
            tiles = list(series.all("figure"))
            assert [t.first("figcaption").first("span").text for t in tiles] == [r.prompt for r in wanted], (metric, role, who, end)
            for tile, record in zip(tiles, wanted, strict=True):
                assert np.array_equal(decoded(tile.first("img").attrs["src"]), world.pixels[record.image])
                assert float(tile.first("b").text) == pytest.approx(record.values[PROTOCOLS[metric]], abs=0.006)


def test_failures_are_failures(world):
    found = extremes_of(task_sections(world.page())[0])
    for metric, role in (("esr-1", "target"), ("psr-1", "retained")):
        details = found[f"{metric} on {role} concepts"]
        assert [s.first("b").text for s in details.all("div", "series")] == ["uce", "esd-x"]
        for series in details.all("div", "series"):
            own = [r for r in world.records if (r.task, r.eraser, r.role) == ("task 0", series.first("b").text, role)]
            failed = {r.prompt for r in own if r.values[PROTOCOLS[metric]] == 0}
            shown = [f.first("figcaption").text for f in series.all("figure")]
            assert len(shown) == min(6, len(failed)) and set(shown) <= failed and series.first("small").text == f"{len(failed)} of {len(own)} failed"


def test_without_records_the_section_is_left_out(world):
    page = world.page(records=False)
    assert not extremes_of(task_sections(page)[0]) and "Incomplete" not in page.text and page.first("footer").text.endswith("results.json")
    check_self_contained(page)


@pytest.mark.parametrize("content", [b"task,role\n1,2\n", b"\xff\xfe\x00", b"", "header"])
def test_damaged_records_are_told_and_lose_nothing_else(world, content):
    world.report()
    if content == "header":
        content = (world.out / "records.csv").read_bytes().replace(b",8", b",eight").replace(b"0,1", b"zero,1")
    (world.out / "records.csv").write_bytes(content)
    page = world.page(records=False)
    note = next(s for s in page.all("section") if s.first("h2").text == "Incomplete")
    assert "records.csv" in note.text and len(task_sections(page)) == 2 and not extremes_of(task_sections(page)[0])


def test_a_value_that_is_no_number_is_named(world):
    write_records(world.out / "records.csv", world.records)
    path = world.out / "records.csv"
    lines = list(csv.reader(io.StringIO(path.read_text())))
    column = lines[0].index(PROTOCOLS["clip_score"])
    lines[1][column], lines[2][column] = "nan", "inf"
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    path.write_text(out.getvalue())
    page = world.page(records=False)
    assert "a value is a finite number" in page.text and not extremes_of(task_sections(page)[0])


# -- explicit images -----------------------------------------------------------------------------------------------------
def test_explicit_images_are_hidden_until_asked_for_and_others_are_not(tmp_path):
    world = World(tmp_path, kinds=("object", "explicit", "object"))
    page = world.page()
    hidden = shown = 0
    for image in page.all("img"):
        about_ef = image.attrs["alt"].endswith(": ef") or image.attrs["alt"].startswith("ef, ")
        label = image.inside("label", "veil")
        assert (label is not None) == about_ef, image.attrs["alt"]
        if label is None:
            shown += 1
            continue
        hidden += 1
        box = label.children[0]
        assert (box.tag, box.attrs["type"], box.attrs["autocomplete"]) == ("input", "checkbox", "off") and "checked" not in box.attrs
        assert box.attrs["aria-label"].startswith("show explicit image") and len(list(label.all("input"))) == 1
        # the rule below hides images inside the box's later siblings
        assert image.parent is not label
    assert hidden and shown
    style = page.first("style").text
    assert re.search(r"\.veil input:not\(:checked\) ~ \* img \{ filter: blur\(\d+px\)", style) and "input:focus-visible" in style


# -- what an erasure is and costs ----------------------------------------------------------------------------------------
def model_row(world, metric, value, unit, *, eraser="uce", reason=""):
    row = next(r for r in world.rows if r["eraser"] == eraser)
    blank = dict.fromkeys(("ci_low", "ci_high", "base_value", "delta", "delta_low", "delta_high"))
    more = {
        "role": "model",
        "concept": "*",
        "metric": metric,
        "protocol": f"{metric}@x",
        "unit": unit,
        "value": value,
        "reason": reason,
        "better": "lower",
        "ci_kind": "",
    }
    return {**row, **blank, **more}


def test_rows_of_an_erasure_have_a_table_of_their_own(world):
    world.document["canonical"]["rows"] = [
        *world.rows,
        model_row(world, "weight_change-l1-changed", 0.0123, "weight"),
        model_row(world, "weight_change-relative-l2", None, "ratio", reason="the base is <all> zero"),
    ]
    world.document["timed"] = [model_row(world, "cost-seconds", 2.25, "seconds")]
    one, two = task_sections(world.page())
    table = list(one.all("table", "stack"))[1]
    heads = [th.first("small").parent.text for th in table.first("thead").all("th") if list(th.all("small"))]
    assert heads == ["weight_change-l1-changed↓ weight", "weight_change-relative-l2↓ ratio", "cost-seconds↓ seconds", "peak memory↓ MB"]
    uce, esd = table.first("tbody").all("tr")
    assert [td.text for td in uce.all("td")] == ["0.012", "–", "2.25", "1,024"] and [td.text for td in esd.all("td")] == ["", "", "", "1,024"]
    assert uce.first("abbr").attrs["title"] == "the base is <all> zero"
    assert "weight_change" not in one.first("table", "stack").text and "weight_change" not in list(one.all("details"))[-1].text
    costs = [th.text for th in list(two.all("table", "stack"))[1].first("thead").all("th")]
    assert costs == ["eraser", "time to erase↓ seconds", "peak memory↓ MB"]  # noted while erasing, where no metric asks


def test_a_failed_erasure_says_why(world):
    failed = [
        {**r, "value": None, "ci_low": None, "ci_high": None, "delta": None, "delta_low": None, "delta_high": None, "status": "failed", "reason": "it <burst>"}
        if r["eraser"] == "uce"
        else r
        for r in world.rows
    ]
    world.document["canonical"].update(rows=failed, erasures=[], failures=[{"eraser": "uce:mini", "task": "task 0"}])
    world.document["failures"] = [{"eraser": "uce:mini", "task": "task 0", "reason": "it <burst>", "unit": "uce:mini [task 0]"}]
    world.records = [r for r in world.records if r.eraser != "uce"]
    page = world.page()
    assert any(a.attrs["href"] == "#failed" for a in page.first("nav").all("a"))
    cells = list(list(task_sections(page)[0].first("table", "stack").first("tbody").all("tr"))[1].all("td"))
    assert all(c.first("abbr").attrs["title"] == "it <burst>" and c.first("span", "badge").text == "failed" for c in cells)
    assert [td.attrs.get("title") for td in list(page.first("table", "matrix").all("tr"))[2].all("td")] == ["it <burst>"] * 3


# -- hostile and odd input -----------------------------------------------------------------------------------------------
def test_hostile_names_stay_text(tmp_path):
    world = World(tmp_path, names=(HOSTILE, "a'b\"c", "gh"), kinds=("explicit", "object", "style"), erasers=(HOSTILE, "x\" onclick='y"))
    world.document["canonical"]["failures"] = [{"eraser": HOSTILE, "task": HOSTILE, "reason": HOSTILE}]
    world.document["canonical"]["erasers"][0].update(summary=HOSTILE, config={HOSTILE: "</script><script>"})
    world.document["curves"][f"{HOSTILE}:mini [task 0]"] = [{"step": 0, HOSTILE: 1.0}, {"step": 1, HOSTILE: 2.0}]
    world.document["environment"] = HOSTILE
    path = world.report()
    page = parsed(path)
    check_self_contained(page)
    assert page.first("h1").text == HOSTILE and HOSTILE in [h.text for h in page.all("h4")]
    assert any(HOSTILE in n.attrs.get("title", "") for n in page.all("td"))
    drawings = re.findall(r"<svg.*?</svg>", path.read_text(), re.S)
    inside = [e.text or "" for d in drawings for e in ElementTree.fromstring(d).iter()]
    assert any(HOSTILE in t for t in inside) and "<script" not in path.read_text()


def test_old_results_without_curves_cost_and_timed_rows(world):
    for name in ("curves", "cost"):
        del world.document[name]
    page = world.page(records=False)
    assert len(task_sections(page)) == 2 and "Training" not in page.text and "What the erasure is" not in page.text


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"canonical": 1}', '{"canonical": {"suite": {}, "rows": []}}', "\x00", None])
def test_unreadable_results(tmp_path, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserInputError, match="no readable results"):
        report_from_results(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_two_presets_of_one_eraser_have_names_of_their_own():
    assert row_names([("a", "x"), ("b", "y"), ("a", "z"), ("a", "x")]) == {("a", "x"): "a:x", ("b", "y"): "b", ("a", "z"): "a:z"}


def test_marks_of_limited_and_development_runs(world):
    world.document["canonical"].update(limited=4, development=True)
    badges = [b.text for b in world.page().first("header").all("span", "badge")]
    assert badges == ["development prompts: for tuning, not for reporting", "limited to 4 prompts a concept"]


def test_the_sampler_floor_is_no_eraser(tmp_path):
    world = World(tmp_path, erasers=("uce", "base-under-ddim-2-3"))
    world.document["canonical"]["suite"]["tasks"][1].update(targets=["ef", "gh"], retained=["ab"], mode="apart")
    page = world.page()
    several = next(s for s in page.all("section") if s.attrs.get("id") == "several")
    shown = [t.text for figure in several.all("figure", "figures") for t in figure.all("title")]
    assert [t.partition(":")[0] for t in shown] == ["uce, task 0 (one target)", "uce, task 1 (apart)"] * 2
    assert [m.text for m in page.first("div", "matrices").all("h4")] == ["uce"]
    assert "Erased each alone" in task_sections(page)[1].text and "Erased each alone" not in task_sections(page)[0].text


# -- a real run ----------------------------------------------------------------------------------------------------------
def test_of_a_real_run(folders, tmp_path):
    outcome, runner = carry_out(write_suite(tmp_path / "suite"), folders, tmp_path / "store", [ESD, "uce"])
    write_results(outcome, runner.measures.judges, tmp_path / "out", Store(tmp_path / "store"), [])
    page = parsed(report_from_results(tmp_path / "out"))
    check_self_contained(page)
    sections = task_sections(page)
    assert [s.first("h2").text for s in sections] == ["one: erase ab", "two: erase ef"] and [h.text for h in page.first("div", "matrices").all("h4")] == [
        "esd-x",
        "uce",
    ]
    assert all("clip_score on target concepts" in extremes_of(s) for s in sections)
    assert "loss by training step" in [s.attrs["aria-label"] for s in sections[0].all("svg")]
    for image in page.all("img"):  # every image was found
        pixels = decoded(image.attrs["src"])
        assert not any((pixels[:, i : i + pixels.shape[0]] == 110).all() for i in range(0, pixels.shape[1], pixels.shape[0]))
    assert len({i.attrs["src"] for i in page.all("img")}) > 10
