"""Stage ``unet``: the mini base's denoiser, trained on the latents of the drawings with the frozen text encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from conceptbench.mini.training.autoencoder import PICTURES
from conceptbench.mini.training.autoencoder import SEED as PICTURES_SEED
from conceptbench.mini.training.data import pictures, to_float
from conceptbench.mini.training.loop import Schedule, fit
from conceptbench.mini.training.text import WIDTH

SEED = 13
BATCH = 64
SCHEDULE = Schedule(steps=3600, lr=1.2e-3, ema=0.9995, replanned=(2000, 6000))
CAPTION_DROPOUT = 0.1
MIN_SNR = 5.0


def build_unet() -> UNet2DConditionModel:
    """About 0.23 GFLOP a row at 8 x 8: five cross-attention layers, one of them in the middle, eight heads.

    The last up block has no attention: at 8 x 8 it costs a fifth of the time on a CPU and the pictures do not need it.
    """
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(64, 160),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule: scaled linear, 1000 steps, noise prediction."""
    return DDIMScheduler(
        num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1
    )


@torch.no_grad()
def encode_pictures(work: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Latents (N, 8, 8, 8) already scaled, embeddings of the distinct captions (M, 24, 256) and each picture's caption row (N,).

    Row 0 of the embeddings is the empty caption.
    """
    path = work / "encoded.pt"
    if path.exists():
        saved = torch.load(path, weights_only=True)
        return saved["latents"], saved["embeddings"], saved["rows"]
    data = pictures(work, PICTURES, PICTURES_SEED)
    vae = AutoencoderKL.from_pretrained(work / "vae").eval()
    latents = torch.cat([vae.encode(to_float(b)).latent_dist.mean for b in data.images.split(64)]) * vae.config.scaling_factor
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    text = CLIPTextModel.from_pretrained(work / "text_encoder").eval()
    captions = ["", *sorted(set(data.captions) - {""})]
    ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    embeddings = torch.cat([text(b).last_hidden_state for b in ids.split(256)])
    index = {c: i for i, c in enumerate(captions)}
    rows = torch.tensor([index[c] for c in data.captions])
    torch.save({"latents": latents, "embeddings": embeddings, "rows": rows}, path)
    return latents, embeddings, rows


def train_unet(work: Path, steps: int | None = None) -> Path:
    """Trains the denoiser and saves the complete pipeline in half precision. Returns its folder."""
    torch.manual_seed(SEED)
    latents, embeddings, rows = encode_pictures(work)
    unet, scheduler = build_unet(), build_scheduler()
    alphas = scheduler.alphas_cumprod
    snr = alphas / (1 - alphas)

    def loss(generator: torch.Generator) -> Tensor:
        pick = torch.randint(len(latents), (BATCH,), generator=generator)
        noise = torch.randn(BATCH, *latents.shape[1:], generator=generator)
        t = torch.randint(1000, (BATCH,), generator=generator)
        kept = torch.rand(BATCH, generator=generator) >= CAPTION_DROPOUT
        noisy = scheduler.add_noise(latents[pick], noise, t)
        predicted = unet(noisy, t, encoder_hidden_states=embeddings[rows[pick] * kept]).sample
        weight = snr[t].clamp(max=MIN_SNR) / snr[t]  # min-SNR weighting (Hang et al. 2023) of the noise error
        return ((predicted - noise) ** 2).mean((1, 2, 3)).mul(weight).mean()

    schedule = SCHEDULE if steps is None else Schedule(steps, SCHEDULE.lr, ema=SCHEDULE.ema)
    unet.load_state_dict(fit(unet, loss, schedule, state=work / "unet.pt", seed=SEED, name="unet"))
    return save_pipeline(work, unet.eval())


def save_pipeline(work: Path, unet: UNet2DConditionModel) -> Path:
    """Puts the parts together as a stock StableDiffusionPipeline, in half precision."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(work / "base")
    return work / "base"
