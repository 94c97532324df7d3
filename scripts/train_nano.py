"""Trains the embedded models on phantoms alone and writes them as package data.

    python scripts/train_nano.py --work_dir nano_work                # every stage, resumes where it stopped
    python scripts/train_nano.py --work_dir nano_work --stage unet   # one stage

The stages are `data` (phantoms are drawn), `code` (the linear code that is the autoencoder's encoder is fitted),
`linear` (a linear decoder), `vae` (the decoder), `latents` (all phantoms are encoded once), `unet` (denoiser and text
encoder together), `encoder` (features of images), `clip` (images and captions), `few_step` (an adapter for drawing in
a few steps, over the exported denoiser) and four that write half-precision safetensors into `monai_synth/assets`:
`export`, `export_encoder`, `export_clip` and `export_few_step`. Every stage keeps a checkpoint and goes on from it; a
log line every 50 steps goes to `log_<stage>.csv`.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from nano_training.clip import export_clip, train_clip
from nano_training.diffusion import (
    encode_latents,
    export,
    train_code,
    train_decoder,
    train_denoiser,
    train_linear_decoder,
)
from nano_training.encoder import export_encoder, train_encoder
from nano_training.few_step import export_few_step, train_few_step
from nano_training.phantoms import draw_data

OF_THE_BASE = ("data", "code", "linear", "vae", "latents", "unet", "export")
STAGES = (*OF_THE_BASE, "encoder", "export_encoder", "clip", "export_clip", "few_step", "export_few_step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work_dir", type=Path, required=True, help="checkpoints, phantoms and logs")
    parser.add_argument("--stage", choices=["all", *STAGES], default="all")
    parser.add_argument("--num_shards", type=int, default=18, help="shards of phantoms")
    parser.add_argument("--images_per_shard", type=int, default=100, help="phantoms of every class in a shard")
    parser.add_argument("--code_batches", type=int, default=40, help="batches of 64 windows to fit the code to")
    parser.add_argument("--linear_steps", type=int, default=700)
    parser.add_argument("--vae_steps", type=int, default=6000)
    parser.add_argument("--unet_steps", type=int, default=12000)
    parser.add_argument("--unet_learning_rate", type=float, default=1e-3)
    parser.add_argument("--begin_from", help="a base to begin the denoiser and the text encoder from")
    parser.add_argument("--encoder_steps", type=int, default=2000)
    parser.add_argument("--clip_steps", type=int, default=1500)
    parser.add_argument("--few_step_steps", type=int, default=1200, help="optimizer steps of the adapter for few steps")
    parser.add_argument("--batch_size", type=int, default=32, help="of the denoiser")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training, processes of the drawing")
    parser.add_argument("--device", default="cpu")
    assets = Path(__file__).resolve().parents[1] / "monai_synth" / "assets"
    parser.add_argument("--output_dir", type=Path, default=assets)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    base = str(args.output_dir / "nano")
    stages: dict[str, Callable[[], None]] = {
        "data": lambda: draw_data(args.work_dir, args.num_shards, args.images_per_shard, args.threads),
        "code": lambda: train_code(args.work_dir, args.code_batches, device),
        "linear": lambda: train_linear_decoder(args.work_dir, args.linear_steps, device),
        "vae": lambda: train_decoder(args.work_dir, args.vae_steps, device),
        "latents": lambda: encode_latents(args.work_dir, device),
        "unet": lambda: train_denoiser(
            args.work_dir, args.unet_steps, args.batch_size, device, args.unet_learning_rate, args.begin_from
        ),
        "export": lambda: export(args.work_dir, args.output_dir / "nano"),
        "encoder": lambda: train_encoder(args.work_dir, args.encoder_steps, 2 * args.batch_size, device),
        "export_encoder": lambda: export_encoder(args.work_dir, args.output_dir / "nano_encoder"),
        "clip": lambda: train_clip(args.work_dir, args.clip_steps, 2 * args.batch_size, device),
        "export_clip": lambda: export_clip(args.work_dir, args.output_dir / "nano_clip"),
        "few_step": lambda: train_few_step(args.work_dir, base, args.few_step_steps, args.batch_size // 2, device),
        "export_few_step": lambda: export_few_step(args.work_dir, base, args.output_dir / "nano_few_step"),
    }
    for name, stage in stages.items():
        if args.stage in (name, "all"):
            torch.manual_seed(0)  # of its first weights, whatever was run before; the steps have seeds of their own
            stage()


if __name__ == "__main__":
    main()
