"""How near drawn images are to real ones, and how varied."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from monai_synth.data import read_image
from monai_synth.metrics import neighbor_scores, unbiased_mmd, vendi_score
from monai_synth.networks import FeatureEncoder

GROUPS = 10  # of the jackknife
FEWEST = 3  # images of a class that can be judged
NUM_NEIGHBORS = 5  # of the recall


def features_of(paths: list[Path], encoder: FeatureEncoder) -> torch.Tensor:
    """Features of image files, shape (N, D), on the CPU."""
    parts = [paths[start : start + 32] for start in range(0, len(paths), 32)]
    batches = (torch.stack([torch.from_numpy(read_image(path)) for path in part]) for part in parts)
    return torch.cat([encoder(batch.to(encoder.mean.device)).cpu() for batch in batches])


@dataclass(frozen=True)
class Quality:
    """How near drawn images are to real ones, and how varied, means over the classes.

    Args:
        kid: unbiased KID x 1000.
        error: 1.96 of its standard errors over the drawn images, of a jackknife that leaves out a tenth at a time.
        vendi: Vendi score, the effective number of different images.
        recall: share of the real images within the reach of a drawn one, see `neighbor_scores`.
    """

    kid: float
    error: float
    vendi: float
    recall: float

    def __str__(self) -> str:
        return f"{self.kid:.2f} +- {self.error:.2f}"


def judge(real: dict[str, torch.Tensor], folder: Path, encoder: FeatureEncoder) -> Quality:
    """The quality of the images in the class folders of a folder, `FEWEST` or more of each class.

    Args:
        real: features of real images of each class, shape (N, D).
        folder: of the drawn images.
        encoder: that gave the features.
    """
    drawn = {name: features_of(sorted((folder / name).glob("*.png")), encoder).numpy() for name in real}
    groups = min(GROUPS, *(len(features) for features in drawn.values()))

    def kid(left_out: int | None) -> float:
        parts = []
        for name, features in real.items():
            kept = np.arange(len(drawn[name])) % groups != left_out
            parts.append(unbiased_mmd(features.numpy(), drawn[name][kept]))
        return 1000 * float(np.mean(parts))

    def recall(name: str) -> float:
        num_neighbors = min(NUM_NEIGHBORS, len(drawn[name]) - 2)
        return neighbor_scores(real[name].numpy(), drawn[name], num_neighbors)["recall"]

    without = np.array([kid(group) for group in range(groups)])
    error = np.sqrt((groups - 1) / groups * np.square(without - without.mean()).sum())
    vendi = np.mean([vendi_score(features) for features in drawn.values()])
    return Quality(kid(None), 1.96 * float(error), float(vendi), float(np.mean([recall(name) for name in real])))
