"""MONAI transforms for tiles, stains, prompts and latents."""

from .color import RandHSVJitterd, RandJPEGd, RandPolicyd
from .latents import EncodeLatent, EncodeLatentd, EncodePromptd, RandLatentView, RandLatentViewd
from .macenko import NormalizeStain, NormalizeStaind, normalize_stain, tissue_share
from .prompts import PromptFromClass, PromptFromClassd
from .reinhard import MatchColorsd, match_colors
from .stain import RandStainJitter, RandStainJitterd
from .tile import LoadTile, LoadTiled, ResizeCrop, ResizeCropd
from .untracked import UntrackedCompose
from .views import SelectViewd, dihedral_views

__all__ = [
    "EncodeLatent",
    "EncodeLatentd",
    "EncodePromptd",
    "LoadTile",
    "LoadTiled",
    "MatchColorsd",
    "NormalizeStain",
    "NormalizeStaind",
    "PromptFromClass",
    "PromptFromClassd",
    "RandHSVJitterd",
    "RandJPEGd",
    "RandLatentView",
    "RandLatentViewd",
    "RandPolicyd",
    "RandStainJitter",
    "RandStainJitterd",
    "ResizeCrop",
    "ResizeCropd",
    "SelectViewd",
    "UntrackedCompose",
    "dihedral_views",
    "match_colors",
    "normalize_stain",
    "tissue_share",
]
