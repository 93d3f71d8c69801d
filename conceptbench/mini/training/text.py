"""Stage ``text``: the tokenizer and the text encoder, trained contrastively against drawings and then frozen."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from conceptbench.mini.training.autoencoder import PICTURES
from conceptbench.mini.training.autoencoder import SEED as PICTURES_SEED
from conceptbench.mini.training.data import pictures, to_float
from conceptbench.mini.training.loop import Schedule, fit

SEED = 12
BATCH = 128
SCHEDULE = Schedule(steps=1200, lr=1e-3, weight_decay=0.05)
LENGTH = 24
WIDTH = 256
VOCABULARY = 1000


def build_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """A byte-level BPE in CLIP's layout: 256 bytes, 256 bytes that end a word, merges, start, end.

    All 512 byte tokens are there, so that no character of a prompt becomes the end token in the middle of it.
    """
    trainer = CLIPTokenizer()._tokenizer  # brings CLIP's normaliser and pre-tokeniser
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer.train_from_iterator(
        sorted(set(captions)),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            special_tokens=["<|startoftext|>", "<|endoftext|>"],
            show_progress=False,
        ),
    )
    merges = [tuple(m) for m in json.loads(trainer.to_str())["model"]["merges"]]
    tokens = alphabet + [c + "</w>" for c in alphabet] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    tokens = list(dict.fromkeys(tokens))  # two merges may spell the same token
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, model_max_length=LENGTH)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text transformer at width 256 with two layers."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=8,
        max_position_embeddings=LENGTH,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def image_tower(width: int) -> nn.Sequential:
    """A small convolutional image encoder to (N, width); used for the contrastive training only."""

    def stage(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU(), nn.Conv2d(b, b, 3, 1, 1), nn.GroupNorm(8, b), nn.SiLU()]

    return nn.Sequential(*stage(3, 48), *stage(48, 96), *stage(96, 192), nn.Flatten(), nn.Linear(192 * 16, width))


class Contrastive(nn.Module):
    """Text encoder, image tower and temperature, for CLIP's symmetric loss."""

    def __init__(self, text: CLIPTextModel) -> None:
        super().__init__()
        self.text, self.image = text, image_tower(WIDTH)
        self.project = nn.Linear(WIDTH, WIDTH, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(2.3))

    def loss(self, images: Tensor, ids: Tensor) -> Tensor:
        """images: (N, 3, 32, 32) in [-1, 1]; ids: (N, 24)."""
        t = F.normalize(self.project(self.text(ids).pooler_output), dim=-1)
        logits = self.log_scale.clamp(max=4.6).exp() * F.normalize(self.image(images), dim=-1) @ t.T
        target = torch.arange(len(ids))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_text(work: Path, steps: int | None = None) -> Path:
    """Trains tokenizer and text encoder; saves both as they go into the pipeline. Returns the encoder's folder."""
    torch.manual_seed(SEED)
    data = pictures(work, PICTURES, PICTURES_SEED)
    tokenizer = build_tokenizer(data.captions)
    tokenizer.save_pretrained(work / "tokenizer")
    ids = tokenizer(data.captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    model = Contrastive(build_text_encoder(tokenizer))

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(ids), (BATCH,), generator=generator)
        return model.loss(to_float(data.images[rows]), ids[rows])

    schedule = SCHEDULE if steps is None else Schedule(steps, SCHEDULE.lr, weight_decay=SCHEDULE.weight_decay)
    model.load_state_dict(fit(model, loss, schedule, state=work / "text.pt", seed=SEED, name="text"))
    model.text.eval().save_pretrained(work / "text_encoder")
    return work / "text_encoder"
