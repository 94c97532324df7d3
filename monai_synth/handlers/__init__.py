"""Ignite handlers."""

from .adapter_average import AdapterAverage
from .adapter_saver import AdapterSaver
from .best_model import BestModelSaver, no_worse
from .epoch_seed import EpochSeed
from .feature_saver import FeatureSaver
from .gradient_average import GradientAverage
from .gradient_clipping import GradientClipping
from .neighbor_memory import NeighborMemory
from .non_finite_loss import StopOnNonFiniteLoss
from .prediction_saver import PredictionSaver
from .progress import Progress
from .sample_grid import SampleGrid
from .sample_saver import SampleSaver, write_synthetic_datalist
from .step_schedule import StepSchedule
from .training_state import TrainingState

__all__ = [
    "AdapterAverage",
    "AdapterSaver",
    "BestModelSaver",
    "EpochSeed",
    "FeatureSaver",
    "GradientAverage",
    "GradientClipping",
    "NeighborMemory",
    "PredictionSaver",
    "Progress",
    "SampleGrid",
    "SampleSaver",
    "StepSchedule",
    "StopOnNonFiniteLoss",
    "TrainingState",
    "no_worse",
    "write_synthetic_datalist",
]
