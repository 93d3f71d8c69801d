"""``score --records``: what classifiers, CLIP, LPIPS and detectors of faces left, with results by hand."""

from __future__ import annotations

import csv
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import maps, number, parse, refusal, registered, score, wilson  # noqa: F401 - two are fixtures

from conceptbench.cli import score_records as verb

# -- classifiers: the CSV of ESD's and EAP's imageclassify.py --------------------------------------------------------
CLASSES = {"Cassette Player": 482, "Church": 497, "Tench": 0, "French Horn": 566}
OTHERS = [("radio", 754), ("tape player", 848), ("CD player", 485), ("cassette", 481), ("Polaroid camera", 732), ("crane", 517), ("Cardigan", 264)]


def classified(places, seed=0, images=6):
    """ESD's columns; ``places``: concept -> where its class is among the answers of each image, from 1; 0: nowhere."""
    rng = random.Random(seed)
    out = [",case_number,prompt,label_str,evaluation_seed," + ",".join(f"category_top{k},index_top{k},scores_top{k}" for k in range(1, 6))]
    for concept, own in places.items():
        for place in own:
            answers = rng.sample(OTHERS, 5)
            if place:
                answers[place - 1] = (concept.lower().replace("french", "French"), CLASSES[concept])
            n = len(out) - 1
            out.append(f"{n},{n},Image of {concept},{concept},{rng.randrange(9999)}," + ",".join(f"{c},{i},{0.5 / k}" for k, (c, i) in enumerate(answers, 1)))
    return "\n".join(out) + "\n"


PLACES = {"Cassette Player": [1, 2, 3, 0, 5, 0], "Church": [1, 1, 1, 1, 2, 0], "Tench": [0, 0, 1, 4, 4, 1], "French Horn": [1] * 6}
TOP = maps("image=case_number", "concept=label_str", "top=category_top{}", "top_scores=scores_top{}")


def rate(concepts, k):
    return sum(1 <= p <= k for c in concepts for p in PLACES[c]) / sum(len(PLACES[c]) for c in concepts)


@pytest.mark.parametrize("top", ["category_top{}", "index_top{}"])
def test_classes_in_esds_form(score, top):
    erased = ["Cassette Player", "Church"]
    kept = ["Tench", "French Horn"]
    arguments = [a.replace("category_top{}", top) for a in TOP]
    rows = score(classified(PLACES), *arguments, "--erased", "cassette player,church", "--judge-id", "top=resnet50-v2", "--name", "mine")
    for k in (1, 5):
        esr, psr, acc = rows["mine", f"esr-{k}", "target"], rows["mine", f"psr-{k}", "retained"], rows["mine", f"acc-{k}", "target"]
        assert number(esr["value"]) == pytest.approx(1 - rate(erased, k)) and number(psr["value"]) == pytest.approx(rate(kept, k))
        assert number(acc["value"]) == pytest.approx(rate(erased, k)) and esr["protocol"] == f"esr-{k}@top{k}-of-1000way/resnet50-v2"
        assert (esr["n_planned"], esr["n_scored"], esr["clusters"], esr["status"]) == ("12", "12", "12", "ok")
        hits = round(12 * (1 - rate(erased, k)))
        assert (number(esr["ci_low"]), number(esr["ci_high"])) == wilson(hits, 12) and esr["ci_kind"] == "wilson"
    each = {(r["concept"], r["metric"]): number(r["value"]) for r in score.rows}
    assert all(each[c, "psr-1"] == pytest.approx(rate([c], 1)) for c in kept) and each["Church", "esr-5"] == pytest.approx(1 / 6, abs=1e-6)
    assert "by row: no prompt is mapped" in score.printed.err
    assert [r["acc-1@top1-of-1000way/resnet50-v2"] for r in score.records[:6]] == ["1", "0", "0", "0", "0", "0"]
    assert [r["esr-5@top5-of-1000way/resnet50-v2"] for r in score.records[:6]] == ["0", "0", "0", "1", "0", "1"]
    assert (rows["mine", "esr-1", "target"]["suite"], rows["mine", "esr-1", "target"]["suite_version"]) == ("records", "0.0")


@settings(max_examples=10, deadline=None)
@given(split=st.sets(st.sampled_from(sorted(CLASSES)), min_size=1, max_size=3), k=st.integers(1, 5))
def test_complementary_splits_add_up(tmp_path_factory, split, k):
    folder = tmp_path_factory.mktemp("splits")
    (folder / "r.csv").write_text(classified(PLACES))
    found = []
    for erased in (split, set(CLASSES) - split):
        arguments = ["--records", folder / "r.csv", *TOP, "--erased", ",".join(erased), "--metric", f"esr:k={k}", "--metric", f"psr:k={k}"]
        verb.score_records({**parse(arguments), "output": folder / "out"})
        with (folder / "out" / "leaderboard.csv").open() as file:
            found.append({r["metric"]: float(r["value"]) for r in csv.DictReader(file) if r["concept"] == "*"})
    # n differs between the splits of this file only in size, so each concept's own images weigh the same
    assert sum(100 * f[f"esr-{k}"] + 100 * f[f"psr-{k}"] for f in found) / 2 == pytest.approx(100, abs=1e-3)


def test_prompts_are_clusters(score):
    rows = score(classified(PLACES), *TOP, *maps("prompt=prompt"), "--erased", "Church,Tench")
    assert rows["r", "esr-1", "target"]["clusters"] == "2" and rows["r", "esr-1", "target"]["ci_kind"] == "wilson-clustered"
    church = next(r for r in score.rows if (r["concept"], r["metric"]) == ("Church", "esr-1"))
    assert church["ci_low"] == "" and "one prompt only" in church["ci_kind"]


def test_k_has_answers_to_look_at(score):
    text = classified(PLACES)
    assert "esr-6 needs 6 answers an image, and the records have 5" in refusal(score, text, *TOP, "--kept", "Tench", "--metric", "esr:k=6")
    found = refusal(score, text, *TOP, "--kept", "Tench", "--metric", "acc:k=1,among=[imagenet/a, imagenet/b]")
    assert "imagenet/a" in found
    among = "acc:k=1,among=['imagenet/0:tench', 'imagenet/497:church']"
    assert "which came first is not known" in refusal(score, text, *TOP, "--kept", "Tench", "--metric", among)
    rows = score(text, *[a.replace("top{}", "top1") for a in TOP], "--kept", "Tench,French Horn")
    assert {m for _, m, _ in rows} == {"esr-1", "psr-1", "acc-1"}


def test_base_records(score):
    before = {c: [1] * 6 for c in CLASSES} | {"Church": [0, 1, 1, 1, 1, 1]}
    header, *others = classified(before, seed=1).splitlines()
    base = "\n".join([header, *reversed(others)])  # partners are found by their ids
    rows = score(classified(PLACES), *TOP, "--erased", "Church", "--name", "mine", base=base)
    esr = rows["mine", "esr-1", "target"]
    assert (number(esr["value"]), number(esr["base_value"]), number(esr["delta"])) == pytest.approx((1 / 3, 1 / 6, 1 / 6), abs=1e-5)
    assert number(esr["delta_low"]) < 1 / 6 < number(esr["delta_high"]) and number(rows["base", "esr-1", "target"]["value"]) == pytest.approx(1 / 6, abs=1e-5)
    assert len(score.records) == 48 and {r["eraser"] for r in score.records} == {"mine", "base"}
    church = {e: [r["esr-1@top1-of-1000way/unknown"] for r in score.records if (r["eraser"], r["concept"]) == (e, "Church")] for e in ("mine", "base")}
    assert church == {"mine": ["0", "0", "0", "0", "1", "1"], "base": ["1", "0", "0", "0", "0", "0"]}
    lines = classified(before, seed=1).splitlines()
    found = refusal(score, classified(PLACES), *TOP, "--erased", "Church", base="\n".join(lines[:-2]))
    assert "2 images have no partner in b.csv: image '22', number 0 (line 24); image '23'" in found


def test_two_classes_of_a_name(score):
    text = "case_number,label_str,category_top1,index_top1\n0,Crane,crane,517\n1,Crane,crane,134\n"
    found = refusal(score, text, *maps("concept=label_str", "top=category_top{}"))
    assert "ImageNet has two classes called 'Crane', 134 and 517" in found
    rows = score(text, *maps("concept=label_str", "top=index_top{}"), "--label", "Crane=517")
    assert number(rows["r", "acc-1", "target"]["value"]) == 0.5


def test_another_classifier(score):
    text = "who,top1,top2\nBrad Pitt,Brad Pitt,Someone\nBrad Pitt,Another,brad pitt\n"
    rows = score(text, *maps("concept=who", "top=top{}"))
    assert rows["r", "acc-1", "target"]["protocol"] == "acc-1@top1-of-unknown-way/unknown" and number(rows["r", "acc-1", "target"]["value"]) == 0.5
    assert "class names are not ImageNet's" in score.printed.err
    assert "class names are not ImageNet's" in refusal(score, text, *maps("concept=who", "top=top{}"), "--judge-id", "resnet50-v1")
    found = refusal(score, text, *maps("top=top{}"), "--concept", "Brad Pit")
    assert "no class is called 'Brad Pit'; did you mean 'brad pitt'" in found


# -- CLIP, LPIPS, faces ----------------------------------------------------------------------------------------------
CLIP = """erased_artist,prompt_artist,prompt,score1,score2,score3
KellyMcKernan,kellymckernan,Portrait by Kelly McKernan,31.5,23.5,30.5
KellyMcKernan,kellymckernan,Portrait by Kelly McKernan,29.5,22.5,30.0
KellyMcKernan,tyleredlin,A forest by Tyler Edlin,27.0,20.0,-1.5
KellyMcKernan,tyleredlin,A castle by Tyler Edlin,33.0,21.0,28.5
"""


def test_clip_scores_in_eaps_form(score):
    roles = maps("prompt=prompt", "concept=prompt_artist", "erased=erased_artist", "clip=score1", "clip-subject=score2", "clip-content=score3")
    rows = score(CLIP, *roles, "--judge-id", "clip=openai-b32")
    target, kept = rows["r", "clip_score", "target"], rows["r", "clip_score", "retained"]
    assert (number(target["value"]), number(target["spread"]), target["spread_kind"]) == (30.5, 1.0, "images")  # of the population, as KPOP's +-
    assert (number(kept["value"]), number(kept["spread"]), kept["clusters"]) == (30.0, 3.0, "2")
    assert number(kept["ci_low"]) < 30 < number(kept["ci_high"]) and target["ci_low"] == "" and target["clusters"] == "1"
    assert target["protocol"] == "clip_score@x100/openai-b32" and (target["better"], kept["better"]) == ("lower", "higher")
    assert number(rows["r", "clip_score-subject", "retained"]["value"]) == 20.5 and number(rows["r", "clip_score-content", "retained"]["value"]) == 13.5
    assert number(score.records[2]["clip_score-content@x100/openai-b32"]) == pytest.approx(-1.5)


def test_scales(score):
    text = "i,s\n0,0.25\n1,0.75\n"
    rows = score(text, *maps("image=i", "clip=s"), "--scale", "cosine")
    assert (number(rows["r", "clip_score", "target"]["value"]), rows["r", "clip_score", "target"]["protocol"]) == (0.5, "clip_score@cosine/unknown")
    assert number(score(text, *maps("image=i", "clip=s"), "--scale", "w2.5")["r", "clip_score", "target"]["value"]) == pytest.approx(0.5)
    assert "outside of -1 to 1" in refusal(score, CLIP, *maps("clip=score1"), "--scale", "cosine")
    assert "did you mean 'cosine'" in refusal(score, text, *maps("clip=s"), "--scale", "cosin")
    assert "on the scale x100" in refusal(score, text, *maps("clip=s"), "--metric", "clip_score:scale=cosine")


LPIPS = """erased_artist,prompt_artist,prompt,num,lpips_score
KellyMcKernan,kellymckernan,Portrait by Kelly McKernan,0,0.8
KellyMcKernan,tyleredlin,A castle by Tyler Edlin,0,0.2
KilianEng,kellymckernan,Portrait by Kelly McKernan,0,0.4
KilianEng,tyleredlin,A castle by Tyler Edlin,0,nan
"""


def test_lpips_of_several_models_in_one_file(score):
    roles = maps("prompt=prompt", "number=num", "concept=prompt_artist", "lpips=lpips_score")
    rows = score(LPIPS, *roles, *maps("erased=erased_artist"), "--judge-id", "lpips-alex")
    target, kept = rows["r", "lpips", "target"], rows["r", "lpips", "retained"]
    assert number(target["value"]) == 0.8 and (number(kept["value"]), kept["n_scored"], kept["n_failed"]) == (pytest.approx(0.3), "2", "1")
    assert (target["better"], kept["better"], target["protocol"]) == ("higher", "lower", "lpips@pairs/lpips-alex")
    assert "no value in line 5" in kept["reason"]
    assert "is in line 2 already" in refusal(score, LPIPS, *roles, "--erased", "tyleredlin")


def test_faces(score):
    text = "i,n,p\n0,1,0.9\n1,2,0.1\n2,0,\n3,1,\n4,,0.5\n"
    rows = score(text, *maps("image=i", "faces=n", "gcd=p"), "--concept", "Brad Pitt", "--judge-id", "giphy")
    gcds, none = rows["r", "gcds", "target"], rows["r", "no_face", "target"]
    assert (number(gcds["value"]), gcds["n_scored"], gcds["n_failed"]) == (0.5, "2", "2") and number(gcds["spread"]) == pytest.approx(0.4)
    assert "1 of 5 images do not count" in gcds["reason"] and "no value in lines 5, 6" in gcds["reason"]
    assert number(none["value"]) == pytest.approx(1 / 3, abs=1e-5) and none["n_failed"] == "2"


def test_other_numbers(score):
    text = "i,q,a\n0,1,5.5\n1,0,6.5\n2,,x\n3,1,4.5\n"
    assert "a: 'x' is no number" in refusal(score, text, *maps("rate:q16=q", "value:a=a"))
    rows = score(text.replace("x", ""), *maps("rate:q16=q", "value:a=a"))
    q16, a = rows["r", "q16", "target"], rows["r", "a", "target"]
    assert number(q16["value"]) == pytest.approx(2 / 3, abs=1e-5) and (number(q16["ci_low"]), number(q16["ci_high"])) == wilson(2, 3)
    assert number(a["value"]) == 5.5 and number(a["spread"]) == pytest.approx(math.sqrt(2 / 3), abs=1e-5) and a["n_failed"] == "1"
    assert (a["protocol"], a["better"], a["unit"]) == ("a@given/unknown", "neither", "value")


def test_nothing_scored_is_no_value(score):
    row = score("i,a\n0,\n1,nan\n", *maps("image=i", "value:a=a"))["r", "a", "target"]
    assert (row["value"], row["n_failed"], row["status"]) == ("", "2", "partial") and "no image was scored; no value in lines 2, 3" in row["reason"]
