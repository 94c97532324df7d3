"""How good the embedded models are for real images that they have never seen: prints the tables for the docs.

    python scripts/judge_nano.py my_data/wbc_pbc my_data/colon_lc25000

The first table is the balanced accuracy of 5 nearest neighbors in 5 folds with whole groups, by features of the nano
encoder, by those with the colors beside them (`nano+colors`) and by color histograms alone (8 x 8 x 8 bins, square
roots), and that of the nano CLIP asked which class's prompt fits best. The second is how well the autoencoder keeps the
images, beside the best linear code of as many numbers that was fitted to these very images. The beginning of a folder's
name is its bundle's. `--parts autoencoder` prints that alone.

    python scripts/judge_nano.py --parts drawing

prints how far what the base draws is from phantoms that it has not seen, class by class: unbiased KID x 1000 in the
nano encoder, without guidance and with that of generate.json. `--base_model` takes another base.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize
from torch.nn import PixelShuffle, PixelUnshuffle

from monai_synth.data import prompts_of, scan
from monai_synth.data.phantom import CLASS_PHRASES, draw_patient, draw_phantom, phantom_caption
from monai_synth.data.phantom.catalog import stains_of
from monai_synth.engines import SamplingPrepareBatch
from monai_synth.inferers import SamplingInferer
from monai_synth.metrics import unbiased_mmd
from monai_synth.networks import FeatureEncoder, LatentDiffusion, load_adapter, zero_shot_clip
from monai_synth.networks.checkpoints import NANO_CLIP
from monai_synth.networks.feature_encoder import COLOR_STEPS, color_histogram
from monai_synth.transforms import LoadTile, ResizeCrop
from monai_synth.utils import read_json

ROOT = Path(__file__).resolve().parents[1]
SIDE = 128
PARTS = ("features", "autoencoder", "drawing")
FIRST_SEED = 5000  # of the phantoms that judge what is drawn; those of the training begin at 10 million
STEPS = 12  # of the sampler


def read(paths: list[str]) -> torch.Tensor:
    """Images of shape (N, 3, 128, 128), in [0, 1]."""
    load, resize = LoadTile(), ResizeCrop(SIDE)
    return torch.stack([resize(load(path)) for path in paths])


def nearest_accuracy(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Balanced accuracy of 5 nearest neighbors by cosine, over 5 folds with whole groups."""
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    said = cross_val_predict(KNeighborsClassifier(5), normalize(features), labels, groups=groups, cv=folds)
    return float(balanced_accuracy_score(labels, said))


def zero_shot_accuracy(images: torch.Tensor, labels: np.ndarray, names: list[str], bundle: str) -> float:
    """Balanced accuracy of the nano CLIP on the prompts of a bundle, without a single real image."""
    config = read_json(ROOT / "bundles" / bundle / "configs" / "train.json")
    prompts = list(prompts_of(names, config["prompts"], config["prompt_template"]).values())
    network = zero_shot_clip(NANO_CLIP, prompts, NANO_CLIP, SIDE).eval()
    said = torch.cat([network(part).argmax(dim=1) for part in images.split(64)]).numpy()
    return float(balanced_accuracy_score(labels, said))


def psnr(images: torch.Tensor, kept: torch.Tensor) -> float:
    """Mean over the images of the peak signal-to-noise ratio, in dB."""
    return float((-10 * (images - kept).square().mean((1, 2, 3)).log10()).mean())


def linear_code(images: torch.Tensor, num_numbers: int, block: int) -> torch.Tensor:
    """The images as principal components keep them, that many for each block of pixels, fitted to the images.

    Args:
        images: shape (N, 3, H, W).
        num_numbers: for each block.
        block: its side in pixels.
    """
    blocks = PixelUnshuffle(block)(images)
    flat = blocks.movedim(1, -1).flatten(0, 2).numpy()
    pca = PCA(num_numbers, svd_solver="full").fit(flat)
    kept = torch.from_numpy(pca.inverse_transform(pca.transform(flat)))
    return PixelShuffle(block)(kept.reshape(blocks.movedim(1, -1).shape).movedim(-1, 1))


@torch.no_grad()
def print_distances(base_model: str, images_per_class: int) -> None:
    """The table of `--parts drawing`."""
    config = read_json(ROOT / "bundles" / "colon" / "configs" / "generate.json")
    ways = {"no guidance": (1.0, None), "guided": (config["guidance_scale"], config["guidance_interval"])}
    diffusion, encoder = LatentDiffusion(base_model, dtype=torch.bfloat16), FeatureEncoder("nano")
    network, prepare = load_adapter(diffusion, None), SamplingPrepareBatch(diffusion, SIDE)
    print(
        f"| class, {images_per_class} images | {' | '.join(ways)} | other phantoms |\n|---|{'---|' * (len(ways) + 1)}"
    )
    for name in CLASS_PHRASES:
        phantoms = torch.stack([new_phantom(name, seed) for seed in range(2 * images_per_class)])
        real, others = (torch.cat([encoder(x) for x in part.split(32)]).numpy() for part in phantoms.chunk(2))
        distances = []
        for scale, interval in ways.values():
            inferer, features = SamplingInferer(diffusion, STEPS, scale, interval), []
            for seeds in torch.arange(images_per_class).split(16):
                batch = {"seed": seeds.tolist(), "prompt": [phantom_caption(name)] * len(seeds)}
                noise, _, _, conditions = prepare(batch)
                features.append(encoder(inferer(noise, network, **conditions).float()))
            distances.append(1000 * unbiased_mmd(real, torch.cat(features).numpy()))
        distances.append(1000 * unbiased_mmd(real, others))
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in distances)} |", flush=True)


def new_phantom(class_name: str, number: int) -> torch.Tensor:
    """A phantom of a patient of its own, shape (3, 128, 128)."""
    patient = draw_patient(stains_of(class_name), FIRST_SEED + number)
    return torch.from_numpy(draw_phantom(class_name, FIRST_SEED + number, patient, SIDE)).float()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:2])
    parser.add_argument("--base_model", default="nano", help="for the autoencoder and for drawing")
    parser.add_argument("--images_per_class", type=int, default=48, help="that are drawn")
    options = parser.parse_args()
    if not options.folders and options.parts != ["drawing"]:
        parser.error("name folders of real images, or --parts drawing.")
    if "drawing" in options.parts:
        print_distances(options.base_model, options.images_per_class)
    folders = options.folders
    encoder, diffusion, kept = FeatureEncoder("nano+colors"), LatentDiffusion(options.base_model), []
    if "features" in options.parts:
        columns = "folder | images, classes | nano | nano+colors | color histograms"
        print(f"| {columns} | nano CLIP, zero-shot | chance |")
        print("|---|---|---|---|---|---|---|")
    for folder in folders:
        records, names = scan(folder)
        images = read([record["image"] for record in records])
        labels = np.array([record["label"] for record in records])
        groups = np.array([record["group"] for record in records])
        if "features" in options.parts:
            features = torch.cat([encoder(part) for part in images.split(32)]).numpy()
            plain = features[:, : encoder.network.num_features]
            histograms = color_histogram(images, COLOR_STEPS).numpy()
            ours, both, colors = (nearest_accuracy(x, labels, groups) for x in (plain, features, histograms))
            asked = zero_shot_accuracy(images, labels, names, folder.name.split("_")[0])
            print(
                f"| `{folder.name}` | {len(records)}, {len(names)} | {ours:.3f} | {both:.3f} "
                f"| {colors:.3f} | {asked:.3f} "
                f"| {1 / len(names):.3f} |",
                flush=True,
            )
        if "autoencoder" in options.parts:
            some = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:60]]
            decoded = torch.cat([diffusion.decode(diffusion.encode(part)[0]) for part in some.split(20)])
            channels = diffusion.latent_shape(SIDE)[0]
            linear = linear_code(some, channels, diffusion.downsampling)
            doubled = linear_code(some, 2 * channels, diffusion.downsampling)
            kept.append((folder.name, *(psnr(some, other) for other in (decoded, linear, doubled))))
    if kept:
        print(
            "\n| folder | PSNR of 60 images at 128 pixels, dB | linear code of these images | twice as many numbers |"
        )
        print("|---|---|---|---|")
    for name, *values in kept:
        print(f"| `{name}` | {' | '.join(f'{value:.1f}' for value in values)} |")


if __name__ == "__main__":
    main()
