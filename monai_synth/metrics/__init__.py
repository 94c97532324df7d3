"""Arithmetic that judges images and classifiers."""

from .calibration import brier_score, expected_calibration_error, fit_temperature, with_temperature
from .classification import area_under_roc, classification_metrics
from .distances import (
    cubic_kernel,
    frechet_distance,
    gaussian_kernel,
    neighbor_scores,
    unbiased_mmd,
    vendi_score,
)
from .statistics import (
    Difference,
    delong_interval,
    holm,
    paired_bootstrap,
    rank_test,
    share_interval,
)

__all__ = [
    "Difference",
    "area_under_roc",
    "brier_score",
    "classification_metrics",
    "cubic_kernel",
    "delong_interval",
    "expected_calibration_error",
    "fit_temperature",
    "frechet_distance",
    "gaussian_kernel",
    "holm",
    "neighbor_scores",
    "paired_bootstrap",
    "rank_test",
    "share_interval",
    "unbiased_mmd",
    "vendi_score",
    "with_temperature",
]
