from __future__ import annotations

import pytest
import yaml

from conceptbench.core.choosing import cut_to
from conceptbench.core.documents import read_document
from conceptbench.core.errors import UserInputError, nearest, unknown_name
from conceptbench.core.manifests import load_concepts, load_prompts, load_suite, names_in, prompts_for, read_yaml, task_concepts
from conceptbench.core.registry import METRICS
from conceptbench.core.schemas import Sampler, Strict, Task
from conceptbench.core.whole_metric import DerivedMetric

TARGETS_ONLY = ("kpop-nudity", "kpop-learning", "sa-nudity", "sa-naked", "mini-sa-4", "mini-fmn-1", "sa-celebrities", "sa-clowns")
"""Suites of tables that look at targets alone; what nudity's papers keep is not drawn there."""


@pytest.mark.parametrize("name", names_in("suites"))
def test_shipped_suites_are_whole(name):
    """Every suite loads, every concept has enough distinct held-out prompts, anchors and neighbours exist."""
    suite = load_suite(name)
    assert suite.name == name
    concepts = load_concepts(suite.concepts)
    for task in suite.tasks:
        elsewhere = task.prompts.set in names_in("sources")  # tests/prompts/test_nudity_suites.py has those
        for concept in (*task.targets, *task.retained, *task.unseen):
            assert set(concepts[concept].neighbours) <= set(concepts)
            if elsewhere:
                continue
            rows = prompts_for(task.prompts.set, task.prompts.split, [concept])
            draws = rows[0].is_label or task.prompts.clusters == "image"
            enough = suite.images_per_prompt >= 100 if draws else len({r.text for r in rows}) >= 20
            assert enough, (name, concept)  # the images of a label are draws of their own
        assert task.targets and (task.kept or name in TARGETS_ONLY)


def test_development_and_held_out_prompts_are_apart():
    for name in names_in("sets"):
        rows = load_prompts(name)
        by_split = {s: {r.text for r in rows if r.split == s} for s in ("development", "heldout")}
        assert by_split["development"] and (rows[0].is_label or not by_split["development"] & by_split["heldout"])


def test_nothing_is_evaluated_on_a_text_that_erases():
    """No held-out or development prompt is a training text of any concept."""
    erasing = {t for c in load_concepts("mini").values() for t in c.texts()}
    assert not erasing & {r.text for r in load_prompts("mini")}


def test_explicit_prompts_never_name_a_mark():
    assert not [r.text for r in load_prompts("mini") if r.concept == "marks" and "mark" in r.text]


def suite_file(tmp_path, **changes):
    value = yaml.safe_load(yaml.safe_dump(load_suite("mini").model_dump(mode="json")))
    value.update(changes)
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return path


def test_every_problem_is_reported_with_its_line(tmp_path):
    path = suite_file(tmp_path)
    text = path.read_text().replace("images_per_prompt: 1", "image_per_prompt: 1").replace("steps: 10", "steps: many")
    path.write_text(text)
    with pytest.raises(UserInputError) as caught:
        load_suite(str(path))
    lines = text.splitlines()
    message = str(caught.value)
    assert "2 problem(s)" in message
    assert f"suite.yaml:{lines.index('image_per_prompt: 1') + 1}: image_per_prompt: unknown key; did you mean 'images_per_prompt'?" in message
    assert f"suite.yaml:{lines.index('  steps: many') + 1}: sampler.steps" in message and "'many'" in message


def test_unknown_key_deep_inside(tmp_path):
    path = suite_file(tmp_path)
    path.write_text(path.read_text().replace("  guidance: 3.0", "  guidanc: 3.0"))
    with pytest.raises(UserInputError, match=r"sampler.guidanc: unknown key; did you mean 'guidance'"):
        load_suite(str(path))


def test_unknown_concept_and_suite(tmp_path):
    tasks = [{"id": "a", "targets": ["Ada Mos"], "prompts": {"set": "mini"}}]
    with pytest.raises(UserInputError, match="did you mean 'Ada Moss'"):
        load_suite(str(suite_file(tmp_path, tasks=tasks)))
    with pytest.raises(UserInputError, match="unknown suite 'minni'; did you mean 'mini'"):
        load_suite("minni")
    with pytest.raises(UserInputError, match="unknown suite"):
        load_suite("../mini")
    with pytest.raises(UserInputError, match="no such file"):
        load_suite("nowhere.yaml")


def test_every_name_in_a_suite_is_checked_when_it_is_loaded(tmp_path):
    own = {"trunk": "mini-clipp", "head": "h", "classes": {"a": "x", "b": ""}}
    metrics = [{"metric": "esr", "judge": "mini-classifier", "concepts": ["church", "hous"]}, {"metric": "psr", "judge": "mini-classifer"}]
    tasks = [{"id": i, "targets": ["church"], "retained": ["house", "truck"], "prompts": {"set": "mini"}} for i in ("one", "two")]
    path = suite_file(tmp_path, tasks=tasks, metrics=metrics, splits=["one", "tow", "one"], judges={"mini-clip": own}, watch={"judge": "mini-clp"}, erasers=[])
    with pytest.raises(UserInputError) as caught:
        load_suite(str(path))
    lines, message = path.read_text().splitlines(), str(caught.value)

    def at(text, nth=0):
        return [i for i, line in enumerate(lines, 1) if line.strip() == text][nth]

    assert "7 problem(s)" in message
    for line, text in (
        (at("- hous"), "unknown concept of metric 'esr' in the suite's tasks 'hous'; did you mean 'house'?"),
        (at("judge: mini-classifer"), "unknown judge 'mini-classifer'; did you mean 'mini-classifier'?"),
        (at("- tow"), "unknown split 'tow'; did you mean 'two'?"),
        (at("- tow") + 1, f"the split 'one' is named already, in line {at('- tow') - 1}"),
        (at("mini-clip:"), "the judge name 'mini-clip' is taken by a registered judge"),
        (at("trunk: mini-clipp"), "unknown judge 'mini-clipp'; did you mean 'mini-clip'?"),
        (at("judge: mini-clp"), "unknown judge 'mini-clp'; did you mean 'mini-clip'?"),
    ):
        assert f"suite.yaml:{line}: {text}" in message, text


def tasks_of_two():
    return [
        {"id": "one", "targets": ["church"], "retained": ["house"], "prompts": {"set": "mini"}},
        {"id": "two", "targets": ["truck"], "retained": ["house"], "prompts": {"set": "mini"}},
        {"id": "three", "targets": ["Ada Moss"], "retained": ["truck"], "prompts": {"set": "mini"}},
    ]


def asked(metric, *concepts, **options):
    judge = {} if metric == "test-whole" else {"judge": "mini-classifier"}
    return {"metric": metric, **judge, "options": options, "concepts": list(concepts)}


def cut(tmp_path, metrics, *names):
    headline = [asked("esr"), asked("psr")]
    path = suite_file(tmp_path, tasks=tasks_of_two(), metrics=[*headline, *metrics], splits=["one", "two", "three"], erasers=[])
    return cut_to(load_suite(str(path)), names)


def test_a_suite_of_some_tasks_keeps_what_there_is_to_measure(tmp_path):
    limited = [asked("esr", "church", "truck", k=5), asked("psr", "truck", k=5), asked("acc", "Ada Moss")]
    suite, notes = cut(tmp_path, limited, "two", "one")
    assert [t.id for t in suite.tasks] == list(suite.splits) == ["one", "two"]
    assert [(m.metric, m.concepts) for m in suite.metrics[2:]] == [("esr", ("church", "truck")), ("psr", ("truck",))]
    assert notes == ["metric 'acc' is left out, because it is limited to concepts of other tasks (Ada Moss)"]
    suite, notes = cut(tmp_path, limited, "one")
    assert suite.splits == ("one",) and [(m.metric, m.concepts) for m in suite.metrics[2:]] == [("esr", ("church",))] and len(notes) == 2
    with pytest.raises(UserInputError, match="unknown task of suite mini 'tow'; did you mean 'two'"):
        cut(tmp_path, limited, "tow")


class Whole(DerivedMetric):
    """Made of one other metric."""

    name, summary, arithmetic = "test-whole", "", "itself"

    class Config(Strict):
        of: str

    id = property(lambda self: f"test-whole-{self.config.of}")
    sources = property(lambda self: (self.config.of,))
    better = combine = None


METRICS.add("test-whole", Whole)


def test_metrics_made_of_what_is_left_out_are_left_out(tmp_path):
    derived = {"metric": "test-whole", "each": {"of": ["esr-1", "acc-1", "acc-1/mini-classifier", "psr-1"]}}
    suite, notes = cut(tmp_path, [derived, asked("acc", "Ada Moss")], "one")
    assert [m.options["of"] for m in suite.metrics if m.metric == "test-whole"] == ["esr-1", "psr-1"]
    assert [n.split(" is left out, because it is ")[0] for n in notes] == ["metric 'acc'", *(f"metric 'test-whole-acc-1{e}'" for e in ("", "/mini-classifier"))]
    everything, notes = cut(tmp_path, [derived, asked("acc", "Ada Moss")], "one", "three")
    assert everything.metrics[2:] == load_suite(str(tmp_path / "suite.yaml")).metrics[2:] and not notes
    both = [derived, asked("acc", "Ada Moss"), asked("acc", "house")]  # not gone: another metric has this name
    assert len(cut(tmp_path, both, "one")[1]) == 1


def test_a_headline_cannot_be_left_out(tmp_path):
    path = suite_file(tmp_path, tasks=tasks_of_two(), metrics=[asked("esr", "truck"), asked("psr")], erasers=[])
    with pytest.raises(UserInputError, match="the headline metric 'esr-1' of suite 'mini' is limited to concepts of other tasks than one"):
        cut_to(load_suite(str(path)), ["one"])


def test_the_shipped_suite_of_all_metrics_can_be_cut():
    suite = load_suite("mini-metrics")
    for task in suite.tasks:
        found, _ = cut_to(suite, [task.id])
        there = {*task.targets, *task.retained}
        whole = [m for m in suite.metrics if not m.concepts]
        assert [m for m in found.metrics if not m.concepts] == whole and all(set(m.concepts) <= there for m in found.metrics)


def test_yaml_that_is_none(tmp_path):
    (tmp_path / "x.yaml").write_text("name: [1, 2\nversion")
    with pytest.raises(UserInputError, match=r"x\.yaml:\d+: not valid YAML"):
        load_suite(str(tmp_path / "x.yaml"))


def test_a_concept_cannot_be_target_and_retained():
    with pytest.raises(ValueError, match="both target and retained: a"):
        Task.model_validate({"id": "t", "targets": ["a"], "retained": ["a"], "prompts": {"set": "x"}})
    with pytest.raises(ValueError, match="anchors names what is no target of the task: b; its targets: a"):
        Task.model_validate({"id": "t", "targets": ["a"], "anchors": {"b": "c"}, "prompts": {"set": "x"}})


def test_a_tasks_anchor_wins():
    suite = load_suite("mini")
    task = suite.tasks[1].model_copy(update={"anchors": {"church": "a tree"}})
    assert task_concepts(suite, task)["church"].anchor == "a tree" != load_concepts("mini")["church"].anchor


def test_missing_prompts_are_an_error():
    with pytest.raises(UserInputError, match="no heldout prompts for: nobody"):
        prompts_for("mini", "heldout", ["fish", "nobody"])


def test_prompt_ids_are_unique(tmp_path):
    (tmp_path / "p.csv").write_text("prompt_id,text,concept\na,x,c\na,y,c\n")
    with pytest.raises(UserInputError, match=r"p\.csv:3: prompt_id 'a' occurs twice: in line 2 and here"):
        load_prompts(str(tmp_path / "p.csv"))


def test_rows_have_their_line_also_after_a_text_of_several_lines(tmp_path):
    (tmp_path / "p.csv").write_text('prompt_id,text,concept,seed\na,"x\ny",c,2\n\nb,z,c,two\nd,,c,4\n')
    with pytest.raises(UserInputError) as caught:
        load_prompts(str(tmp_path / "p.csv"))
    message = str(caught.value)
    assert "2 problem(s)" in message and "p.csv:5: seed: " in message and "'two'" in message and "p.csv:6: text is empty" in message


def test_list_items_have_their_line(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("- name: a\n  kind: object\n  phrases: [a]\n- name: b\n  kind: objekt\n  phrases: [b]\n  templates:\n  - '{}'\n  - none\n")
    with pytest.raises(UserInputError) as caught:
        load_concepts(str(path))
    message = str(caught.value)
    assert "c.yaml:5: concept 'b': kind: " in message and "c.yaml:7: concept 'b': templates: template 'none'" in message and "2 problem(s)" in message
    suite = suite_file(tmp_path, erasers=["uce", 3])
    line = suite.read_text().splitlines().index("- 3") + 1
    with pytest.raises(UserInputError, match=rf"suite\.yaml:{line}: erasers\.1: "):
        load_suite(str(suite))


@pytest.mark.parametrize("text", ["name: x", "a string", "", "- [1, 2]", "- 7"])
def test_concepts_that_are_no_list_of_concepts(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserInputError, match=r"c\.yaml"):
        load_concepts(str(tmp_path / "c.yaml"))


def test_a_key_twice_is_refused(tmp_path):
    path = suite_file(tmp_path)
    path.write_text(path.read_text() + "seed: 1\n")
    line = len(path.read_text().splitlines())
    with pytest.raises(UserInputError, match=rf"suite\.yaml:{line}: the key 'seed' is in this mapping already, in line \d+"):
        load_suite(str(path))
    (tmp_path / "flow.yaml").write_text("{a: 1, a: 2}")
    with pytest.raises(UserInputError, match="the key 'a'"):
        read_yaml(tmp_path / "flow.yaml")
    (tmp_path / "merge.yaml").write_text("x: &x {a: 1}\ny: {<<: *x, a: 2}\n")
    assert read_yaml(tmp_path / "merge.yaml")["y"] == {"a": 2}  # a merge may be overridden
    assert read_document(tmp_path / "merge.yaml").line(("y", "a")) == 2  # where the value that counts is


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['false']",
        "[" * 5000,
        "a: &a [*a]\n" * 2,
        "d: 2024-13-45",
        "a: \x01",
        "x: &x [1, 1]\n" + "".join(f"y{i}: [*x, *x]\n" for i in range(3)),
    ],
)
def test_hostile_yaml_is_bad_input(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserInputError):
        load_suite(str(tmp_path / "s.yaml"))


@pytest.mark.parametrize(
    "data", [b"\xff\xfe\x00", b'prompt_id,text,concept\na,"b,c\n', b"", b"prompt_id,text\na,b\n", b"a,a\n", b"prompt_id,text,concept\na,b\n"]
)
def test_prompt_files_that_are_none(tmp_path, data):
    (tmp_path / "p.csv").write_bytes(data)
    with pytest.raises(UserInputError, match=r"p\.csv"):
        load_prompts(str(tmp_path / "p.csv"))


def test_errors_teach():
    error = unknown_name("eraser", "esdx", ["esd-x", "uce"], "conceptbench list erasers")
    assert error.exit_code == 2 and "did you mean 'esd-x'" in str(error) and "conceptbench list erasers" in str(error)
    assert nearest("zzz", ["esd", "uce"]) is None
    with pytest.raises(ValueError, match="scheduler"):
        Sampler(scheduler="ddimm")
