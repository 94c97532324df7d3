"""Light through a stained section: one draw of stain, optics and camera per simulated patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

# Optical density of red, green and blue light per unit of concentration; each row has length 1.
HE_STAINS = {
    "hematoxylin": (0.60, 0.76, 0.24),
    "eosin": (0.13, 0.88, 0.45),
    "red_cell": (0.08, 0.74, 0.66),
    "pigment": (0.45, 0.58, 0.68),
}
GIEMSA_STAINS = {
    "azure_nucleus": (0.55, 0.76, 0.34),
    "azure_cytoplasm": (0.74, 0.62, 0.25),
    "eosin_granule": (0.22, 0.70, 0.68),
    "azure_granule": (0.52, 0.79, 0.33),
    "red_cell": (0.35, 0.67, 0.65),
}
STAINS = {"he": HE_STAINS, "giemsa": GIEMSA_STAINS}


@dataclass(frozen=True)
class Patient:
    """Everything that is the same in all images of one simulated patient."""

    stains: str  # "he" or "giemsa"
    density: np.ndarray  # (S, 3) optical density per unit of concentration, the strength of each stain included
    light: np.ndarray  # (3,) transmitted light without tissue, in [0, 1]
    blur: float  # standard deviation of the optics, as a fraction of the image side
    sharpening: float  # amount of the camera's unsharp mask
    noise: float  # standard deviation of the camera noise, in intensity
    gamma: float  # exponent of the camera curve
    saturation: float  # how much the camera's colors are spread around their mean, 1 leaves them
    vignetting: float  # loss of light in the corners, as a fraction
    scale: float  # size of the structures relative to the nominal magnification
    strength: float  # overall stain strength, 1 is nominal
    warmth: float  # color of the background, negative is blue, positive is yellow

    @property
    def attributes(self) -> dict[str, str]:
        """Words for the prompt: stain strength, stain hue, background and magnification."""
        red, _, blue = self.density[0] / np.linalg.norm(self.density[0])
        return {
            "strength": "pale" if self.strength < 0.8 else "dark" if self.strength > 1.25 else "medium",
            "hue": "blue" if red > 0.62 else "pink" if blue > 0.45 else "purple",
            "background": "yellow" if self.warmth > 0.12 else "blue" if self.warmth < -0.05 else "white",
            "magnification": "high" if self.scale > 1.2 else "low" if self.scale < 0.83 else "medium",
        }


def draw_patient(stains: str, seed: int, variety: float = 1.0) -> Patient:
    """The stain, optics and camera of one simulated patient.

    Args:
        stains: "he" for tissue or "giemsa" for blood cells.
        seed: seed of the draw; equal seeds give equal patients.
        variety: width of the draw; 1 is about that between laboratories, more trains a base model for unseen ones.
    """
    rng = np.random.default_rng([seed, 17])
    base = np.array(list(STAINS[stains].values()))
    turn = rng.normal(0.0, 0.04 * variety, base.shape)
    common = rng.normal(0.0, 0.035 * variety, 3)  # the filter and the sensor shift all stains alike
    vectors = np.clip(base + turn + common, 0.03, None)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    strength = float(np.exp(rng.normal(0.0, 0.20 * variety)))
    each = np.exp(rng.normal(0.0, 0.14 * variety, len(base)))
    warmth = float(np.clip(rng.normal(0.03, 0.06 * variety), -0.12, 0.42))
    brightness = rng.uniform(0.90, 1.0)
    light = brightness * np.array([1.0, 1.0 - 0.25 * abs(warmth) * rng.uniform(0, 1.5), 1.0 - max(warmth, 0.0)])
    light[0] -= max(-warmth, 0.0)
    return Patient(
        stains=stains,
        density=vectors * (strength * each)[:, None],
        light=np.clip(light + rng.normal(0.0, 0.01 * variety, 3), 0.4, 1.0),
        blur=float(np.exp(rng.normal(np.log(0.0035), 0.45))),
        sharpening=float(rng.choice([0.0, rng.uniform(0.2, 1.0)])),
        noise=float(rng.uniform(0.002, 0.012)),
        gamma=float(np.exp(rng.normal(0.0, 0.08 * variety))),
        saturation=float(np.exp(np.clip(rng.normal(0.28, 0.22 * variety), -0.5, 0.9))),
        vignetting=float(rng.uniform(0.0, 0.06)),
        scale=float(np.exp(np.clip(rng.normal(0.0, 0.16 * variety), -0.7, 0.7))),
        strength=strength,
        warmth=warmth,
    )


def render(concentrations: np.ndarray, patient: Patient, rng: np.random.Generator) -> np.ndarray:
    """The camera's image of a stained section, by the law of Beer and Lambert.

    Args:
        concentrations: amount of every stain, shape (S, H, W), 0 or more; about 1 is a well stained nucleus.
        patient: stain, optics and camera.
        rng: source of the camera noise.

    Returns:
        The image, shape (3, H, W), float32 in [0, 1].

    Reference:
        Ruifrok and Johnston, "Quantification of histochemical staining by color deconvolution", 2001.
    """
    side = concentrations.shape[-1]
    density = np.tensordot(patient.density.T.astype(np.float32), concentrations.astype(np.float32), axes=1)
    image = np.exp(-density) * patient.light.astype(np.float32)[:, None, None]
    sigma = patient.blur * side
    image = gaussian_filter(image, (0, sigma, sigma), mode="nearest", truncate=3.0)
    if patient.sharpening > 0:
        radius = max(0.7, 1.5 * sigma)
        image += patient.sharpening * (
            image - gaussian_filter(image, (0, radius, radius), mode="nearest", truncate=2.5)
        )
    if patient.vignetting > 0:
        axis = np.linspace(-1.0, 1.0, side, dtype=np.float32)
        image *= 1.0 - patient.vignetting * 0.5 * (axis[:, None] ** 2 + axis[None] ** 2)
    image = np.clip(image, 0.0, 1.0) ** np.float32(patient.gamma)
    grey = image.mean(axis=0)
    image = grey + np.float32(patient.saturation) * (image - grey)
    image += rng.standard_normal(image.shape, dtype=np.float32) * np.float32(patient.noise)
    return np.clip(image, 0.0, 1.0, dtype=np.float32)
