"""Tiny pipelines of the real classes with random weights, saved to and loaded from a folder as a user's would be."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

FAMILIES = ("sd1", "sd2", "sdxl")


def tokenizer(pad: str = "<|endoftext|>", length: int = 16) -> CLIPTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [c + "</w>" for c in alphabet] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=length, pad_token=pad)


def _text_config(tok: CLIPTokenizer, width: int, **kwargs) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tok),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=tok.model_max_length,
        projection_dim=width,
        bos_token_id=tok.bos_token_id,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
        **kwargs,
    )


def _vae() -> AutoencoderKL:
    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.5,
    )


def _unet(width: int, **kwargs) -> UNet2DConditionModel:
    torch.manual_seed(2)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=width,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        **{"attention_head_dim": 2, **kwargs},
    )


def scheduler(**kwargs) -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1, **kwargs)


def pipeline(family: str, width: int = 32, length: int = 16):
    """One of a family; width of the text states (of those with one encoder) and length of a text in tokens."""
    torch.manual_seed(0)
    if family == "sdxl":
        first, second = tokenizer(length=length), tokenizer(pad="!</w>", length=length)
        one, two = CLIPTextModel(_text_config(first, 16)), CLIPTextModelWithProjection(_text_config(second, 16))
        unet = _unet(
            32,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 16,
            transformer_layers_per_block=(1, 2),
        )
        return StableDiffusionXLPipeline(
            vae=_vae(), text_encoder=one, text_encoder_2=two, tokenizer=first, tokenizer_2=second, unet=unet, scheduler=scheduler(), add_watermarker=False
        )
    tok = tokenizer(pad="<|endoftext|>" if family == "sd1" else "!</w>", length=length)
    extra = {"use_linear_projection": True, "attention_head_dim": (2, 4)} if family == "sd2" else {}
    text = CLIPTextModel(_text_config(tok, width, hidden_act="gelu" if family == "sd2" else "quick_gelu"))
    kind = {"prediction_type": "v_prediction"} if family == "sd2" else {}
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=text,
        tokenizer=tok,
        unet=_unet(width, **extra),
        scheduler=scheduler(**kind),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(family: str, folder: Path, **options: int) -> Path:
    made = pipeline(family, **options)
    made.set_progress_bar_config(disable=True)
    made.save_pretrained(folder)
    return folder
