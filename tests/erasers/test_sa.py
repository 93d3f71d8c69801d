from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import yaml
from erasing import (
    KEPT,
    SAMPLER,
    TARGET,
    Images,
    assert_base_untouched,
    assert_changes_only,
    assert_falls,
    assert_seeded,
    request,
    snapshot,
    stopped_and_resumed,
)

from conceptbench.core.errors import UserInputError
from conceptbench.core.schemas import Concept
from conceptbench.erasers import sa
from conceptbench.erasers.sa import SAConfig, SelectiveAmnesia, names
from conceptbench.erasers.shared import fisher as fishers
from conceptbench.erasers.shared.fisher import ewc_penalty, fisher_information, fisher_of, selective_amnesia_loss
from conceptbench.erasers.shared.references import References
from conceptbench.models.groups import select

QUICK = {
    "steps": 3,
    "batch": 2,
    "lr": 1e-3,
    "lam": 1.0,
    "parameters": "xattn",
    "surrogate_images": 4,
    "replay_texts": ("x y", "a z"),
    "replay_images": 4,
    "fisher_images": 2,
    "fisher_timesteps": 4,
}


def erase(base, context=None, *targets, retained=(KEPT,), **options):
    return SelectiveAmnesia().erase(base, request(*targets, retained=retained), SAConfig(**{**QUICK, **options}), context or Images())


def by_hand(base, group, x, texts, t, noise, to_sum=True):
    """For one group: the gradient of each row's mean squared error, one row after the other: a list of {name: gradient}."""
    parameters = select(base.unet, group)
    for p in parameters.values():
        p.requires_grad_(True)
    found = []
    for i in range(len(t)):
        a = base.alphas[t[i]]
        x_t = a.sqrt() * x[i] + (1 - a).sqrt() * noise[i]
        v = base.train_scheduler.config.prediction_type == "v_prediction"
        goal = a.sqrt() * noise[i] - (1 - a).sqrt() * x[i] if v else noise[i]
        out = base.predict(x_t[None], t[i], base.encode([texts[i]]), to="native")[0]
        grads = torch.autograd.grad(((out - goal) ** 2).mean(), list(parameters.values()), allow_unused=True)
        found.append({n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), grads, strict=True)})
    for p in parameters.values():
        p.requires_grad_(False)
    return found


def test_fisher_equals_a_loop_over_timesteps(base, monkeypatch):
    monkeypatch.setattr(fishers, "FISHER_ROWS", 3)  # 4 timesteps: a whole part and a rest
    torch.manual_seed(0)
    images = References(torch.randn(5, *base.latent_shape(None)), ["x y", "a", "b", "c", "d"])
    before, ticks = snapshot(base), []
    fisher = fisher_of(base, images, 2, "xattn", 4, torch.Generator().manual_seed(9), lambda: ticks.append(1))
    assert len(ticks) == 2  # one an image: a session may be asked to stop
    assert_base_untouched(base, before)
    generator = torch.Generator().manual_seed(9)
    t = torch.tensor([125, 375, 625, 875])
    wanted, squares = {n: torch.zeros_like(f) for n, f in fisher.items()}, {n: torch.zeros_like(f) for n, f in fisher.items()}
    for i in torch.randperm(5, generator=generator)[:2].tolist():
        noise = torch.cat([torch.randn((k, *base.latent_shape(None)), generator=generator) for k in (3, 1)])
        each = by_hand(base, "xattn", images.latents[[i] * 4], [images.texts[i]] * 4, t, noise)
        for n in wanted:
            wanted[n] += (250 * sum(g[n] for g in each)) ** 2 / 2
            squares[n] += sum((250 * g[n]) ** 2 for g in each) / 2
    for n in wanted:
        assert torch.allclose(fisher[n], wanted[n], rtol=1e-3, atol=1e-5 * float(wanted[n].max()) + 1e-12), n
    ratio = sum(float(f.sum()) for f in fisher.values()) / sum(float(s.sum()) for s in squares.values())
    assert abs(ratio - 1) > 0.1  # not the sum of squares


def test_all_timesteps_are_each_one_once(sd1, monkeypatch):
    seen = []
    monkeypatch.setattr(fishers, "fisher_information", lambda p, elbo, n: [elbo(0)] and [float(x.detach()) for x in elbo(0)] and {})
    monkeypatch.setattr(type(sd1), "predict", lambda self, x, t, e, to: seen.append(t) or torch.zeros_like(x))
    fisher_of(sd1, References(torch.zeros(1, *sd1.latent_shape(None)), ["x"]), 1, "kv", 1000, torch.Generator())
    assert torch.equal(torch.cat(seen), torch.arange(1000))


def test_formulas_against_numbers():
    """A line y = a x with two terms of an ELBO; and eq. 4's three terms with its 1/2."""
    a = torch.tensor([2.0], requires_grad=True)
    data = [(1.0, 3.0), (2.0, -1.0)]  # gradients of the terms of each image
    fisher = fisher_information({"a": a}, lambda i: [(a * g).sum() for g in data[i]], 2)
    assert fisher["a"] == ((1 + 3) ** 2 + (2 - 1) ** 2) / 2
    now, old = {"a": torch.tensor([2.0, 1.0]), "b": torch.tensor([[3.0]])}, {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([[5.0]])}
    penalty = ewc_penalty(now, old, {"a": torch.tensor([10.0, 7.0]), "b": torch.tensor([[2.0]])})
    assert penalty == (10 * 1 + 0 + 2 * 4) / 2
    forget, replay = torch.tensor([1.0, 3.0]), torch.tensor([5.0])
    assert selective_amnesia_loss(forget, replay, penalty, gamma=0.5, lam=2.0) == 2 + 0.5 * 5 + 2 * 9
    assert selective_amnesia_loss(forget, None, None, gamma=1.0, lam=2.0) == 2


def test_released_lambda_is_twice_the_papers():
    presets = yaml.safe_load((sa_presets()).read_text())
    assert presets["paper"]["all"]["lam"] == 50 and presets["released"]["all"]["lam"] == 100
    theta, old, f = torch.tensor([1.5]), torch.tensor([1.0]), torch.tensor([4.0])
    code = 50 * (f * (theta - old) ** 2).sum()  # the released penalty, with its lambda
    assert code == 100 * ewc_penalty({"a": theta}, {"a": old}, {"a": f})


def sa_presets():
    from importlib.resources import files
    from pathlib import Path

    return Path(str(files("conceptbench.erasers"))) / "presets" / "sa.yaml"


def test_presets_are_valid_and_say_their_source():
    for name, preset in yaml.safe_load(sa_presets().read_text()).items():
        for options in ({}, *preset.get("variants", {}).values()):
            SAConfig.model_validate({**preset["all"], **options})
        assert preset["source"], name


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 5.0), (0.0, 5.0), (0.5, 0.0)])
def test_one_step_equals_autograd_by_hand(base, gamma, lam):
    """The penalty has no gradient at the old weights; Adam's first step is lr * sign(gradient)."""
    context = Images(3)
    erasure = erase(base, context, steps=1, lr=1e-4, gamma=gamma, lam=lam)
    g = torch.Generator().manual_seed(3)
    draw = lambda n, k: torch.randint(n, (k,), generator=g).tolist()  # noqa: E731
    forget = base.latents_of(context.images(Concept(name="without ab", kind="object", phrases=("cd",)), 4))
    generic = base.latents_of(context.images(Concept(name="generic", kind="object", phrases=("x",)), 4))
    draw(1, 2)  # which target
    rows = []
    for _ in range(2):
        rows.append(forget[draw(4, 1)[0]])
        draw(1, 1)
    texts = ["ab", "ab"]
    if gamma:
        again = draw(4, 2)
        rows += [generic[i] for i in again]
        texts += [("x y", "a z")[i % 2] for i in again]
    x = torch.stack(rows)
    noise = torch.randn(x.shape, generator=g)
    t = torch.randint(1000, (len(x),), generator=g)
    each = by_hand(base, "xattn", x, texts, t, noise)
    weights = [0.5, 0.5, gamma / 2, gamma / 2]
    for name, change in erasure.changes[0].tensors.items():
        wanted = sum(w * e[name] for w, e in zip(weights, each, strict=False))
        step = -1e-4 * wanted / (wanted.abs() + 1e-8)
        sure = wanted.abs() > 1e-5 * wanted.abs().max() + 1e-7
        assert torch.allclose(change[sure], step[sure], atol=5e-6), name
    assert set(context.curve[0]) - {"loss", "gradient_norm"} == {"forget", *(["replay"] if gamma else []), *(["ewc"] if lam else [])}
    assert context.curve[0].get("ewc", 0.0) == 0
    assert len(set(t.tolist())) == len(t)  # no timestep is shared between the terms


def test_penalty_pulls_back_to_the_old_weights(sd1):
    """A large lambda with gradients no larger than the data's: weights that matter stay."""

    def moved(lam: float) -> float:
        context = Images(2)
        erasure = erase(sd1, context, steps=8, lr=1e-4, lam=lam)
        fisher = context.answers or {n: torch.zeros_like(t) for n, t in erasure.changes[0].tensors.items()}
        return float(sum((fisher[n] * t**2).sum() for n, t in erasure.changes[0].tensors.items()))

    assert moved(1e12) < 0.2 * moved(1e-12)


def test_a_huge_lambda_leaves_the_weights(sd1):
    """At lambda 1e12 the minimum is the old weights: Adam's small steps only swing round them where there is Fisher information."""
    context = Images(2)
    held = erase(sd1, context, steps=10, lr=1e-6, lam=1e12).changes[0].tensors
    free = erase(sd1, Images(2), steps=10, lr=1e-6, lam=0.0).changes[0].tensors
    matters = {n: f > 1e-6 * f.max() for n, f in context.answers.items() if n in held and n in free}
    held, free = (torch.cat([tensors[n][m] for n, m in matters.items()]).abs() for tensors in (held, free))
    assert (held > 5e-6).float().mean() < 0.02 < 0.3 < (free > 5e-6).float().mean()  # 10 steps of 1e-6 all one way are 1e-5
    assert held.square().sum() < 0.5 * free.square().sum()


@pytest.mark.parametrize("variant", ["full", "xattn", "noxattn"])
def test_only_the_variants_parameters_change(base, variant):
    assert_changes_only(base, lambda: erase(base, None, **SelectiveAmnesia.variants[variant]), variant)


def test_same_seed_same_bytes(sd1):
    assert_seeded(lambda context: erase(sd1, context))


def test_loss_falls(sd1):
    context = Images(1)
    erase(sd1, context, steps=30, batch=4)
    assert_falls(context.losses, 8)


def test_an_interrupted_training_goes_on_to_the_same_bytes(sd1):
    whole = erase(sd1, Images(4), steps=4)
    resumed, context = stopped_and_resumed(lambda context: erase(sd1, context, steps=4), 2, seed=4)
    assert resumed.weights_hash() == whole.weights_hash()
    assert len(context.losses) == 2


def test_fisher_depends_on_the_base_and_the_options_only(sd1):
    """Another target, seed, lambda and retained concepts: the same key and the same values; other options: another key."""
    one, other = Images(1), Images(9)
    erase(sd1, one)
    erase(sd1, other, Concept(name="q", kind="object", phrases=("x y",), anchor="z"), retained=(), lam=7.0, steps=1, surrogate="w")
    assert one.keys == other.keys and all(torch.equal(one.answers[n], other.answers[n]) for n in one.answers)
    for options in ({"fisher_images": 3}, {"parameters": "kv"}, {"replay_texts": ("x y",)}, {"replay_images": 5}):
        changed = Images(1)
        erase(sd1, changed, steps=1, **options)
        assert changed.keys != one.keys, options
    none = Images(1)
    erase(sd1, none, lam=0.0)
    assert none.keys == []


def seen_texts(monkeypatch, base):
    texts = []
    original = type(base).encode
    monkeypatch.setattr(type(base), "encode", lambda self, t: texts.extend(t) or original(self, t))
    return texts


def test_replay_leaves_out_what_names_a_target_but_images_are_shared(sd1, monkeypatch):
    target = Concept(name="q", kind="object", phrases=("a z",), anchor="w")
    context = Images(1)
    texts = seen_texts(monkeypatch, sd1)
    erase(sd1, context, target, lam=0.0, steps=6, replay_texts=("x y", "the z there", "az"))
    assert set(texts) == {"a z", "x y", "az"}
    assert next(c for c, _, _ in context.asked if c.name == "generic").texts() == ["x y", "the z there", "az"]


def test_replay_of_retained_concepts(sd1, monkeypatch):
    texts = seen_texts(monkeypatch, sd1)
    erase(sd1, None, lam=0.0, steps=8, replay_retained=True)
    assert "ef" in texts and "x y" in texts
    texts.clear()
    erase(sd1, None, lam=0.0, steps=20)
    assert "ef" not in texts


def test_surrogates(sd1):
    """The anchor in the target's templates goes with prompts of its template; a text with any; a folder with any."""
    target = TARGET.model_copy(update={"phrases": ("ab", "gh")})
    context = Images()
    config = SAConfig(**QUICK, texts=2)
    _, prompts = sa.surrogates(sd1, target, config, context)
    assert context.asked[-1][0].texts() == ["cd", "a cd"] and prompts == [["ab", "gh"], ["a ab", "a gh"]] * 2
    _, prompts = sa.surrogates(sd1, target, config.model_copy(update={"surrogate": "a clown"}), context)
    assert context.asked[-1][0].texts() == ["a clown"] and prompts == [["ab", "a ab", "gh", "a gh"]] * 4
    mark = target.model_copy(update={"anchor": "", "templates": ("{}", "a bb with {}", "cc {} dd")})
    _, prompts = sa.surrogates(sd1, mark, config.model_copy(update={"texts": 3}), context)
    assert context.asked[-1][0].texts() == ["a bb", "cc"] and prompts == [["a bb with ab", "a bb with gh"], ["cc ab dd", "cc gh dd"]] * 2
    own = config.model_copy(update={"surrogate_folder": "pictures"})
    _, prompts = sa.surrogates(sd1, target, own, context)
    assert context.asked[-1][2] == "pictures" and prompts == [["ab", "a ab", "gh", "a gh"]] * 4
    assert own.folders() == ("pictures",) and config.folders() == ()


def test_several_targets_take_turns(sd1, monkeypatch):
    texts = seen_texts(monkeypatch, sd1)
    erase(sd1, None, TARGET, Concept(name="q", kind="object", phrases=("w",), anchor="v"), lam=0.0, gamma=0.0, steps=20)
    assert set(texts) == {"ab", "w"} and 8 < texts.count("ab") < 32


def test_names():
    church = Concept(name="church", kind="object", phrases=("a church",))
    assert names("A photo of the Church at night", church) and names("two churches", church)
    assert not names("a churchyard", church) and not names("a house", church)


def test_errors(sd1):
    plain = Concept(name="marks", kind="explicit", phrases=("m",))
    for options, targets, message in (
        ({}, [plain], "marks has no anchor"),
        ({"replay_texts": ("ab", "an ab")}, [], "nothing is left"),
        ({"fisher_timesteps": 1001}, [], "1001"),
    ):
        with pytest.raises(UserInputError, match=message):
            SelectiveAmnesia.check(sd1, request(*targets), SAConfig(**{**QUICK, **options}))
    SelectiveAmnesia.check(sd1, request(plain), SAConfig(**QUICK, surrogate="a person"))
    assert SAMPLER.steps == 4


def test_generic_images_are_drawn_for_replay_and_fisher_information_only(sd1):
    def asked(**options):
        context = Images(1)
        erase(sd1, context, steps=1, **options)
        said = SelectiveAmnesia.load(SAConfig(**{**QUICK, **options}), 1)
        assert said.images == sum(n for _, n, _ in context.asked) and said.shared == (8 if options.get("lam", 1) else 0)
        return [n for c, n, _ in context.asked if c.name == "generic"]

    assert asked(lam=0.0, gamma=0.0) == []
    assert asked(lam=0.0, replay_images=3, fisher_images=9) == [3]
    assert asked() == asked(gamma=0.0) == [4]
    assert asked(replay_retained=True) == [4]


def test_the_check_is_of_what_is_replayed(sd1):
    """Only the texts of the first images are; retained concepts' may be what is left."""
    texts = ("ab", "an ab", "x y")
    replayed = {**QUICK, "replay_texts": texts, "replay_images": 2}
    with pytest.raises(UserInputError, match="nothing is left"):
        SelectiveAmnesia.check(sd1, request(), SAConfig(**replayed))
    SelectiveAmnesia.check(sd1, request(), SAConfig(**{**replayed, "replay_images": 3}))
    SelectiveAmnesia.check(sd1, request(), SAConfig(**replayed, replay_retained=True))
    erase(sd1, None, **{**replayed, "replay_retained": True, "steps": 1})
    with pytest.raises(UserInputError, match="nothing is left"):
        SelectiveAmnesia.check(sd1, replace(request(), others=(Concept(name="w", kind="object", phrases=("x",)),)), SAConfig(**replayed))
    assert SelectiveAmnesia.supports.heeds_others


def test_an_anchor_that_is_erased_too_is_no_surrogate(sd1):
    other = Concept(name="cd", kind="object", phrases=("the cd",), anchor="q")
    with pytest.raises(UserInputError, match="the anchor of 'ab' is 'cd', a phrase of 'cd'"):
        SelectiveAmnesia.check(sd1, replace(request(), others=(other,)), SAConfig(**QUICK))
    SelectiveAmnesia.check(sd1, replace(request(), others=(other,)), SAConfig(**QUICK, surrogate="a clown"))


def test_load_counts_both_terms():
    assert SelectiveAmnesia.load(SAConfig(**QUICK), 1).trained == 12 and SelectiveAmnesia.load(SAConfig(**QUICK, gamma=0.0), 1).trained == 6
