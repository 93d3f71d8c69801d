"""The recipe as a command: ``python -m conceptbench.mini.training all --work work --install``.

Every stage resumes from its own file in the work folder, so a killed recipe is simply started again. Weights depend on
the seeds in the stage modules and on the number of threads (sums are taken in another order with another number).
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from conceptbench.mini.judges import WEIGHTS
from conceptbench.mini.training.autoencoder import train_autoencoder
from conceptbench.mini.training.card import write_card
from conceptbench.mini.training.decoder import finetune_decoder
from conceptbench.mini.training.judges import train_classifier, train_clip, train_detector
from conceptbench.mini.training.text import train_text
from conceptbench.mini.training.unet import train_unet

STAGES: dict[str, Callable[[Path], Path]] = {
    "vae": train_autoencoder,
    "text": train_text,
    "unet": train_unet,
    "decoder": finetune_decoder,
    "classifier": train_classifier,
    "detector": train_detector,
    "clip": train_clip,
}

THREADS = {"unet": 2}
"""CPU threads of the shipped weights' stages; one where nothing else is said."""


def install(work: Path) -> None:
    """Copies trained weights into the package."""
    for folder in ("base", "clip"):
        shutil.copytree(work / folder, WEIGHTS / folder, dirs_exist_ok=True)
    for name in ("classifier.safetensors", "detector.safetensors"):
        shutil.copy2(work / name, WEIGHTS / name)


def main() -> None:
    """Runs the stages that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m conceptbench.mini.training", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=[*STAGES, "all", "card"], help="what to train; all: everything in order; card: measure the installed weights")
    parser.add_argument("--work", type=Path, default=Path("work"), help="folder of pictures, checkpoints and results")
    parser.add_argument("--install", action="store_true", help="copy the results into the package afterwards")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name, stage in STAGES.items():
        if arguments.stage in (name, "all"):
            torch.set_num_threads(THREADS.get(name, 1))
            stage(arguments.work)
    if arguments.install:
        install(arguments.work)
    if arguments.stage in ("all", "card"):
        write_card(WEIGHTS)


if __name__ == "__main__":
    main()
