from __future__ import annotations

import pytest
import yaml
from validating import AROUND, change, check_eraser, faultless, found, line_of, only
from world import write_suite

from conceptbench.core.errors import MissingWeightsError, UserInputError
from conceptbench.core.registry import JUDGES
from conceptbench.core.validation import Surroundings, validate


@pytest.fixture
def suite(tmp_path):
    return faultless(tmp_path)


def test_what_was_checked_is_said(suite):
    assert validate(str(suite), AROUND).checked == ["2 tasks, 3 concepts, 120 prompts, 8 metrics, 3 judges, 2 erasers"]


def test_many_faults_at_once_each_with_file_line_and_nearest(suite):
    """One planted fault of every kind; none hides another."""
    folder = suite.parent
    concepts = folder / "concepts.yaml"
    concepts.write_text(concepts.read_text().replace("subject/green", "subject/gren"))
    rows = (folder / "prompts.csv").read_text().splitlines()
    rows[1] = "ab-h0,ab number 0 x,ab,heldout"  # the text of the development prompt ab-d0
    rows += ["ab-h1,another,ab,heldout", "new,text,abb,heldout", "short,text", "empty,,ab,heldout"]
    (folder / "prompts.csv").write_text("\n".join(rows) + "\n")
    value = yaml.safe_load(suite.read_text())
    value["tasks"][0]["retained"] = ["eff"]
    value["metrics"][0]["judge"] = "length"
    value["metrics"][1]["options"] = {"kk": 1}
    value["metrics"][2]["metric"] = "nothin"
    value["metrics"][3]["judge"] = "lenth"
    value["erasers"] = ["uce", "ucee"]
    value["base"] = "minni"
    value["titel"] = "x"
    suite.write_text(yaml.safe_dump(value, sort_keys=False) + "seed: 3\n")
    expected = [
        ("suite.yaml", line_of(suite, "titel"), "did you mean 'title'"),
        ("suite.yaml", line_of(suite, "seed: 3"), "the key 'seed' is in this mapping already"),
        ("suite.yaml", line_of(suite, "- eff"), "did you mean 'ef'"),
        ("suite.yaml", line_of(suite, "judge: length"), "needs a judge of role 'classifier', and 'length' is a image-text; of that role: colour"),
        ("suite.yaml", line_of(suite, "kk:"), "option of metric 'psr': kk: unknown key"),
        ("suite.yaml", line_of(suite, "- metric: nothin"), "did you mean 'nothing'"),
        ("suite.yaml", line_of(suite, "judge: lenth"), "did you mean 'length'"),
        ("suite.yaml", line_of(suite, "- ucee"), "did you mean 'uce'"),
        ("suite.yaml", line_of(suite, "base:"), "unknown base 'minni'; did you mean 'mini'"),
        ("concepts.yaml", line_of(concepts, "- subject/gren"), "label of head 'subject' for concept 'ef' 'gren'; did you mean 'green'"),
        ("prompts.csv", line_of(folder / "prompts.csv", "ab-d0"), "tuning on test data"),
        ("prompts.csv", len(rows) - 3, "'ab-h1' occurs twice: in line 3"),
        ("prompts.csv", len(rows) - 2, "did you mean 'ab'"),
        ("prompts.csv", len(rows) - 1, "2 cells where the header has 4"),
        ("prompts.csv", len(rows), "text is empty"),
    ]
    problems = found(suite)
    for name, line, text in expected:
        assert any(p[0] == name and p[1] == line and text in p[2] and not p[3] for p in problems), (name, line, text, problems)
    assert len(problems) == len(expected)


def test_metrics_judges_and_headline(suite):
    assert "needs a judge of role 'classifier'" in only(change(suite, metrics=[{"metric": "esr"}, {"metric": "psr", "judge": "colour"}]))[2]
    change(suite, metrics=[{"metric": m, "judge": "colour"} for m in ("esr", "psr", "psr")])
    assert only(suite)[1:3] == (
        line_of(suite, "- metric: psr", 1),
        f"metric 'psr-1' with this judge is in the suite already, in line {line_of(suite, '- metric: psr')}",
    )
    change(suite, metrics=[{"metric": "esr", "judge": "colour", "options": {"k": 0}}, {"metric": "psr", "judge": "colour"}])
    assert only(suite)[1] == line_of(suite, "k:") and "greater than or equal to 1" in only(suite)[2]
    change(suite, metrics=[{"metric": m, "judge": "colour"} for m in ("esr", "psr")], headline={"erased": "esr-5", "kept": "psr-1"})
    assert only(suite)[1] == line_of(suite, "erased:") and "unknown headline metric 'esr-5'; did you mean 'esr-1'?" in only(suite)[2]


def test_missing_weights_skip_checks_and_say_so(suite):
    def no_weights(name):
        if name == "colour":
            raise MissingWeightsError("not here", "get them")
        return JUDGES.load(name)().card

    result = validate(str(change(suite, headline={"erased": "esr-2", "kept": "psr-1"})), Surroundings(no_weights, check_eraser))
    assert result.skipped == ["judge 'colour': its role and its labels, because its weights are not here (get them)"]
    assert ["esr-2" in p.message for p in result.errors] == [True]  # ids need no weights


def test_few_prompts_are_a_warning(tmp_path):
    path = write_suite(
        tmp_path, {"ab": ["same", "Same ", "other"], "ef": [f"ef {i}" for i in range(20)], "gh": [f"gh {i}" for i in range(20)]}, base="some/model"
    )
    name, line, message, warning = only(path)
    assert (name, line, warning) == ("suite.yaml", line_of(path, "- ab"), True) and message.startswith("'ab' has 2 distinct heldout prompts")


def test_prompts_that_are_missing(suite):
    rows = (suite.parent / "prompts.csv").read_text().splitlines()
    (suite.parent / "prompts.csv").write_text("\n".join(r for r in rows if not r.startswith("gh-h")) + "\n")
    assert only(suite)[1] == line_of(suite, "- gh") and "no heldout prompts for 'gh' (it has 20 development)" in only(suite)[2]


def test_seeds_of_the_wrong_parity_are_a_warning(suite):
    csv = suite.parent / "prompts.csv"
    lines = csv.read_text().splitlines()
    csv.write_text("\n".join([lines[0] + ",seed", *(f"{x},{2 * i + ('development' in x)}" for i, x in enumerate(lines[1:]))]) + "\n")
    assert found(suite) == []
    csv.write_text(csv.read_text().replace("ab,heldout,2\n", "ab,heldout,3\n").replace("ab,development,41\n", "ab,development,40\n"))
    problems = found(suite)
    assert [(p[1], p[3]) for p in problems] == [(3, True), (22, True)]
    assert "seeds of heldout prompts must be even" in problems[0][2] and problems[1][2].endswith("line(s) 22")
    change(suite, images_per_prompt=2)
    assert any("seeds given in prompts.csv are counted up" in p[2] and p[1] == line_of(suite, "images_per_prompt") for p in found(suite))


def test_unused_concepts_and_unknown_heads_are_fine(suite):
    concepts = suite.parent / "concepts.yaml"
    value = yaml.safe_load(concepts.read_text())
    value.append({"name": "unused", "kind": "style", "phrases": ["u"], "labels": ["subject/nowhere"]})
    value[0]["labels"].append("zzz/any")  # a head that no judge of this suite has: another suite's may
    concepts.write_text(yaml.safe_dump(value))
    assert found(suite) == []


def test_files_alone(suite):
    csv, concepts = suite.parent / "prompts.csv", suite.parent / "concepts.yaml"
    assert validate(str(csv), AROUND).checked == ["120 prompts of 3 concepts"] and found(csv) == []
    csv.write_text(csv.read_text().replace("prompt_id,text,concept,split", "prompt_id,text,concept,splitt"))
    assert "unknown column 'splitt'; did you mean 'split'?" in found(csv)[0][2] and found(csv)[0][1] == 1
    concepts.write_text(
        concepts.read_text().replace("name: ef", "name: ab") + "- name: z\n  kind: object\n  phrases: [z]\n  neighbours: [gg]\n  labels: [nohead]\n"
    )
    problems = found(concepts)
    assert [p[1] for p in problems if "in this file already" in p[2]] == [line_of(concepts, "name: ab", 1)]
    assert [(p[1], p[3]) for p in problems if "did you mean 'gh'" in p[2]] == [(line_of(concepts, "neighbours: [gg]"), True)]
    assert any("'nohead' is not of the form head/label" in p[2] for p in problems)
    with pytest.raises(UserInputError, match="did you mean 'mini'"):
        validate("minni", AROUND)


@pytest.mark.parametrize("text", ["", "x", "a: [", "- 1", "tasks: 3\nmetrics: {a: 1}\nerasers: x\n", "tasks: [null, {id: a}]\nheadline: 4\nbase: [1]\n"])
def test_nonsense_is_reported_and_never_raises(tmp_path, text):
    (tmp_path / "s.yaml").write_text(text)
    assert validate(str(tmp_path / "s.yaml"), AROUND).errors
