from __future__ import annotations

from fractions import Fraction
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptbench.core.errors import UserInputError
from conceptbench.models.combine import Term, as_additive, combine, parse
from conceptbench.models.erasure import Change, Erasure, RuntimeSpec

NAMES = ("a", "b", "c")


def additive(seed, *, concept=None, scale=1.0, names=("w.weight", "v.weight"), base=None):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.pow(10.0, torch.randint(-6, 3, (3, 4), generator=generator).float())  # so that rounding shows
    return Erasure(
        [Change("unet", "additive", {n: scale * spread * torch.randn(3, 4, generator=generator) for n in names}, concept)], meta={"base": base} if base else {}
    )


LOADED = {n: additive(i) for i, n in enumerate(NAMES)}


def tensors(erasure):
    return {(c.component, c.concept, n): t for c in erasure.changes for n, t in c.tensors.items()}


# -- reading expressions -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("a", "a", "a"),
        ("a+b-c", "a b c", "a b -c"),
        (" a  +0.5*b", "a b", "a 0.5*b"),
        ("-2*a + .25 * b", "a b", "-2*a 0.25*b"),
        ("1e-3*a+a", "a", "0.001*a a"),
        ("esd-x+uce-esd-x-strict", "esd esd-x esd-x-strict uce", "esd-x uce -esd-x-strict"),
        ("esd-x-uce", "esd-x uce", "esd-x -uce"),
        ("a - b", "a b a-b", "a -b"),
        ("'a-b'+a", "a b a-b", "a-b a"),
        ('a-"a-b"', "a b a-b", "a -a-b"),
        ("2.5-x", "2.5-x", "2.5-x"),
    ],
)
def test_expressions(text, names, expected):
    def term(word):
        factor, star, name = word.partition("*")
        if not star:
            factor, name = ("-1", word[1:]) if word.startswith("-") else ("1", word)
        return Term(name, Fraction(factor))

    assert parse(text, dict.fromkeys(names.split())) == [term(w) for w in expected.split()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a-b", ["2 ways", "'a-b'; or", "'a' - 'b'", "put spaces around operators, or quotes"]),
        ("", ["empty", "known: a, a-b, b, esd-x"]),
        ("a+", ["no sum of names"]),
        ("a b", ["no sum of names"]),
        ("a++b", ["no sum of names"]),
        ("a*2", ["no sum of names", "0.5*NAME"]),
        ("1e999999999*a", ["no sum of names"]),
        ("esd-y+a", ["unknown name 'esd-y'; did you mean 'esd-x'?"]),
        ("a+sed-x", ["unknown name 'sed-x'; did you mean 'esd-x'?"]),
        ("a - zz", ["unknown name 'zz'"]),
        ("'zz'", ["unknown name 'zz'"]),
    ],
)
def test_expressions_that_cannot_be_read(text, words):
    with pytest.raises(UserInputError) as caught:
        parse(text, dict.fromkeys(["a", "b", "a-b", "esd-x"]))
    assert all(w in str(caught.value) for w in words), str(caught.value)


def test_nothing_loaded():
    with pytest.raises(UserInputError, match="no erasures are loaded"):
        combine("a", {})


# -- sums --------------------------------------------------------------------------------------------------------------------
TERMS = st.lists(st.tuples(st.sampled_from("+-"), st.sampled_from(["", "0.5*", "3*", "0.1*", "1e-4*"]), st.sampled_from(NAMES)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(TERMS, st.randoms())
def test_the_sum_is_the_same_bits_in_any_order_and_right(terms, random):
    """Oracle: exact sums of fractions, element by element; one rounding to float32."""
    text = "".join("".join(t) for t in terms)
    total = combine(text, LOADED)
    shuffled = list(terms)
    random.shuffle(shuffled)
    again = combine(" ".join(" ".join(t) for t in shuffled), LOADED)
    assert again.weights_hash() == total.weights_hash()
    factors = {n: sum((Fraction(t[1].rstrip("*") or "1") * (-1 if t[0] == "-" else 1) for t in terms if t[2] == n), Fraction(0)) for n in NAMES}
    found = tensors(total)
    for name in ("w.weight", "v.weight"):
        got = found.get(("unet", None, name), torch.zeros(3, 4))
        for i in range(12):
            parts = [factors[n] * Fraction(LOADED[n].changes[0].tensors[name].flatten()[i].item()) for n in NAMES]
            expected = float(sum(parts, Fraction(0)))
            slack = 1e-7 * abs(expected) + 1e-15 * float(sum(abs(p) for p in parts)) + 1e-44
            assert abs(got.flatten()[i].item() - expected) <= slack


@settings(max_examples=40, deadline=None)
@given(TERMS)
def test_what_is_added_and_taken_away_is_nothing(terms):
    """Also where float sums would leave a rest: 0.1 + 0.2 - 0.3."""
    text = "".join("".join(t) for t in terms)
    inverse = "".join(("-" if s == "+" else "+") + f + n for s, f, n in reversed(terms))
    assert combine(text + inverse, LOADED).changes == [] and combine("0.1*a+0.2*a-0.3*a+b", LOADED).weights_hash() == combine("b", LOADED).weights_hash()


def test_order_does_not_matter_where_float64_rounds():
    """1 + 2^-60 - 1 is 0 or 2^-60, by the order; here it is always the same."""
    loaded = {n: Erasure([Change("unet", "additive", {"w": torch.tensor([v])})]) for n, v in {"a": 1.0, "b": 2.0**-60, "c": -1.0}.items()}
    assert len({combine("+".join(order), loaded).weights_hash() for order in permutations(loaded)}) == 1


def test_names_of_equal_weights_do_not_matter():
    assert combine("a-x", {**LOADED, "x": additive(0)}).changes == []
    assert combine("a+b", LOADED).weights_hash() == combine("x+b", {"x": LOADED["a"], "b": LOADED["b"]}).weights_hash()


def delta(base, seed, group="kv", concept=None):
    generator = torch.Generator().manual_seed(seed)
    return Change("unet", "additive", {n: 0.3 * torch.randn(p.shape, generator=generator) for n, p in base.parameters(group).items()}, concept)


def low_rank(base, seed, concept=None):
    generator, made = torch.Generator().manual_seed(seed), {}
    for n, p in list(base.parameters("noxattn").items()):
        if p.dim() == 4:
            made[f"{n}::A"], made[f"{n}::B"] = torch.randn((2, *p.shape[1:]), generator=generator), torch.randn((p.shape[0], 2), generator=generator)
    return Change("unet", "low-rank", made, concept)


def values(base, erasure=None):
    if erasure is None:
        return {n: p.detach().clone() for n, p in base.unet.named_parameters()}
    with erasure.applied(base):
        return values(base)


def test_a_sum_applied_is_the_base_and_all_differences(sd1):
    one, two = Erasure([delta(sd1, 1)]), Erasure([low_rank(sd1, 2), delta(sd1, 3, "xattn")])
    before, now = values(sd1), values(sd1, combine("one - 0.5*two", {"one": one, "two": two}))
    after = {k: values(sd1, e) for k, e in {"one": one, "two": two}.items()}
    for n, w in before.items():
        assert torch.allclose(now[n], w + (after["one"][n] - w) - 0.5 * (after["two"][n] - w), atol=2e-6), n
    assert any(not torch.equal(now[n], before[n]) for n in before if "conv1" in n)


def test_concepts_stay_separable_where_something_is_added():
    dog, cat, both = (
        additive(1, concept="dog"),
        additive(2, concept="cat"),
        Erasure([additive(3, concept="dog").changes[0], additive(4, concept="cat").changes[0]]),
    )
    loaded = {"dog": dog, "cat": cat, "both": both, "plain": additive(5)}
    assert combine("dog+cat+plain", loaded).concepts() == ["cat", "dog"]
    total = combine("both - cat", loaded)
    assert total.concepts() == ["cat", "dog"] and torch.allclose(
        tensors(total)["unet", "cat", "w.weight"], both.changes[1].tensors["w.weight"] - cat.changes[0].tensors["w.weight"]
    )
    assert combine("dog-cat", loaded).concepts() == ["dog"], "what is only taken away erases no concept"


def test_the_record_of_a_sum():
    base = {"unet": "x"}
    total = combine("a - 0.5*b", {"a": additive(1, base=base), "b": additive(2, base=base)})
    assert total.meta["base"] == base and total.meta["combination"]["expression"] == "a - 0.5*b"
    assert total.meta["combination"]["terms"][1] == {"name": "b", "factor": "-1/2", "weights": additive(2).weights_hash()}
    assert (total.hidden, total.artefacts, total.runtime) == ({}, {}, None)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (Erasure([Change("unet", "replacement", {"w.weight": torch.ones(3, 4)})]), "'x' holds a replacement of unet.*\n.*as_additive"),
        (Erasure([Change("unet", "mask", {"w.weight": torch.ones(3, 4)})]), "'x' holds a mask"),
        (Erasure(runtime=RuntimeSpec("negative-prompt", {"text": "t"})), r"'x' works while sampling \(negative-prompt\)"),
        (additive(1, base={"unet": "other"}), "different bases: unet differ"),
        (Erasure([Change("unet", "additive", {"w.weight": torch.ones(2, 4)})]), r"w\.weight in shape \(\d, 4\), another term in \(\d, 4\)"),
        (Erasure([Change("unet", "additive", {"w.weight": torch.full((3, 4), 3e38)})]), r"not finite in unet\.w\.weight"),
    ],
)
def test_terms_that_cannot_be_added(other, words):
    with pytest.raises(UserInputError, match=words):
        combine("a + 2*x", {"a": additive(0, base={"unet": "one"}), "x": other})


# -- replacements as differences -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["additive", "low-rank", "replacement", "mask"])
def test_as_additive_gives_the_same_weights(sd1, kind):
    name, weight = next(iter(sd1.parameters("kv").items()))
    d = torch.randn(weight.shape)
    made = {f"{name}::A": d[:2], f"{name}::B": torch.randn(len(d), 2)} if kind == "low-rank" else {name: d}
    erasure = Erasure([Change("unet", kind, made, "dog")], None, {"p": torch.ones(1)}, {"h": torch.ones(1)}, {"eraser": "me"})
    again = as_additive(erasure, sd1)
    assert [c.kind for c in again.changes] == ["additive"] and again.concepts() == ["dog"] and again.meta == {"eraser": "me"} and "h" in again.hidden
    now, expected = values(sd1, again), values(sd1, erasure)
    assert all(torch.allclose(now[n], t, atol=5e-7) for n, t in expected.items()) and not torch.equal(now[name], weight)


def test_as_additive_of_changes_on_top_of_each_other(sd1):
    name, weight = next(iter(sd1.parameters("kv").items()))

    def change(kind, seed, concept):
        return Change("unet", kind, {name: torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))}, concept)

    erasure = Erasure([change("additive", 1, "a"), change("mask", 2, "b"), change("replacement", 3, "c"), change("additive", 4, "d")])
    again = as_additive(erasure, sd1)
    assert again.concepts() == [], "what b erases alone depends on a"
    assert torch.allclose(values(sd1, again)[name], values(sd1, erasure)[name], atol=1e-6)
    apart = Erasure([change("additive", 1, "a"), change("additive", 2, "b")])
    assert as_additive(apart, sd1).concepts() == ["a", "b"]


def test_as_additive_of_what_changes_nothing_or_does_not_fit(sd1):
    name, weight = next(iter(sd1.parameters("kv").items()))
    assert as_additive(Erasure([Change("unet", "replacement", {name: weight.detach().clone()})]), sd1).changes == []
    with pytest.raises(UserInputError, match=r"no\.such"):
        as_additive(Erasure([Change("unet", "additive", {"no.such": torch.ones(1)})]), sd1)


def test_replacements_can_be_added_after_all(sd1):
    state = values(sd1)
    names = list(sd1.parameters("kv"))
    loaded = {k: as_additive(Erasure([Change("unet", "replacement", {n: state[n] + i})]), sd1) for i, (k, n) in enumerate(zip("ab", names, strict=False), 1)}
    now = values(sd1, combine("a+b", loaded))
    assert torch.allclose(now[names[0]], state[names[0]] + 1, atol=1e-6) and torch.allclose(now[names[1]], state[names[1]] + 2, atol=1e-6)
