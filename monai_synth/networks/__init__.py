"""Base models, denoisers with adapters, classifiers and encoders."""

from .adapter_files import adapter_sha256, load_adapter, read_adapter_metadata, save_adapter
from .base_models import fingerprint, resolve_base_model
from .classifiers import EncoderClassifier, ImageClassifier
from .clip import CLIPLoRAClassifier, PromptClassifier, zero_shot_clip
from .diffusion import LatentDiffusion
from .encoders import ImageEncoder
from .feature_encoder import FeatureEncoder
from .lora import Denoiser, LoRADenoiser, remove_adapter
from .neighbors import NeighborClassifier
from .published import published_classifier
from .sharing import release_diffusion, shared_diffusion
from .tokenizer import clip_tokenizer

__all__ = [
    "CLIPLoRAClassifier",
    "Denoiser",
    "EncoderClassifier",
    "FeatureEncoder",
    "ImageClassifier",
    "ImageEncoder",
    "LatentDiffusion",
    "LoRADenoiser",
    "NeighborClassifier",
    "PromptClassifier",
    "adapter_sha256",
    "clip_tokenizer",
    "fingerprint",
    "load_adapter",
    "published_classifier",
    "read_adapter_metadata",
    "release_diffusion",
    "remove_adapter",
    "resolve_base_model",
    "save_adapter",
    "shared_diffusion",
    "zero_shot_clip",
]
