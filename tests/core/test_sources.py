from __future__ import annotations

import hashlib
import shlex

import pytest
import yaml
from foreign import COPY, HUB, MANIFEST, ROWS, data, few, write_rows  # noqa: F401
from validating import AROUND, change
from world import write_suite

from conceptbench.core.data import data_folder
from conceptbench.core.errors import MissingDataError, UserInputError
from conceptbench.core.manifests import load_prompts, load_suite, names_in, prompts_for, read_set
from conceptbench.core.schemas import Prompt, PromptRow, PromptSource, Sampler
from conceptbench.core.sources import load_origin, read_source
from conceptbench.core.validation import validate
from conceptbench.engine.images import Images
from conceptbench.engine.plan import Plan


def manifest(few, **changes):
    path = few.parents[2] / "sources" / "few.yaml"
    path.write_text(yaml.safe_dump({**MANIFEST, **changes}))
    return path


# -- missing, right, wrong -------------------------------------------------------------------------------------------
def test_missing(few):
    with pytest.raises(MissingDataError) as caught:
        load_prompts("few")
    assert "'few' does not ship" in caught.value.message and str(few) in caught.value.message
    assert "three prompts" in caught.value.hint and "3 rows" in caught.value.hint
    command = shlex.split(caught.value.hint.partition("): ")[2])  # the folder's name has a space in it
    wanted = ["hf", "download", "owner/few", "few_prompts.csv", "--repo-type", "dataset", "--local-dir", str(few.parent)]
    assert command == [*wanted, "&&", "mv", str(few.parent / "few_prompts.csv"), str(few)]
    assert few.parent == data_folder() / "prompts"
    origin = load_origin(manifest(few, dataset="", url="https://there.org/x.csv"))
    assert shlex.split(origin.command(few)) == ["curl", "-fL", "--create-dirs", "-o", str(few), "https://there.org/x.csv"]
    assert "mv" not in load_origin(manifest(few, file="few.csv")).command(few)


@pytest.mark.parametrize("header", [HUB, COPY])
def test_right(few, header):
    write_rows(few, ROWS, header)
    assert load_prompts("few") == (
        Prompt("few-00000", "ab, of 2", "ab", seed=41, guidance=7.0),
        Prompt("few-00001", "ab 'b'", "ab", seed=4261553411, guidance=12.5),
        Prompt("few-00002", "ab c\n", "ab", seed=8),
    )
    assert read_set("few").lines == (2, 3, 4) and prompts_for("few", "heldout", ["ab"]) == list(load_prompts("few"))


def refused(few, manifest=None):
    load_prompts.cache_clear()
    with pytest.raises(UserInputError) as caught:
        load_prompts("few")
    assert str(few) in caught.value.message and not isinstance(caught.value, MissingDataError)
    return caught.value.message


def test_wrong_files(few):
    write_rows(few, ROWS[:2])
    digest = hashlib.sha256(few.read_bytes()).hexdigest()
    assert "2 rows, not 3" in refused(few) and digest in refused(few) and "hf download owner/few" in refused(few)
    write_rows(few, [*ROWS, ROWS[0]])
    assert "4 rows, not 3" in refused(few)
    write_rows(few, [r[:2] for r in ROWS], HUB[:2])
    assert "prompt, sd_seed, sd_guidance_scale; or prompt, evaluation_seed, evaluation_guidance: there are , prompt, sd_seed" in refused(few)
    write_rows(few, [(*r, 1) for r in ROWS], (*HUB, "prompt"))
    assert "the column 'prompt' is there twice" in refused(few)
    write_rows(few, [*ROWS[:2], ("", 3, 7)])
    assert "few.csv:4: text is empty" in refused(few)
    write_rows(few, [ROWS[0], ("x", "many", 7), ROWS[2]])
    assert "few.csv:3: seed" in refused(few) and "'many'" in refused(few)
    few.write_text("")
    assert "the file is empty" in refused(few)


def test_a_known_checksum(few):
    write_rows(few, ROWS)
    digest = hashlib.sha256(few.read_bytes()).hexdigest()
    manifest(few, sha256=digest)
    assert len(load_prompts("few")) == 3
    few.write_text(few.read_text().replace("of 2", "of 3"))
    assert f"sha256 is {hashlib.sha256(few.read_bytes()).hexdigest()}, not {digest}" in refused(few)


def test_manifests(few):
    write_rows(few, ROWS)
    for changes, said in (
        ({"url": "https://there.org"}, "both dataset and url"),
        ({"dataset": ""}, "neither dataset nor url"),
        ({"sha256": "abc"}, "sha256"),
        ({"row": 3}, "did you mean 'rows'"),
    ):
        path = manifest(few, **changes)
        with pytest.raises(UserInputError, match=said) as caught:
            read_source(path)
        assert "few.yaml" in caught.value.message


def test_names():
    with pytest.raises(UserInputError, match="unknown set 'i2q'; did you mean 'i2p'") as caught:
        load_prompts("i2q")
    assert "mini" in caught.value.hint and "coco-30k" in caught.value.hint
    assert not set(names_in("sources")) & set(names_in("sets"))


# -- rows in plans ---------------------------------------------------------------------------------------------------
def planned(tmp_path, source, sampler=None, **changes):
    """Images of a task with targets only, and the content key of a plan of them."""
    path = write_suite(tmp_path / "suite", tasks=[{"id": "one", "targets": ["ab"], "prompts": source}], **changes)
    suite = load_suite(str(path)) if sampler is None else load_suite(str(path)).model_copy(update={"sampler": sampler})
    images = {"one": Images(suite, suite.tasks[0])}
    return list(images["one"]), Plan(suite, None, (), images, ()).content_key()


def test_rows_are_honoured_or_overridden(few, tmp_path):
    write_rows(few, ROWS)
    own, key = planned(tmp_path, {"set": "few"})
    assert [(s.seed, s.sampler.guidance) for s in own] == [(41, 7.0), (4261553411, 12.5), (8, 3.0)]  # 3 is the suite's
    same, again = planned(tmp_path, {"set": "few", "rows": "honour"})
    assert (same, again) == (own, key)
    suites, other = planned(tmp_path, {"set": "few", "rows": "override"})
    assert [(s.seed, s.sampler.guidance) for s in suites] == [(41, 3.0), (4261553411, 3.0), (8, 3.0)] and other != key


def test_the_content_key_is_of_the_file_that_was_found(few, tmp_path):
    def keys(rows):
        write_rows(few, rows)
        return [planned(tmp_path, {"set": "few", "rows": way})[1] for way in ("honour", "override")]

    honour, override = keys(ROWS)
    for changed in (("ab, of 3", 41, 7), ("ab, of 2", 43, 7)):
        assert not set(keys([changed, *ROWS[1:]])) & {honour, override}
    guided = keys([("ab, of 2", 41, 8), *ROWS[1:]])
    assert guided[0] != honour and guided[1] == override  # where it is overridden, a row's guidance shapes nothing
    assert keys(ROWS) == [honour, override]


def test_a_row_may_have_its_size(tmp_path):
    row = PromptRow(prompt_id="a", text="b", concept="c", size=64).prompt()
    sampler = Sampler(size=32)
    assert sampler.for_row(row) == Sampler(size=64) and sampler.for_row(Prompt("a", "b", "c")) is sampler
    path = tmp_path / "own.csv"
    path.write_text("prompt_id,text,concept,size\na,ab x,ab,16\nb,ab y,ab,\n")
    sizes = [[s.sampler.size for s in planned(tmp_path, {"set": str(path), "rows": way})[0]] for way in ("honour", "override")]
    assert sizes == [[16, None], [None, None]]
    path.write_text("prompt_id,text,concept,size\na,ab x,ab,4\n")
    load_prompts.cache_clear()
    with pytest.raises(UserInputError, match=r"own.csv:2: size.*greater than or equal to 8"):
        load_prompts(str(path))


def test_what_is_usual_is_not_written():
    """A suite that says nothing of it keeps its content key."""
    assert PromptSource(set="mini").model_dump() == {"set": "mini", "split": "heldout"}
    assert PromptSource(set="mini", rows="override", role="target", clusters="image").model_dump(mode="json") == {
        **{"set": "mini", "split": "heldout", "rows": "override"},
        **{"role": "target", "clusters": "image"},
    }


def test_images_as_draws_of_one_prompt(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("prompt_id,text,concept\na,ab x,ab\n")
    draws, prompts = ([*planned(tmp_path, {"set": str(path), "clusters": c}, images_per_prompt=3)[0]] for c in ("image", "prompt"))
    assert [(s.prompt_id, s.number) for s in draws] == [("a-0", 0), ("a-1", 0), ("a-2", 0)]
    assert [(s.prompt_id, s.number) for s in prompts] == [("a", 0), ("a", 1), ("a", 2)]
    assert [s.seed for s in draws] == [s.seed for s in prompts] and len({s.seed for s in draws}) == 3


def test_only_what_is_kept_is_drawn(tmp_path):
    path = tmp_path / "kept.csv"
    path.write_text("prompt_id,text,concept\na,ef x,ef\n")
    task = {"id": "one", "targets": ["ab"], "unseen": ["ef"], "prompts": {"set": str(path), "role": "retained"}}
    suite = load_suite(str(write_suite(tmp_path / "suite", tasks=[task])))
    assert suite.tasks[0].drawn == {"retained": ("ef",)}
    assert [(s.role, s.concept) for s in Images(suite, suite.tasks[0])] == [("retained", "ef")]
    both = suite.tasks[0].model_copy(update={"prompts": PromptSource(set=str(path))})
    with pytest.raises(UserInputError, match="no heldout prompts for: ab"):
        Images(suite, both)


# -- validate --------------------------------------------------------------------------------------------------------
def with_few(tmp_path):
    path = write_suite(tmp_path / "suite", {n: [f"{n} number {i}" for i in range(20)] for n in ("ab", "ef", "gh")}, base="some/model")
    return change(path, tasks=[{"id": f"task{i}", "targets": ["ab"], "prompts": {"set": "few"}} for i in range(2)])


def test_validate(few, tmp_path):
    path = with_few(tmp_path)
    found = validate(str(path), AROUND)
    assert found.problems == [] and len(found.skipped) == 1
    assert "prompt set 'few': its rows, because it does not ship and is not here" in found.skipped[0] and "hf download owner/few" in found.skipped[0]
    write_rows(few, ROWS[:2])
    (problem,) = validate(str(path), AROUND).errors
    assert problem.path == few and "2 rows, not 3" in problem.message
    write_rows(few, [("ab a", 4, 7), ("ab b", 6, 7), ("ab c", 8, 7)])
    whole = validate(str(path), AROUND)
    assert whole.errors == [] and whole.skipped == [] and "3 prompts" in whole.checked[0]
    assert [p.message.partition(";")[0] for p in whole.warnings] == ["'ab' has 3 distinct heldout prompts in few.csv"]


def test_validate_draws_of_one_prompt(tmp_path):
    path = with_few(tmp_path)
    (tmp_path / "one.csv").write_text("prompt_id,text,concept\na,ef x,ef\n")
    task = {"id": "one", "targets": ["ab"], "retained": ["ef"], "prompts": {"set": str(tmp_path / "one.csv"), "clusters": "image", "role": "retained"}}
    assert validate(str(change(path, tasks=[task])), AROUND).problems == []
    task["prompts"].pop("role")
    assert "no heldout prompts for 'ab'" in validate(str(change(path, tasks=[task])), AROUND).errors[0].message
