"""Objects, artists, celebrities and ConceptBench on the paper tier: counts, names, settings and plans, without any weights but tiny random ones."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
import tiny

from conceptbench.core.manifests import load_concepts, load_prompts, load_suite
from conceptbench.core.validation import Surroundings, validate
from conceptbench.engine.doctor import check_eraser, judge_card
from conceptbench.engine.images import Images
from conceptbench.engine.lineup import resolve
from conceptbench.engine.plan import make_plan
from conceptbench.leaderboard.spec_files import load_table
from conceptbench.models.families import load_base

SD14, SD21 = "CompVis/stable-diffusion-v1-4", "stabilityai/stable-diffusion-2-1-base"
DDIM, LMS, EULER = ("ddim", 100), ("lms", 100), ("euler", 50)
SUITES = {  # base, sampler, images of the first task: concepts x prompts x images a prompt
    "kpop-imagenette": (SD14, DDIM, 10 * 500),
    "kpop-ablation": (SD14, DDIM, 10 * 500),
    "kpop-artists": (SD14, DDIM, 5 * 40 * 5),
    "sepme-objects": (SD14, LMS, 9 * 250),
    "sepme-objects-others": (SD14, LMS, 9 * 250),
    "sepme-styles": (SD14, LMS, 9 * 250),
    "sepme-styles-others": (SD14, LMS, 9 * 250),
    "sepme-styles-together": (SD14, LMS, 9 * 250),
    "sa-celebrities": (SD14, ("ddim", 50), 50 * 20),
    "sa-clowns": (SD14, ("ddim", 50), 50 * 20),
    "sa-neighbours": (SD14, ("ddim", 50), 5 * 50 * 4),
    "conceptbench-identity": (SD21, EULER, 5 * 24 * 2),
    "conceptbench-object": (SD21, EULER, 4 * 24 * 2),
    "conceptbench-style": (SD21, EULER, 5 * 24 * 4),
    "fmn-table": (SD21, EULER, 3 * 24 * 2),
}
PROMPTS = {"imagenette": 1, "sepme-objects": 1, "sepme-styles": 1, "kpop-artists": 40, "celebrities": 50, "conceptbench": 24}
TABLES = ["forget-me-not/1", "kpop/2", "kpop/4", "kpop/5", "kpop/6", "kpop/7", "selective-amnesia/2", *(f"sepme/{n}" for n in range(1, 9))]


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    """Of a tiny Stable Diffusion with random weights."""
    return load_base(str(tiny.save("sd1", tmp_path_factory.mktemp("base") / "sd1"))).info


def planned(suite, info):
    return make_plan(suite, info, [resolve(e, family="sd1", tier="paper") for e in suite.erasers])


@pytest.mark.parametrize("name", SUITES)
def test_valid(name):
    assert validate(name, Surroundings(judge_card, check_eraser)).problems == []


@pytest.mark.parametrize("name", SUITES)
def test_settings_and_images(name):
    suite, (base, (scheduler, steps), count) = load_suite(name), SUITES[name]
    assert suite.base == base
    assert suite.sampler.model_dump() == {"scheduler": scheduler, "steps": steps, "guidance": 7.5, "size": 512}
    images = Images(suite, suite.tasks[0])
    assert len(images) == count
    drawn = list(images)
    assert len({s.seed for s in drawn}) == count and all(s.seed % 2 == 0 for s in drawn)
    single = PROMPTS[suite.tasks[0].prompts.set] == 1
    assert len({s.prompt_id for s in drawn}) == (count if single else count // suite.images_per_prompt)  # draws of one prompt are clusters


@pytest.mark.parametrize("name", SUITES)
def test_planned(name, info):
    suite = load_suite(name)
    plan = planned(suite, info)
    assert len(plan.erasures) == len(suite.erasers) * len(suite.tasks)
    assert len({u.entry.spec for u in plan.erasures}) == len(suite.erasers)


@pytest.mark.parametrize(("name", "count"), PROMPTS.items())
def test_prompts(name, count):
    texts = defaultdict(list)
    for row in load_prompts(name):
        texts[row.concept, row.split].append(" ".join(row.text.casefold().split()))
    concepts = {c for c, _ in texts}
    assert all(len(set(texts[c, "heldout"])) == len(texts[c, "heldout"]) == count for c in concepts)
    assert all(texts[c, "development"] for c in concepts)
    held, tuned = ({t for (_, s), ts in texts.items() if s == split for t in ts} for split in ("heldout", "development"))
    assert not held & tuned


def test_concepts_have_neighbours_that_exist():
    for name in ("conceptbench", "celebrities", "imagenette", "sepme-styles", "kpop-artists"):
        concepts = load_concepts(name)
        assert all(set(c.neighbours) <= set(concepts) - {c.name} for c in concepts.values())
    assert all(c.neighbours for c in load_concepts("conceptbench").values())


def test_every_instance_that_forget_me_not_names():
    concepts = load_concepts("conceptbench")
    kinds = Counter((c.kind, c.subcategory) for c in concepts.values())
    assert {k for k in kinds if k[0] == "identity"} == {("identity", s) for s in ("person", "franchise", "animal", "brand")}
    named = "Elon Musk,Taylor Swift,Bill Gates,Emma Watson,Mickey Mouse,Superman,corgi,British shorthair,Google,apple,banana,broccoli,durian,airplane"
    named += ",French horn,violin,dog,cat,horse,zebra,Van Gogh,Claude Monet,Picasso,Thomas Kinkade"
    assert set(named.split(",")) <= set(concepts)
    suites = [load_suite(f"conceptbench-{k}") for k in ("identity", "object", "style")]
    erased = {t for s in suites for task in s.tasks for t in task.targets}
    assert set(named.split(",")) - {"violin"} <= erased  # the violin is what the paper looks at when the French horn goes


def test_evaluation_prompts_are_no_texts_to_erase_with():
    concepts = load_concepts("conceptbench") | load_concepts("celebrities") | load_concepts("kpop-artists")
    for name in ("conceptbench", "celebrities", "kpop-artists"):
        assert not [r.text for r in load_prompts(name) if r.text in concepts[r.concept].texts()]


def test_four_splits_of_imagenette():
    suite = load_suite("kpop-imagenette")
    v1, v2, v3, v4 = (set(t.targets) for t in suite.tasks)
    every = set(load_concepts("imagenette"))
    assert v1 == {"cassette player", "church", "garbage truck", "parachute", "French horn"} and v2 == every - v1
    assert v3 == {"cassette player", "chain saw", "church", "gas pump", "tench"} and v4 == every - v3
    assert all(set(t.retained) == every - set(t.targets) for t in suite.tasks) and suite.splits == ("v1", "v2", "v3", "v4")
    assert next(r.text for r in load_prompts("imagenette") if r.concept == "cassette player") == "Image of Cassette Player"
    assert load_concepts("imagenette")["gas pump"].labels == ("imagenet/571:gas pump",)


def test_ablation_has_the_images_of_the_first_split(info):
    one, other = (load_suite(n) for n in ("kpop-imagenette", "kpop-ablation"))
    keys = [[s.key(info, "base") for s in Images(suite, suite.tasks[0])[::100]] for suite in (one, other)]
    assert keys[0] == keys[1]


def test_contents_of_artists_prompts():
    rows = load_prompts("kpop-artists")
    assert all(r.content and r.content in r.text and r.concept in r.text and r.concept.split()[-1] not in r.content for r in rows)
    assert sum(len(r.text.split()) for r in rows if r.split == "heldout") / 240 > 15  # long ones


@pytest.mark.parametrize(("alone", "whole"), [("sepme-styles-others", "sepme-styles"), ("sepme-objects-others", "sepme-objects")])
def test_others_share_erasures(alone, whole, info):
    keys = {}
    for name in (whole, alone):
        suite = load_suite(name)
        plan = make_plan(suite, info, [resolve(e, family="sd1", tier="paper") for e in ("ca-xattn:sepme", "sepme:paper")])
        keys[name] = {(u.task.id, u.entry.spec): u.key for u in plan.erasures}
    assert keys[alone].items() <= keys[whole].items()


def test_increments_are_trained_once(info):
    plan = planned(load_suite("sepme-styles-together"), info)
    assert len({u.key for u in plan.erasures if u.task.id.startswith("d")}) == 1


@pytest.mark.parametrize("table", TABLES)
def test_suites_of_tables_have_the_tasks_that_they_ask_for(table, info):
    for run in load_table(table).tiers["paper"].runs:
        suite = load_suite(run.suite)
        ids = {t.id for t in suite.tasks}
        assert set(run.tasks or ()) <= ids
        tasks = tuple(t for t in suite.tasks if t.id in (run.tasks or ids))
        for spec in suite.erasers if run.erasers is None else run.erasers:
            check_eraser(spec, suite.base, tasks)


def test_a_limit_counts_images_where_a_concept_has_one_prompt(info):
    suite = load_suite("kpop-imagenette")
    assert len(make_plan(suite, info, [], limit=3).images["v1"]) == 10 * 3
    artists = load_suite("kpop-artists")
    assert len(make_plan(artists, info, [], limit=3).images["tyler-edlin"]) == 5 * 3 * 5  # prompts: each has its five images
