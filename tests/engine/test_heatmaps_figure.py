from __future__ import annotations

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from conceptbench.engine.figures.heatmaps import GAP, HEAD, HEATS, LEAST_TOP, TILE, colours_of, density, heatmap_panel, overlay, resized, scale_top, strip

HOSTILE = "<script>\"'&</script>"


def arrays(number=1, heads=8, side=8, seed=0, size=32, **more):
    rng = np.random.default_rng(seed)
    return {
        "images": rng.integers(0, 256, (number, size, size, 3), dtype=np.uint8),
        "mean": rng.random((number, side, side)).astype(np.float32) * 0.01,
        "heads": rng.random((number, heads, side, side)).astype(np.float32) * 0.01,
        **more,
    }


def parsed(markup):
    """As XML, to see that all is closed and escaped; elements without an end are given one."""
    return ElementTree.fromstring(re.sub(r"<(img|input|br)([^>]*)>", r"<\1\2/>", str(markup).replace(' xmlns="http://www.w3.org/2000/svg"', "")))


def pictures(markup):
    uris = [e.get("src") for e in parsed(markup).iter("img")]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(u.partition(",")[2])))) for u in uris]


def lightness(rgb):
    """CIE L*, by its definition, from sRGB."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in rgb)]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def test_colours_grow_lighter_evenly():
    steps = np.diff([lightness(c) for c in HEATS])
    assert steps.min() > 0.6 * steps.mean() and steps.max() < 1.5 * steps.mean()
    assert np.array_equal(colours_of(np.array([-1, 0, 0.5, 1, 9])), [HEATS[0], HEATS[0], HEATS[4], HEATS[-1], HEATS[-1]])
    assert np.allclose(colours_of(np.array(1 / 16)), (np.array(HEATS[0]) + HEATS[1]) / 2)


def test_density_is_over_the_mean_and_nothing_stays_nothing():
    assert np.allclose(density(np.array([[0.0, 2], [1, 1]])), [[0, 2], [1, 1]]) and not density(np.zeros((3, 3))).any()
    assert np.allclose(density(np.array([np.full((2, 2), 5.0), np.full((2, 2), 1e-6)])), 1)


def test_one_scale_for_all_models_and_an_even_map_looks_even():
    spot = np.zeros((2, 2))
    spot[0, 0] = 1
    assert scale_top([np.ones((2, 2))]) == LEAST_TOP and scale_top([np.ones((2, 2)), spot]) == 4
    grey = np.full((8, 8, 3), 90, np.uint8)
    even = overlay(grey, np.full((4, 4), 0.01), LEAST_TOP, 16)
    assert (even == even[0, 0]).all() and np.allclose(even[0, 0], 0.8 * np.array(HEATS[4]), atol=1)


def test_the_map_lies_where_it_is_hot_and_the_image_is_seen_through_it():
    hot = np.zeros((8, 8))
    hot[:4] = 1
    grey = np.full((8, 8, 3), 90, np.uint8)
    drawn = overlay(grey, hot, 2, 64).astype(int)
    assert drawn[:24].mean() > drawn[40:].mean() + 60 and drawn.shape == (64, 64, 3)
    half = grey.copy()
    half[:, 4:] = 250
    seen = overlay(half, np.ones((8, 8)), 2, 64).astype(int)
    assert seen[:, 40:].mean() > seen[:, :24].mean() + 30
    assert np.array_equal(overlay(grey + 100, hot, 2, 64), overlay(grey, hot, 2, 64))  # brightness as such is no attention


@pytest.mark.parametrize("size", [32, 300])
def test_a_line_has_the_image_its_map_and_every_head_in_its_place(size):
    a = arrays(heads=5, size=size)
    made = strip(a["images"][0], a["mean"][0], a["heads"][0], 2.0)
    assert made.shape == (TILE, 2 * (TILE + GAP) + 3 * HEAD + 2 * GAP, 3)
    assert np.array_equal(made[:, :TILE], resized(a["images"][0], TILE))
    assert np.array_equal(made[:, TILE + GAP : 2 * TILE + GAP], overlay(a["images"][0], a["mean"][0], 2.0, TILE))
    left = 2 * (TILE + GAP)
    for i, (y, x) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        cell = made[y * (HEAD + GAP) :, left + x * (HEAD + GAP) :][:HEAD, :HEAD]
        assert np.array_equal(cell, overlay(a["images"][0], a["heads"][0, i], 2.0, HEAD))
    assert (made[HEAD + GAP :, left + 2 * (HEAD + GAP) :] == 255).all()


def test_models_are_lines_in_their_order_with_the_chosen_prompt():
    rows = [("base", arrays(3, entropy=np.array([0.5, 0.9666, np.nan]))), ("uce", arrays(3, seed=1)), ("esd-x", arrays(1, seed=2))]
    panel = heatmap_panel(rows, 1, concept="church", prompt="a church at night")
    shown = pictures(panel)
    top = scale_top([rows[0][1]["mean"][1], rows[1][1]["mean"][1]])
    for picture, (_, a) in zip(shown, rows[:2], strict=True):  # esd-x has no second image
        exact = strip(a["images"][1], a["mean"][1], a["heads"][1], top).astype(int)
        assert picture.shape == exact.shape and np.abs(picture - exact).mean() < 12  # JPEG of noise
    words = "".join(parsed(panel).itertext())
    assert words.index("base") < words.index("entropy 0.967") < words.index("uce") and "church at night" in words and "esd-x" not in words
    assert "no map" in str(heatmap_panel(rows, 2, concept="church", prompt="p"))


@pytest.mark.parametrize("more", [{}, {"entropy": np.array([0.5])}])
def test_only_data_uris_no_script_and_everything_escaped(more):
    panel = str(heatmap_panel([(HOSTILE, arrays(**more))], concept=HOSTILE, prompt=HOSTILE, explicit=True))
    assert "<script" not in panel and "http" not in panel.replace("http://www.w3.org/2000/svg", "")
    assert all(src.startswith("data:image/jpeg;base64,") for src in re.findall(r'src="([^"]*)"', panel))
    parsed(panel)


def test_explicit_images_are_under_the_veil_and_others_are_not():
    rows = [("base", arrays())]
    veiled = parsed(heatmap_panel(rows, concept="c", prompt="p", explicit=True))
    (label,) = [e for e in veiled.iter("label") if e.get("class") == "veil"]
    assert label[0].tag == "input" and len(list(label.iter("img"))) == len(list(veiled.iter("img"))) == 1
    assert not list(parsed(heatmap_panel(rows, concept="c", prompt="p")).iter("input"))


@pytest.mark.parametrize(("heads", "size"), [(1, 16), (2, 16), (8, 512), (20, 64)])
def test_any_number_of_heads_and_size_of_image(heads, size):
    (picture,) = pictures(heatmap_panel([("base", arrays(heads=heads, size=size, side=64))], concept="c", prompt="p"))
    assert picture.shape[:2] == (TILE, 2 * (TILE + GAP) + -(-heads // 2) * (HEAD + GAP) - GAP)


def test_nothing_to_show_is_nothing():
    assert heatmap_panel([], concept="c", prompt="p") == heatmap_panel([("base", {})], concept="c", prompt="p") == ""
    assert heatmap_panel([("base", arrays())], 1, concept="c", prompt="p") == ""
