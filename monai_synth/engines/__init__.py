"""What MONAI's engines need to train and sample a diffusion model."""

from .mixing import MixingPrepareBatch
from .prepare_batch import (
    ClassificationPrepareBatch,
    LatentDiffusionPrepareBatch,
    SamplingPrepareBatch,
    noise_of_seeds,
)

__all__ = [
    "ClassificationPrepareBatch",
    "LatentDiffusionPrepareBatch",
    "MixingPrepareBatch",
    "SamplingPrepareBatch",
    "noise_of_seeds",
]
