"""Base models, denoisers with adapters, and classifiers."""

from .base_models import fingerprint, resolve_base_model
from .classifiers import ImageClassifier
from .diffusion import LatentDiffusion
from .lora import Denoiser, LoRADenoiser, load_adapter, read_adapter_metadata, save_adapter
from .tokenizer import clip_tokenizer

__all__ = [
    "Denoiser",
    "ImageClassifier",
    "LatentDiffusion",
    "LoRADenoiser",
    "clip_tokenizer",
    "fingerprint",
    "load_adapter",
    "read_adapter_metadata",
    "resolve_base_model",
    "save_adapter",
]
