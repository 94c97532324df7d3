"""Draws images of a base model for every phantom class, and reconstructs phantoms it was not trained on.

    python scripts/draw_nano_figure.py docs/images/nano_samples.png

Prints the PSNR of the autoencoder on new phantoms, class by class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch

from monai_synth.data.phantom import CLASS_PHRASES, draw_phantom, phantom_caption
from monai_synth.engines import SamplingPrepareBatch
from monai_synth.inferers import SamplingInferer
from monai_synth.networks import LatentDiffusion, load_adapter

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

NUM_COLUMNS = 8
FIRST_SEED = 900_000  # far from the seeds of the training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--base_model", default="nano")
    parser.add_argument("--guidance_scale", type=float, default=1.5)
    args = parser.parse_args()
    diffusion = LatentDiffusion(args.base_model)
    network = load_adapter(diffusion, None)
    prepare = SamplingPrepareBatch(diffusion, 128)
    inferer = SamplingInferer(diffusion, guidance_scale=args.guidance_scale)
    figure, axes = plt.subplots(
        len(CLASS_PHRASES),
        NUM_COLUMNS,
        figsize=(NUM_COLUMNS * 1.0 + 1.8, len(CLASS_PHRASES)),
        gridspec_kw={"wspace": 0.03, "hspace": 0.03, "left": 0.19, "right": 0.995, "top": 0.998, "bottom": 0.002},
    )
    print("| class | PSNR of new phantoms, dB |\n|---|---|")
    for row, (class_name, phrase) in zip(axes, CLASS_PHRASES.items()):
        batch = {"seed": range(NUM_COLUMNS), "prompt": [phantom_caption(class_name)] * NUM_COLUMNS}
        noise, _, _, features = prepare(batch)
        for cell, image in zip(row, inferer(noise, network, **features)):
            cell.imshow(image.permute(1, 2, 0))
            cell.axis("off")
        words = phrase.replace(" cell", "\ncell")
        row[0].text(-0.08, 0.5, words, transform=row[0].transAxes, ha="right", va="center", fontsize=8)
        new = torch.from_numpy(np.stack([draw_phantom(class_name, FIRST_SEED + seed) for seed in range(8)]))
        error = (diffusion.decode(diffusion.encode(new)[0]) - new).square().mean(dim=(1, 2, 3))
        print(f"| {class_name} | {float(-10 * error.log10().mean()):.1f} |")
    args.path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.path, dpi=110)


if __name__ == "__main__":
    main()
