"""MONAI transforms for tiles, stains, prompts and latents."""

from .latents import EncodeLatent, EncodeLatentd, EncodePromptd, RandLatentView, RandLatentViewd
from .prompts import PromptFromClass, PromptFromClassd
from .stain import RandStainJitter, RandStainJitterd
from .tile import LoadTile, LoadTiled, ResizeCrop, ResizeCropd

__all__ = [
    "EncodeLatent",
    "EncodeLatentd",
    "EncodePromptd",
    "LoadTile",
    "LoadTiled",
    "PromptFromClass",
    "PromptFromClassd",
    "RandLatentView",
    "RandLatentViewd",
    "RandStainJitter",
    "RandStainJitterd",
    "ResizeCrop",
    "ResizeCropd",
]
