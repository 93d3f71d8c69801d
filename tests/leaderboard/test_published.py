"""Published figures: their arithmetic, which finds the papers' faults again."""

from __future__ import annotations

import math
import re

import pytest

from conceptbench.leaderboard.published import Cell, load_published, published_tables

IDS = ["forget-me-not/1", "forget-me-not/text", *(f"kpop/{n}" for n in (2, 3, 4, 5, 6, 7, "text")), *(f"selective-amnesia/{n}" for n in (1, 2, 3, 4, "text"))]
IDS += [f"sepme/{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, "text")]


def at(table, row, column):
    cell = load_published(table).cell(row, column)
    assert cell is not None, (table, row, column)
    return cell


def decimals(text):
    return len(text.partition(".")[2])


def could_be(cell, value, doubt=0.0):
    """Whether a value rounds to what is printed; doubt: what the rounding of its parts may add."""
    return abs(cell.value - value) <= 0.5 * 10 ** -decimals(cell.text) + doubt + 1e-9


def is_multiple(cell, scale, n):
    """Whether a printed number is a share of n images, times scale."""
    whole = round(cell.value * n / scale)
    return any(could_be(cell, k * scale / n) for k in (whole - 1, whole, whole + 1))


def all_cells():
    return [(table, cell) for table in published_tables() for cell in load_published(table).cells]


# -- what there is ------------------------------------------------------------------------------------------------------
def test_all_tables_are_there():
    assert published_tables() == IDS
    assert {table: len(load_published(table).cells) for table in ("forget-me-not/1", "kpop/2", "selective-amnesia/1", "sepme/4", "sepme/5")} == {
        "forget-me-not/1": 28,
        "kpop/2": 28,
        "selective-amnesia/1": 50,
        "sepme/4": 168,
        "sepme/5": 336,
    }


def test_numbers_are_in_the_range_of_their_unit():
    limits = {"%": (0, 100), "rate": (0, 1), "probability": (0, 1), "cosine": (-1, 1), "cosine x 100": (0, 100), "nats": (0, math.log(10))}
    for table, cell in all_cells():
        low, high = limits.get(cell.unit, (0, math.inf) if cell.unit != "sum" else (-9, 9))
        assert low <= cell.value <= high, (table, cell)
        assert cell.unit not in ("count", "steps") or cell.value == int(cell.value), (table, cell)


def test_text_and_number_are_the_same():
    cell = at("kpop/2", "SD", "ESR-1")
    assert (cell.text, cell.value, cell.spread_text, cell.spread, cell.printed) == ("22.0", 22.0, "11.6", 11.6, "22.0 ± 11.6")
    assert at("sepme/2", "VG+PC+CE | VG*", "ORI | ACC").printed == "1." and at("kpop/3", "Ours", "NER-0.8").printed == "0.0"
    assert all(cell.value == float(cell.text) and (cell.spread is None) == (cell.spread_text == "") for _, cell in all_cells())


def test_a_fault_whose_right_value_is_known_says_it_first():
    corrected = {(table, cell.row, cell.column): cell.must_be for table, cell in all_cells() if cell.must_be is not None}
    assert len(corrected) == 14
    assert corrected["kpop/6", "down-mid-up", "ESR-1"] == "99.64 or 99.68"
    assert all(cell.must_be is not None or not any("must be" in note for note in cell.notes) for _, cell in all_cells())


# -- known sums, and faults exactly where the notes are -----------------------------------------------------------------
def test_kpop_unmodified_model_and_complementary_splits_make_100():
    for k in (1, 5):
        esr, psr = at("kpop/2", "SD", f"ESR-{k}"), at("kpop/2", "SD", f"PSR-{k}")
        assert esr.value + psr.value == pytest.approx(100) and esr.spread == psr.spread


@pytest.mark.parametrize("table", ["kpop/2", "kpop/5", "kpop/6"])
def test_kpop_top_five_has_more_than_top_one(table):
    for row in load_published(table).rows:
        assert at(table, row, "ESR-5").value <= at(table, row, "ESR-1").value and at(table, row, "PSR-5").value >= at(table, row, "PSR-1").value


def largest_spread(mean, n):
    """Of n numbers from 0 to 100 with this mean: as many as can be are 100, the others 0 but one."""
    full, rest = divmod(n * mean, 100)
    values = ([100.0] * int(full) + [rest] + [0.0] * n)[:n]
    return math.sqrt(sum((v - mean) ** 2 for v in values) / n)


def test_kpop_spreads_over_four_splits_are_possible_but_for_one():
    cells = load_published("kpop/2").cells
    wrong = [cell for cell in cells if cell.spread > largest_spread(cell.value, 4) + 0.1]
    assert [(cell.row, cell.column) for cell in wrong] == [("CA", "ESR-5")] == [(cell.row, cell.column) for cell in cells if cell.notes]
    assert wrong[0].spread == at("kpop/2", "CA", "PSR-5").spread


def test_kpop_rates_are_shares_of_whole_images_but_for_one():
    shares = [cell for table in ("kpop/5", "kpop/6") for cell in load_published(table).cells if cell.column != "NER"]
    assert [cell for cell in shares if not is_multiple(cell, 100, 5 * 500)] == [at("kpop/6", "down-mid-up", "ESR-1")]
    assert [float(value) * 25 for value in at("kpop/6", "down-mid-up", "ESR-1").must_be.split(" or ")] == pytest.approx([2491, 2492])
    exposed = [cell for table in ("kpop/3", "kpop/5", "kpop/text") for cell in load_published(table).cells if cell.column.startswith("NER")]
    assert len(exposed) == 16 + 6 + 1 and all(is_multiple(cell, 100, 4703) for cell in exposed)


def test_kpop_prompt_of_size_ten_is_the_concatenated_one():
    def right(row, column):
        return float(at("kpop/5", row, column).must_be or at("kpop/5", row, column).text)

    assert all(right("Concat", column) == right("k=10", column) for column in load_published("kpop/5").columns)
    assert right("Additive", "NER") - right("Concat", "NER") == pytest.approx(0.3)  # as the text says
    assert at("kpop/5", "Concat", "NER").must_be == "1.70" and at("kpop/5", "Additive", "NER").must_be == at("kpop/5", "Concat", "NER").text
    assert all(at("kpop/6", "mid", column).text == at("kpop/5", "Concat", column).text for column in load_published("kpop/6").columns)


def test_kpop_differences_in_the_text_are_not_those_of_the_table():
    for row, column, sign in (("Ours* above UCE*", "PSR-1", 1), ("Ours* below UCE*", "PSR-5", -1)):
        difference = sign * (at("kpop/2", "Ours*", column).value - at("kpop/2", "UCE*", column).value)
        assert float(at("kpop/text", row, column).must_be) == pytest.approx(difference)
        assert at("kpop/text", row, column).value != pytest.approx(difference)


def test_kpop_styles_and_fid_have_their_notes():
    assert all(any("not comparable" in note for note in cell.notes) for cell in load_published("kpop/4").cells)
    fid = {row: at("kpop/3", row, "FID") for row in load_published("kpop/3").rows}
    assert min(fid, key=lambda row: fid[row].value) == "UCE" and [row for row, cell in fid.items() if cell.notes] == ["Ours"]


def test_selective_amnesia_precision_and_recall_are_swapped_in_every_row():
    for cell in load_published("selective-amnesia/1").cells:
        other = {"Precision": "recall", "Recall": "precision"}.get(cell.column)
        assert [bool(re.search(f"this is (then )?the {other} of the model", note)) for note in cell.notes] == ([True] if other else [])


def test_selective_amnesia_spread_of_a_probability_is_possible_but_for_one():
    cells = [cell for cell in load_published("selective-amnesia/2").cells if cell.spread is not None]
    assert len(cells) == 8
    wrong = [cell for cell in cells if cell.spread > math.sqrt(cell.value * (1 - cell.value)) + 0.001]
    assert wrong == [cell for cell in cells if cell.notes] == [at("selective-amnesia/2", "SD v1.4 (original)", "Forget Angelina Jolie | GCD Score")]


def total(table, method, quantity, erased, kept):
    return math.fsum(at(table, row, f"{method} | {quantity}").value for row in erased) - math.fsum(
        at(table, row, f"{method} | {quantity}").value for row in kept
    )


@pytest.mark.parametrize(("table", "kept", "faults"), [("sepme/1", "†", []), ("sepme/2", "Others†", ["FMN30 | ACC", "ESD | ACC", "AbConcept | ACC"])])
def test_sepme_sigma_is_the_sum_of_its_cells_but_where_a_note_says_so(table, kept, faults):
    rows = load_published(table).rows
    erased, others = [row for row in rows if row.endswith("*")], [row for row in rows if row.endswith(kept) and row != "Σ* - Σ†"]
    assert (len(erased), len(others)) == ((3, 6) if table == "sepme/1" else (3, 1))
    sigma = [cell for cell in load_published(table).cells if cell.row == "Σ* - Σ†"]
    wrong = []
    for cell in sigma:
        method, _, quantity = cell.column.partition(" | ")
        recomputed = total(table, method, quantity, erased, others)
        if not could_be(cell, recomputed):
            wrong.append(cell)
            assert could_be(Cell(**{**vars(cell), "text": cell.must_be, "value": float(cell.must_be)}), recomputed)
    assert [cell.column for cell in wrong] == faults == [cell.column for cell in sigma if cell.must_be is not None]


def test_sepme_averages_are_those_of_the_classes_but_where_a_note_says_so():
    averages = [cell for cell in load_published("sepme/7").cells if cell.row == "average"]
    classes = [row for row in load_published("sepme/7").rows if row not in ("average", "‖Δθ‖p")]
    assert len(averages) == 18 and len(classes) == 9
    mean = {cell.column: math.fsum(at("sepme/7", row, cell.column).value for row in classes) / 9 for cell in averages}
    wrong = [cell for cell in averages if not could_be(cell, mean[cell.column], doubt=0.0005 if "Others" in cell.column or "LPIPS" in cell.column else 0)]
    assert {cell.column: cell.must_be for cell in wrong} == {"FMN20 | Erased | ACC": "0.56", "AbConcept | Others | LPIPS": "0.198"}
    assert [cell for cell in averages if cell.must_be is not None] == wrong
    assert all(f"{mean[cell.column]:.{decimals(cell.text)}f}" == cell.must_be for cell in wrong)


def test_sepme_accuracies_of_objects_are_of_fifty_images_as_the_note_says():
    for table in ("sepme/7", "sepme/8"):
        for cell in load_published(table).cells:
            own = cell.column.endswith("ACC") and "Others" not in cell.row + cell.column and cell.row != "average"
            assert own == any("as of 50 images" in note for note in cell.notes), cell
            assert not own or is_multiple(cell, 1, 50), cell


def test_sepme_accuracies_of_styles_are_of_250_images():
    cells = [cell for n in range(1, 7) for cell in load_published(f"sepme/{n}").cells if cell.unit == "rate" and "Others" not in cell.row + cell.column]
    assert len(cells) > 300 and all(is_multiple(cell, 1, 250) for cell in cells)


ONE = {"VG": ("+Δθ1", "Van Gogh", "-5e-4"), "CE": ("+Δθ2", "Cezanne", "0."), "PC": ("+Δθ3", "Picasso", "0.")}


@pytest.mark.parametrize(("block", "column"), [("AbConcept", "AbConcept"), ("G-CiRs", "Ours-G-CiRs")])
def test_sepme_erasures_of_one_style_are_the_same_in_all_tables(block, column):
    """Where Table 1 differs from the others, its note has what they have."""
    for erased, (step, name, tau) in ONE.items():
        for style, (_, other, _) in ONE.items():
            for quantity in ("ACC", "LPIPS"):
                first = at("sepme/1", f"{erased} | {style}{'*' if style == erased else '†'}", f"{column} | {quantity}")
                same = [at("sepme/3", f"{block} | {style}", f"{erased} | {quantity}"), at("sepme/4", f"{block} | {style}", f"{step} | {quantity}")]
                same += [at("sepme/6", f"{name} | {tau}", f"{other} | {quantity}")] if block == "G-CiRs" else []
                assert {cell.text for cell in same} == {first.must_be or first.text}, first


def test_sepme_details_of_table_5_are_those_of_table_4():
    blocks = {"SepME1": "SepME1", "SepME2": "SepME2", "AbConcept": "AbConcept (xattn)", "G-CiRs": "G-CiRs (xattn)"}
    for cell in load_published("sepme/4").cells:
        block, _, style = cell.row.partition(" | ")
        assert at("sepme/5", f"{blocks[block]} | {style}", cell.column).text == cell.text


@pytest.mark.parametrize(
    ("noted", "other"),
    [
        (("sepme/2", "VG+PC+CE | PC*", "AbConcept | ACC"), ("sepme/3", "AbConcept | {}", "VG+CE+PC | {}")),
        (("sepme/2", "VG+PC+CE | PC*", "Ours-G-CiRs | LPIPS"), ("sepme/3", "G-CiRs | {}", "VG+CE+PC | {}")),
        (("sepme/3", "AbConcept | PC", "VG+CE+PC | ACC"), ("sepme/2", "VG+PC+CE | {}*", "AbConcept | {}")),
        (("sepme/3", "G-CiRs | PC", "VG+CE+PC | LPIPS"), ("sepme/2", "VG+PC+CE | {}*", "Ours-G-CiRs | {}")),
    ],
)
def test_sepme_notes_quote_the_other_table_as_it_is(noted, other):
    table, row, column = other
    note = next(note for note in at(*noted).notes if note.startswith(f"Table {table[-1]} has"))
    quotes = re.findall(r"(VG|CE|PC) ([\d./]+\d)", note)
    assert len(quotes) == (3 if "AbConcept" in str(noted) else 2)
    for style, quote in quotes:
        accuracy, distance = (at(table, row.format(style), column.format(quantity)).text for quantity in ("ACC", "LPIPS"))
        assert quote == (f"{accuracy}/{distance}" if "/" in quote else distance)


@pytest.mark.parametrize(("step", "row"), [("+Δθ1", "Van Gogh | -5e-4"), ("+Δθ3", "Picasso | 0.")])
def test_sepme_tables_5_and_6_say_that_they_differ(step, row):
    fifth, sixth = at("sepme/5", "G-CiRs (xattn) | Others", f"{step} | ACC"), at("sepme/6", row, "Others | ACC")
    assert fifth.text != sixth.text
    assert f"Table 6 has {sixth.text} for the same erasure" in fifth.notes and f"Table 5 has {fifth.text} for the same erasure" in sixth.notes


def test_sepme_two_says_where_its_first_step_differs_from_gcirs():
    for cell in load_published("sepme/4").cells:
        block, _, style = cell.row.partition(" | ")
        if block == "SepME2" and cell.column.startswith("+Δθ1 |"):
            other = at("sepme/4", f"G-CiRs | {style}", cell.column).text
            assert [other in note for note in cell.notes if "first step is G-CiRs on VG, for which" in note] == ([True] if other != cell.text else [])
