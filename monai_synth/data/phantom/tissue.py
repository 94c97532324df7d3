"""Colon and lung as an H&E section shows them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .colon import draw_colon_cancer, draw_colon_normal
from .lung import draw_lung_cancer, draw_lung_normal, draw_lung_squamous
from .optics import HE_STAINS, Patient
from .section import EOSIN, Section
from .shapes import fractal_noise, grid, smooth_noise

TISSUE_CLASSES = ("colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc")


def draw_tissue(class_name: str, rng: np.random.Generator, patient: Patient, size: int) -> np.ndarray:
    """The stains of one tile of tissue.

    Args:
        class_name: one of `TISSUE_CLASSES`.
        rng: decides the tissue.
        patient: its scale sets the magnification.
        size: side of the tile in pixels.

    Returns:
        Concentrations in the order of `HE_STAINS`, shape (4, size, size), float32, 0 or more.

    Raises:
        ValueError: for a class that is not in `TISSUE_CLASSES`.
    """
    if class_name not in PARTS:
        raise ValueError(f"There is no tissue {class_name!r}. Choose one of {', '.join(TISSUE_CLASSES)}.")
    x, y = grid(size)
    unit = float(np.clip(0.055 * patient.scale * np.exp(rng.normal(0.0, 0.2)), 0.026, 0.11))
    section = Section(
        rng,
        size,
        unit,
        x,
        y,
        np.zeros((len(HE_STAINS), size, size), np.float32),
        np.zeros((size, size), np.float32),
        np.float32(rng.uniform(0.1, 0.3)) * smooth_noise(rng, int(np.clip(5.0 / unit, 4, size // 2)), size),
    )
    PARTS[class_name](section)
    stains = section.stains
    stains[EOSIN] *= 1 - 0.55 * section.cover
    stains[EOSIN] *= 1 + 0.10 * fractal_noise(rng, int(np.clip(30, 4, size // 2)), size, 2)
    return np.clip(stains, 0.0, None)


PARTS: dict[str, Callable[[Section], None]] = {
    "colon_aca": draw_colon_cancer,
    "colon_n": draw_colon_normal,
    "lung_aca": draw_lung_cancer,
    "lung_n": draw_lung_normal,
    "lung_scc": draw_lung_squamous,
}
