"""Whether probabilities mean what they say."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

Array = np.ndarray
FARTHEST = 4.0  # logarithm of a temperature


def expected_calibration_error(labels: Array, probabilities: Array, num_bins: int = 15) -> float:
    """Mean difference of confidence and accuracy over bins that hold equally many images.

    Args:
        labels: true classes, shape (N,).
        probabilities: shape (N, K).
        num_bins: number of bins, at most N are used.

    Reference:
        Nixon et al., "Measuring Calibration in Deep Learning", 2019 (equal-mass bins).
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.array_split(np.argsort(confidence, kind="stable"), min(num_bins, len(labels)))
    return float(sum(len(part) * abs(confidence[part].mean() - correct[part].mean()) for part in bins) / len(labels))


def brier_score(labels: Array, probabilities: Array) -> float:
    """Mean squared distance of the probabilities from the truth, 0 to 2; lower is better.

    Args:
        labels: true classes, shape (N,).
        probabilities: shape (N, K).
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    truth = np.eye(probabilities.shape[1])[np.asarray(labels)]
    return float(np.square(probabilities - truth).sum(axis=1).mean())


def fit_temperature(labels: Array, logits: Array) -> float | None:
    """The temperature that makes softmax(logits / temperature) most likely, found on real validation images.

    Args:
        labels: true classes, shape (N,).
        logits: shape (N, K).

    Returns:
        The temperature, above 0; None where there is none: images that are all classified right ask for ever more
        certainty, and answers that tell nothing of the classes for none at all.

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", 2017.
    """
    labels, logits = np.asarray(labels), np.asarray(logits, dtype=np.float64)

    def surprise(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean())

    if (logits.argmax(axis=1) == labels).all():
        return None
    found = float(minimize_scalar(surprise, bounds=(-FARTHEST, FARTHEST), method="bounded").x)
    return float(np.exp(found)) if abs(found) < FARTHEST - 0.01 else None


def with_temperature(logits: Array, temperature: float) -> Array:
    """softmax(logits / temperature), shape (N, K) as the logits.

    Raises:
        ValueError: when the temperature is not positive.
    """
    if temperature <= 0:
        raise ValueError(f"temperature is {temperature}; it must be positive.")
    return softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
