from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from scipy.stats import binomtest

from conceptbench.core.errors import NotComparableError, UserInputError
from conceptbench.core.files import write_text
from conceptbench.core.statistics import holm, paired_difference
from conceptbench.engine.compare import COLUMNS, compare, to_csv
from conceptbench.engine.records import Record, write_records
from conceptbench.engine.sides import read_side

ESR, CLIP = "esr-1@top1/judge", "clip_score@x100/other"


def run(folder, models, *, images=1, prompts=8, protocols=(ESR, CLIP), **changes):
    """A run's folder. models: 'eraser:preset' -> function of (prompt, image) to the values by protocol."""
    records = []
    for name, value in models.items():
        eraser, _, preset = name.partition(":")
        for concept in ("c1", "c2"):
            for p in range(prompts):
                for k in range(images):
                    values = dict(zip(protocols, value(p, k), strict=True))
                    records.append(Record("t", "target", concept, eraser, preset, f"{concept}-{p}", k, 2 * p + 100 * k, f"text {p}", "i", values))
    suite = {"name": "s", "version": "1.0", "sampler": {"steps": 2}, **changes.pop("suite", {})}
    canonical = {
        "suite": suite,
        "base": {"id": "b", "components": {"unet": "u" * 64}},
        "development": False,
        "judges": {"judge": {"sha256": "j" * 64}},
        "rows": [{"protocol": p, "role": "target", "better": "higher", "unit": "rate" if p == ESR else "score"} for p in protocols],
        **changes,
    }
    write_records(folder / "records.csv", records)
    write_text(folder / "results.json", json.dumps({"canonical": canonical}))
    return folder


def first(p, k):
    return [1.0 if p < 6 else 0.0, 20.0 + p]


def second(p, k):
    return [1.0 if p in (0, 1, 7) else 0.0, 21.0 + 2 * p]


@pytest.fixture
def folder(tmp_path):
    return run(tmp_path / "run", {"base": first, "esd-x:paper": first, "uce:paper": second})


def test_two_models_of_one_run(folder):
    lines, notes = compare(read_side(f"{folder}:esd-x"), read_side(f"{folder}:uce:paper"))
    assert notes == [] and [(c.metric, c.concept) for c in lines] == [("esr-1", "*"), ("clip_score", "*")]
    esr, clip = lines
    # by hand: a is 1 for 6 of 8 prompts, b for 3; only a in 2..5, only b in 7; twice, for two concepts
    assert (esr.value_a, esr.value_b, esr.pairs, esr.prompts) == (6 / 8, 3 / 8, 16, 16)
    assert (esr.discordant_a, esr.discordant_b, esr.test, esr.better) == (8, 2, "mcnemar", "higher")
    assert esr.p == pytest.approx(binomtest(8, 10).pvalue) == esr.p_holm
    assert esr.delta == 3 / 8 and esr.delta_low < 3 / 8 < esr.delta_high and esr.ci_kind.startswith("tango")
    assert clip.delta == pytest.approx(sum((20 + p) - (21 + 2 * p) for p in range(8)) / 8) and clip.p is None and clip.test == ""
    expected = paired_difference(
        [20.0 + p for p in range(8)] * 2, [21.0 + 2 * p for p in range(8)] * 2, [f"{c}{p}" for c in "ab" for p in range(8)], rate=False
    )[1]
    assert (clip.delta_low, clip.delta_high) == pytest.approx((expected.low, expected.high))


def test_swapping_the_sides_turns_the_sign(folder):
    a, b = read_side(f"{folder}:esd-x"), read_side(f"{folder}:uce")
    for one, two in zip(compare(a, b)[0], compare(b, a)[0], strict=True):
        assert one.delta == -two.delta and (one.delta_low, one.delta_high) == pytest.approx((-two.delta_high, -two.delta_low), abs=0.2)
        assert (one.discordant_a, one.discordant_b, one.p) == (two.discordant_b, two.discordant_a, two.p)


def test_holm_is_over_the_lines_of_the_table(folder):
    lines, _ = compare(read_side(f"{folder}:esd-x"), read_side(f"{folder}:uce"), each_concept=True)
    tested = [c for c in lines if c.p is not None]
    assert [c.concept for c in tested] == ["*", "c1", "c2"] and [c.p_holm for c in tested] == holm([c.p for c in tested])
    assert tested[1].p_holm > tested[1].p and (tested[1].discordant_a, tested[1].discordant_b) == (4, 1)


def test_several_images_a_prompt_count_once(tmp_path):
    # a: 2 of 3 in every prompt; b: none in prompts 0..3, all in 4, as many as a in the rest
    two_thirds = lambda p, k: [float(k < 2), 0.0]  # noqa: E731
    other = lambda p, k: [0.0 if p < 4 else 1.0 if p == 4 else float(k > 0), 0.0]  # noqa: E731
    folder = run(tmp_path / "r", {"x:p": two_thirds, "y:p": other}, images=3)
    esr = compare(read_side(f"{folder}:x"), read_side(f"{folder}:y"))[0][0]
    assert (esr.test, esr.discordant_a, esr.discordant_b, esr.pairs, esr.prompts) == ("mcnemar-by-prompt", 8, 2, 48, 16)
    assert esr.p == pytest.approx(binomtest(8, 10).pvalue)


def test_what_does_not_pair_is_counted(folder, tmp_path):
    other = run(tmp_path / "other", {"esd-x:paper": first}, prompts=9)
    records = [r for r in _records(other) if r.prompt_id != "c1-0"]
    records = [replace(r, prompt="edited") if r.prompt_id == "c1-1" else replace(r, seed=77) if r.prompt_id == "c2-2" else r for r in records]
    records = [replace(r, values={**r.values, ESR: None}) if r.prompt_id == "c2-3" else r for r in records]
    write_records(other / "records.csv", records)
    esr, clip = compare(read_side(f"{folder}:esd-x"), read_side(str(other)))[0]
    assert (esr.pairs, esr.only_a, esr.only_b, esr.failed) == (12, 3, 4, 1) and (clip.pairs, clip.failed) == (13, 0)


def _records(folder):
    from conceptbench.engine.records import read_records

    return list(read_records(folder))


def test_all_models_that_two_runs_share(folder, tmp_path):
    other = run(tmp_path / "other", {"base": second, "uce:paper": second, "new:mini": first})
    assert {(c.a, c.b) for c in compare(read_side(str(folder)), read_side(str(other)))[0]} == {("base", "base"), ("uce:paper", "uce:paper")}
    with pytest.raises(UserInputError, match="no model is in both"):
        compare(read_side(f"{folder}:esd-x"), read_side(str(other)))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"suite": {"version": "2.0"}}, "suite: s 1.x and s 2.x"),
        ({"suite": {"sampler": {"steps": 3}}}, "sampler: steps 2 and steps 3"),
        ({"base": {"id": "b", "components": {"unet": "v" * 64}}}, "base: unet uuuuuuuu; fp32 and unet vvvvvvvv; fp32"),
        ({"development": True}, "split: heldout and development"),
        ({"judges": {"judge": {"sha256": "k" * 64}}}, "judge judge: jjjjjjjjjjjj and kkkkkkkkkkkk"),
        ({"protocols": ("esr-1@top5/judge", CLIP)}, f"protocol of esr-1: {ESR} and esr-1@top5/judge"),
    ],
)
def test_what_differs_is_not_comparable_unless_forced(folder, tmp_path, changes, text):
    other = run(tmp_path / "other", {"esd-x:paper": second}, **changes)
    sides = read_side(f"{folder}:esd-x"), read_side(str(other))
    with pytest.raises(NotComparableError) as caught:
        compare(*sides)
    assert text in str(caught.value) and caught.value.exit_code == 4
    lines, notes = compare(*sides, force=True)
    assert notes == [text] and lines[0].pairs == 16 and lines[0].delta == 3 / 8
    assert lines[0].protocol == (f"{ESR} | esr-1@top5/judge" if "protocols" in changes else ESR)


def test_a_minor_version_and_another_folder_of_the_same_base_are_comparable(folder, tmp_path):
    other = run(tmp_path / "o", {"esd-x:paper": second}, suite={"version": "1.7"}, base={"id": "elsewhere", "components": {"unet": "u" * 64}})
    assert compare(read_side(f"{folder}:esd-x"), read_side(str(other)))[1] == []


def test_a_metric_of_one_run_only_is_noted(folder, tmp_path):
    other = run(tmp_path / "o", {"esd-x:paper": lambda p, k: second(p, k)[:1]}, protocols=(ESR,))
    lines, notes = compare(read_side(f"{folder}:esd-x"), read_side(str(other)))
    assert {c.metric for c in lines} == {"esr-1"} and notes == [f"only in {folder}:esd-x: {CLIP}"]


def test_no_pair_at_all(folder, tmp_path):
    other = run(tmp_path / "o", {"esd-x:paper": first})
    write_records(other / "records.csv", [replace(r, seed=r.seed + 1000) for r in _records(other)])
    with pytest.raises(NotComparableError, match="no image of the one has a partner"):
        compare(read_side(f"{folder}:esd-x"), read_side(str(other)))


def test_bad_input(folder, tmp_path):
    with pytest.raises(UserInputError, match="did you mean 'esd-x:paper'"):
        read_side(f"{folder}:esd-y")
    with pytest.raises(UserInputError, match="no such run: 'nowhere'"):
        read_side("nowhere:uce")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserInputError, match=r"no readable results\.json"):
        read_side(str(tmp_path / "empty"))
    for damaged in ("{", "[]", '{"canonical": {}}', '{"canonical": {"suite": 3, "base": 4}}'):
        (folder / "results.json").write_text(damaged)
        with pytest.raises(UserInputError, match=r"no readable results\.json"):
            read_side(str(folder))


def test_two_presets_must_be_told_apart(tmp_path):
    folder = run(tmp_path / "r", {"uce:paper": first, "uce:mini": second})
    with pytest.raises(UserInputError, match="several presets of 'uce'"):
        read_side(f"{folder}:uce")
    assert compare(read_side(f"{folder}:uce:paper"), read_side(f"{folder}:uce:mini"))[0][0].b == "uce:mini"


def test_an_image_twice_is_refused(folder):
    records = _records(folder)
    write_records(folder / "records.csv", [*records, records[-1]])
    with pytest.raises(UserInputError, match="twice"):
        compare(read_side(f"{folder}:esd-x"), read_side(f"{folder}:uce"))


def test_csv_is_tidy(folder):
    lines, _ = compare(read_side(f"{folder}:esd-x"), read_side(f"{folder}:uce"), each_concept=True)
    rows = list(csv.DictReader(io.StringIO(to_csv(lines))))
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(lines) == 6
    assert math.isclose(float(rows[0]["delta"]), lines[0].delta) and rows[-1]["p"] == ""
