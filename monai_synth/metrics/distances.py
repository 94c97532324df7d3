"""Distances between sets of images, in the features of one encoder, without bias for small sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray
Kernel = Callable[[Array, Array], Array]

FEWEST_FOR_FRECHET = 2000  # real images; below, the distance measures their number more than anything else


def cubic_kernel(a: Array, b: Array) -> Array:
    """The kernel of KID, (a.b / D + 1)^3.

    Args:
        a: features, shape (N, D).
        b: features, shape (M, D).

    Returns:
        Shape (N, M).
    """
    return (a @ b.T / a.shape[1] + 1.0) ** 3


def gaussian_kernel(bandwidth: float = 10.0) -> Kernel:
    """The kernel of CMMD, exp(-|a - b|^2 / (2 bandwidth^2)).

    Raises:
        ValueError: when the bandwidth is not positive.
    """
    if bandwidth <= 0:
        raise ValueError(f"bandwidth is {bandwidth}; it must be positive.")

    def kernel(a: Array, b: Array) -> Array:
        squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2 * a @ b.T
        return np.exp(-np.clip(squared, 0, None) / (2 * bandwidth**2))

    return kernel


def _checked(real: Array, synthetic: Array, fewest: int) -> tuple[Array, Array]:
    real, synthetic = np.asarray(real, dtype=np.float64), np.asarray(synthetic, dtype=np.float64)
    if real.ndim != 2 or synthetic.ndim != 2 or real.shape[1] != synthetic.shape[1]:
        raise ValueError(
            f"Features must come from one encoder and have the shape (images, D), but real has {real.shape} and "
            f"synthetic has {synthetic.shape}."
        )
    if min(len(real), len(synthetic)) < fewest:
        raise ValueError(
            f"At least {fewest} images are needed on each side, found {len(real)} real and {len(synthetic)} synthetic."
        )
    return real, synthetic


def unbiased_mmd(real: Array, synthetic: Array, kernel: Kernel = cubic_kernel) -> float:
    """The squared maximum mean discrepancy, centered on 0 for equal distributions however few the images are.

    With the cubic kernel it is the KID, with a Gaussian one on CLIP features the CMMD. It may be negative.

    Args:
        real: features of real images, shape (N, D).
        synthetic: features of synthetic images, shape (M, D), from the same encoder.
        kernel: gives the matrix (N, M) for two sets.

    Raises:
        ValueError: for features of different sizes or fewer than 2 images on a side.

    Reference:
        Gretton et al., "A Kernel Two-Sample Test", 2012, equation 3; Binkowski et al., "Demystifying MMD GANs", 2018;
        Jayasumana et al., "Rethinking FID", 2024.
    """
    real, synthetic = _checked(real, synthetic, fewest=2)
    n, m = len(real), len(synthetic)
    within_real, within_synthetic = kernel(real, real), kernel(synthetic, synthetic)
    return float(
        (within_real.sum() - np.trace(within_real)) / (n * (n - 1))
        + (within_synthetic.sum() - np.trace(within_synthetic)) / (m * (m - 1))
        - 2 * kernel(real, synthetic).mean()
    )


def frechet_distance(real: Array, synthetic: Array, fewest: int = FEWEST_FOR_FRECHET) -> float:
    """The Frechet distance of two Gaussians fitted to features (FID), refused for sets too small for it.

    No root of a D x D matrix is taken: |mu|^2 + |A|^2 + |B|^2 - 2 |A B^T|_* with the centered features A and B, each
    divided by the root of their number less one.

    Args:
        real: features of real images, shape (N, D).
        synthetic: features of synthetic images, shape (M, D), from the same encoder.
        fewest: images that each side must have.

    Raises:
        ValueError: for features of different sizes or too few images.

    Reference:
        Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017.
    """
    real, synthetic = _checked(real, synthetic, fewest=max(fewest, 2))
    a = (real - real.mean(axis=0)) / np.sqrt(len(real) - 1)
    b = (synthetic - synthetic.mean(axis=0)) / np.sqrt(len(synthetic) - 1)
    shift = np.square(real.mean(axis=0) - synthetic.mean(axis=0)).sum()
    # With A = Q R, |A B^T|_* is |R_a R_b^T|_*, since turns change no singular value: D x D where there are more images.
    small_a, small_b = (_triangle(x) if len(x) > x.shape[1] else x for x in (a, b))
    overlap = np.linalg.svd(small_a @ small_b.T, compute_uv=False).sum()
    return float(shift + np.square(a).sum() + np.square(b).sum() - 2 * overlap)


def _triangle(values: Array) -> Array:
    triangle: Any = np.linalg.qr(values, mode="r")
    return triangle


def neighbor_scores(real: Array, synthetic: Array, num_neighbors: int = 5, seed: int = 0) -> dict[str, float]:
    """Precision, recall and density at equal numbers of real and synthetic images.

    Precision: share of synthetic images within the reach of a real one. Recall: share of real images within the reach
    of a synthetic one, which falls when variety is lost. Density: how many real reaches a synthetic image lies in, over
    `num_neighbors`; 1 for equal distributions, and it may be larger. A reach is the distance to the k-th neighbor.

    Args:
        real: features, shape (N, D).
        synthetic: features, shape (M, D), from the same encoder.
        num_neighbors: k.
        seed: decides which images of the larger set are used.

    Raises:
        ValueError: for features of different sizes or k + 1 images or fewer on a side.

    Reference:
        Kynkaanniemi et al., "Improved Precision and Recall Metric", 2019; Naeem et al., "Reliable Fidelity and
        Diversity Metrics", 2020.
    """
    real, synthetic = _checked(real, synthetic, fewest=num_neighbors + 2)
    count, rng = min(len(real), len(synthetic)), np.random.default_rng(seed)
    real, synthetic = (side[rng.permutation(len(side))[:count]] for side in (real, synthetic))
    between = _distances(real, synthetic)
    reach_real, reach_synthetic = (
        np.sort(_distances(side, side), axis=1)[:, num_neighbors] for side in (real, synthetic)
    )
    in_real, in_synthetic = between <= reach_real[:, None], between <= reach_synthetic[None]
    return {
        "precision": float(in_real.any(axis=0).mean()),
        "recall": float(in_synthetic.any(axis=1).mean()),
        "density": float(in_real.sum(axis=0).mean() / num_neighbors),
    }


def _distances(a: Array, b: Array) -> Array:
    squared = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2 * a @ b.T
    return np.sqrt(np.clip(squared, 0, None))


def vendi_score(features: Array) -> float:
    """The effective number of different images in a set, 1 when all are alike and N when none resembles another.

    Args:
        features: shape (N, D); compared by the cosine of their angle.

    Raises:
        ValueError: for an empty set or a feature vector of length 0.

    Reference:
        Friedman and Dieng, "The Vendi Score: A Diversity Evaluation Metric for Machine Learning", 2023.
    """
    features = np.asarray(features, dtype=np.float64)
    lengths = np.linalg.norm(features, axis=1, keepdims=True) if len(features) else np.zeros((0, 1))
    if len(features) == 0 or (lengths == 0).any():
        raise ValueError(f"Vendi score needs features of positive length, found an array of shape {features.shape}.")
    values = np.linalg.svd(features / lengths, compute_uv=False) ** 2 / len(features)
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))
