"""Latent diffusion models: one interface, one class for each family of base models."""

from .interface import Conditioning, LatentDiffusion
from .stable_diffusion import StableDiffusion, StableDiffusionXL
from .stable_diffusion_3 import StableDiffusion3

__all__ = ["Conditioning", "LatentDiffusion", "StableDiffusion", "StableDiffusion3", "StableDiffusionXL"]
