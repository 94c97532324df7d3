"""Ignite handlers."""

from .adapter_saver import AdapterSaver
from .epoch_seed import EpochSeed
from .gradient_clipping import GradientClipping
from .non_finite_loss import StopOnNonFiniteLoss
from .prediction_saver import PredictionSaver
from .progress import Progress
from .sample_grid import SampleGrid
from .sample_saver import SampleSaver, write_synthetic_datalist
from .training_state import TrainingState

__all__ = [
    "AdapterSaver",
    "EpochSeed",
    "GradientClipping",
    "PredictionSaver",
    "Progress",
    "SampleGrid",
    "SampleSaver",
    "StopOnNonFiniteLoss",
    "TrainingState",
    "write_synthetic_datalist",
]
