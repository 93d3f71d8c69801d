"""The training loop on its own: two numbers a player, and Adam by hand."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from erasing import Images, Interrupted, Resumed, Stopped, stopped_and_resumed

from conceptbench.erasers.shared.loop import Player, Terms, TrainingConfig, train


def leaf(*values):
    return torch.tensor(values, requires_grad=True)


def plain(losses, leaves, lrs, steps, *, clear=True):
    """The players' values after so many rounds of torch's own Adam; each loss moves its own leaf only."""
    optimisers = [torch.optim.Adam([p], lr=lr) for p, lr in zip(leaves, lrs, strict=True)]
    for step in range(steps):
        for loss, p, optimiser in zip(losses, leaves, optimisers, strict=True):
            gradient = torch.autograd.grad(loss(step), p)[0]
            p.grad = gradient if clear or p.grad is None else p.grad + gradient
            optimiser.step()
    return [p.detach().clone() for p in leaves]


def game(a, b):
    """Two losses that both depend on both leaves."""
    return lambda step: ((a * b).sum() - step) ** 2 + a.sum(), lambda step: (a - b).pow(2).sum() * (1 + step)


@pytest.mark.parametrize("accumulate", [False, True])
def test_players_take_turns_at_their_own_rates_and_their_gradients_stay_apart(accumulate):
    """A gradient of the main loss that reached the first player, or the other way round, would change its next step."""
    a, b = leaf(1.0, -2.0), leaf(0.5, 3.0)
    first, main = game(a, b)
    config = TrainingConfig(steps=4, lr=0.1, accumulate=accumulate)
    trained = train({"b": b}, main, config, Images(), before=[Player({"a": a}, first, lr=0.5)])
    c, d = leaf(1.0, -2.0), leaf(0.5, 3.0)
    by_hand = plain(game(c, d), [c, d], [0.5, 0.1], 4, clear=not accumulate)
    assert set(trained) == {"b"} and torch.allclose(trained["b"], by_hand[1], atol=1e-6) and torch.allclose(a.detach(), by_hand[0], atol=1e-6)
    e, f = leaf(1.0, -2.0), leaf(0.5, 3.0)
    swapped = plain(game(e, f)[::-1], [f, e], [0.1, 0.5], 4, clear=not accumulate)
    assert not torch.allclose(trained["b"], swapped[0], atol=1e-3)  # whose turn is first is to be seen


def test_a_first_step_is_the_rate():
    a, b = leaf(1.0), leaf(1.0)
    train({"b": b}, lambda _step: b.sum(), TrainingConfig(steps=1, lr=0.1), Images(), before=[Player({"a": a}, lambda _step: -a.sum(), lr=0.5)])
    assert a.item() == pytest.approx(1.5) and b.item() == pytest.approx(0.9)
    c = leaf(1.0)
    train({"b": b}, lambda _step: b.sum(), TrainingConfig(steps=1, lr=0.1), Images(), before=[Player({"c": c}, lambda _step: c.sum())])
    assert c.item() == pytest.approx(0.9)  # the config's rate


def test_added_up_gradients_by_hand():
    """Gradients 3, 3 and 3 count as 3, 6 and 9."""
    norms = []
    for accumulate in (True, False):
        context, b = Images(), leaf(2.0)
        train({"b": b}, lambda _step, b=b: 3 * b.sum(), TrainingConfig(steps=3, accumulate=accumulate), context)
        norms.append([p["gradient_norm"] for p in context.curve])
    assert norms == [[3, 6, 9], [3, 3, 3]]


@pytest.mark.parametrize("accumulate", [False, True])
def test_players_go_on_after_an_interruption(accumulate):
    config = TrainingConfig(steps=5, lr=0.1, accumulate=accumulate)

    def run(context):
        a, b = leaf(1.0, -2.0), leaf(0.5, 3.0)
        first, main = game(a, b)
        trained = train({"b": b}, main, config, context, before=[Player({"a": a}, first, lr=0.5)])
        return [a.detach(), trained["b"]]

    expected, (resumed, _) = run(Images()), stopped_and_resumed(run, 2)
    assert all(torch.equal(x, y) for x, y in zip(resumed, expected, strict=True))


def test_an_early_stop_is_the_last_point_and_is_not_gone_on_from():
    steps = []

    def run(context):
        b, count = leaf(1.0), torch.zeros(())

        def loss(step):
            steps.append(step)
            return b.sum()

        def after(step, _terms):
            count.add_(1)
            return step == 2

        return train({"b": b}, loss, TrainingConfig(steps=9, lr=0.1), context, state={"count": count}, after=after)["b"], count

    whole, interrupted = Images(), Interrupted(3)
    expected, count = run(whole)
    assert whole.totals == [9, 9, 3] and count == 3
    with pytest.raises(Stopped):
        run(interrupted)
    steps.clear()
    resumed = Resumed(interrupted)
    values, count = run(resumed)
    assert steps == [] and resumed.curve == [] and torch.equal(values, expected) and count == 3
    ended = Images()
    train({"c": (c := leaf(1.0))}, lambda _step: c.sum(), TrainingConfig(steps=2), ended)
    assert ended.totals == [2, 2]


def test_only_the_report_of_a_step_is_shown():
    """After the step's values are in place, and left again for the next step and for the checkpoint."""
    b, inside, seen = leaf(1.0), [], []

    @contextmanager
    def showing():
        inside.append(b.item())
        yield
        inside.pop()

    class Context(Images):
        def progress(self, *args, **kwargs):
            seen.append(list(inside))

        def checkpoint(self, step, tensors):
            assert not inside

    def loss(_step):
        assert not inside
        return Terms(b.sum())

    train({"b": b}, loss, TrainingConfig(steps=2, lr=0.25), Context(), showing=showing)
    assert seen == [[pytest.approx(0.75)], [pytest.approx(0.5)]]
