from __future__ import annotations

import pytest
import torch

from conceptbench.mini.training.judges import broken
from conceptbench.mini.training.loop import Schedule, fit
from conceptbench.mini.training.text import LENGTH, build_text_encoder, build_tokenizer
from conceptbench.training import fitting


def small_problem():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))

    def loss(generator):
        x = torch.randn(16, 4, generator=generator)
        return ((model(x)[:, 0] - x.sum(1)) ** 2).mean()

    return model, loss


def test_killed_and_resumed_training_gives_the_same_bytes(tmp_path, monkeypatch):
    schedule = Schedule(steps=40, lr=1e-2)
    monkeypatch.setattr(fitting, "SAVE_SECONDS", -1.0)
    model, loss = small_problem()
    whole = fit(model, loss, schedule, state=tmp_path / "a.pt", seed=1, name="a")
    model, loss = small_problem()
    calls = 0

    def dies(generator):
        nonlocal calls
        calls += 1
        if calls == 26:
            raise KeyboardInterrupt
        return loss(generator)

    with pytest.raises(KeyboardInterrupt):
        fit(model, dies, schedule, state=tmp_path / "b.pt", seed=1, name="b")
    model, loss = small_problem()
    resumed = fit(model, loss, schedule, state=tmp_path / "b.pt", seed=1, name="b")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_learning_rate_warms_up_and_falls():
    schedule = Schedule(steps=1000, lr=1.0)
    assert schedule.lr_at(0) < 0.02 and schedule.lr_at(150) > 0.9 and schedule.lr_at(999) == pytest.approx(0.05, abs=0.01)


def test_tokenizer_has_no_unknown_characters():
    tok = build_tokenizer(["a photo of a cat", "Ada Moss in mosaic style"] * 3)
    ids = tok("a, é! 7 cat").input_ids
    assert ids.count(tok.eos_token_id) == 1 and ids[-1] == tok.eos_token_id == max(tok.get_vocab().values())
    assert build_tokenizer(["Ada Moss in mosaic style", "a photo of a cat"]).get_vocab() == tok.get_vocab()  # order does not matter
    encoder = build_text_encoder(tok)
    padded = tok(["a cat"], padding="max_length", return_tensors="pt").input_ids
    assert padded.shape == (1, LENGTH)
    position = int((padded[0] == tok.eos_token_id).int().argmax())
    out = encoder(padded)
    assert torch.equal(out.pooler_output[0], out.last_hidden_state[0, position])


def test_broken_pictures_are_not_the_pictures():
    x = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    out = broken(x, torch.Generator().manual_seed(1))
    assert out.shape == x.shape and out.abs().max() <= 1 and ((out - x).abs().mean((1, 2, 3)) > 0.1).all()
