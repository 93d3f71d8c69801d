"""Class-conditional bases through the whole harness: plan, store, judges, reference sets, results and page."""

from __future__ import annotations

import pytest
import yaml
from calling import cli  # noqa: F401 - a fixture

from conceptbench.core.manifests import find_manifest, load_suite
from conceptbench.core.results import from_csv

SUITES = ("sa-digits", "sa-digits-ablation", "sa-mnist", "sa-cifar10", "sa-stl10")
QUICK = "sa:mini,gamma=1,surrogate_images=50,replay_images=200,fisher_images=20"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """sa-digits with fewer images."""
    path = tmp_path_factory.mktemp("suite") / "small.yaml"
    suite = yaml.safe_load(find_manifest("suites", "sa-digits", ".yaml").read_text())
    for metric in suite["metrics"]:
        if "n" in metric.get("options", {}):
            metric["options"]["n"] = 90
    path.write_text(yaml.safe_dump({**suite, "name": "small", "images_per_prompt": 20}))
    return path


def rows_of(output):
    rows = from_csv((output / "leaderboard.csv").read_text(), "leaderboard.csv")
    return {(r.eraser, r.role, r.concept, r.metric): r for r in rows}


def test_a_digit_is_forgotten(small, tmp_path, cli):
    arguments = ["run", str(small), "-e", f"{QUICK},steps=800", "--store", str(tmp_path / "s"), "--output", str(tmp_path / "o")]
    code, _, err = cli(*arguments)
    assert code == 0, err
    rows = rows_of(tmp_path / "o")
    before, after = (rows[e, "target", "*", "class_probability"] for e in ("base", "sa-full"))
    assert before.value > 0.9 and after.value < 0.25 and after.delta_high < 0
    assert rows["sa-full", "target", "*", "entropy"].delta_low > 0
    kept = rows["sa-full", "retained", "*", "psr-1"]
    assert kept.value > 0.9 and (kept.n_scored, kept.clusters) == (180, 180)  # every image of a class is a draw of its own
    assert rows["base", "retained", "*", "fid"].value < rows["base", "target", "*", "fid"].value
    code, _, err = cli(*arguments)
    assert code == 0 and "made 0 erasures and 0 images" in err
    assert "digit 0" in (tmp_path / "o" / "report.html").read_text()


def test_a_diffusion_model_end_to_end(small, tmp_path, cli):
    suite = yaml.safe_load(small.read_text())
    path = tmp_path / "ddpm.yaml"
    sampler = {"scheduler": "ddpm", "steps": 3, "guidance": 3.0}
    path.write_text(yaml.safe_dump({**suite, "name": "tiny", "base": "digits-ddpm", "sampler": sampler, "images_per_prompt": 4}))
    sa = f"{QUICK.replace('mini', 'paper')},steps=2,batch=4,fisher_timesteps=3"
    code, out, err = cli("plan", str(path), "-e", sa, "--store", str(tmp_path / "s"))
    assert code == 0 and "1 to make" in out, err
    code, _, err = cli("run", str(path), "-e", sa, "-e", "retrain:mini,steps=2", "--store", str(tmp_path / "s"), "--output", str(tmp_path / "o"))
    assert code == 0, err
    rows = rows_of(tmp_path / "o")
    assert {e for e, *_ in rows} == {"base", "sa-full", "retrain"}
    assert rows["retrain", "model", "*", "weight_change-relative-l2"].value > 0.5  # it begins anew
    code, _, err = cli("run", str(path), "-e", "esd-x", "--store", str(tmp_path / "s"))
    assert code == 2 and "esd-x cannot erase from family 'ddpm'" in err


@pytest.mark.parametrize("name", SUITES)
def test_shipped_suites(name, cli):
    suite = load_suite(name)
    (task,) = suite.tasks
    assert len(task.targets) == 1 and len(task.retained) == 9
    code, out, err = cli("validate", name)
    assert code == 0, out + err


def test_what_is_not_here_says_how_to_get_it(tmp_path, monkeypatch, cli):
    monkeypatch.setenv("CONCEPTBENCH_DATA", str(tmp_path))
    code, _, err = cli("plan", "sa-mnist")
    assert code == 2 and "conceptbench train cvae mnist" in err, err
    code, _, err = cli("train", "cvae", "mnist", "--output", str(tmp_path / "m"))
    assert code == 2 and "--download" in err and str(tmp_path) in err, err
