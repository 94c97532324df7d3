"""The denoiser as an engine trains it, and its adapter as a standard diffusers file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from ..utils.io import save_safetensors
from .diffusion import LatentDiffusion

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
UNET_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
METADATA_KEY = "monai_synth"


class Denoiser(nn.Module):
    """A latent diffusion's denoiser with the call that MONAI's engines make.

    Args:
        diffusion: whose denoiser and text encoder are used, in place.
    """

    def __init__(self, diffusion: LatentDiffusion) -> None:
        super().__init__()
        self.unet: Any = diffusion.unet
        self.text_encoder: Any = diffusion.text_encoder

    def forward(self, x: Tensor, timesteps: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """The prediction for noisy latents.

        Args:
            x: noisy latents, shape (B, c, h, w).
            timesteps: shape (B,), whole numbers.
            context: text features, shape (B, L, D), or token ids, shape (B, L), which are encoded here so that the
                text encoder can learn.

        Returns:
            Shape (B, c, h, w).
        """
        if context is not None and not context.is_floating_point():
            context = self.text_encoder(context).last_hidden_state
        return self.unet(x, timesteps, context).sample


class LoRADenoiser(Denoiser):
    """A denoiser whose base is frozen and to which a trainable low-rank adapter is added.

    Its `state_dict` holds the adapter alone, so that checkpoints are small and never hold the base.

    Args:
        diffusion: base model; the adapter is added to it in place.
        rank: inner size of the update.
        alpha: numerator of its scale alpha / rank; None takes the rank, which keeps the scale at 1.
        dropout: on the adapter's input.
        target_modules: names of the denoiser's layers that are adapted.
        train_text_encoder: adapt the text encoder as well.
        text_target_modules: names of its layers that are adapted.

    Raises:
        ValueError: when the base already has an adapter or none of the target layers.

    Reference:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021. https://arxiv.org/abs/2106.09685
    """

    def __init__(
        self,
        diffusion: LatentDiffusion,
        rank: int = 16,
        alpha: int | None = None,
        dropout: float = 0.0,
        target_modules: Sequence[str] = UNET_TARGETS,
        train_text_encoder: bool = False,
        text_target_modules: Sequence[str] = TEXT_TARGETS,
    ) -> None:
        super().__init__(diffusion)
        self.rank, self.alpha = rank, alpha or rank
        options: dict[str, Any] = {"r": rank, "lora_alpha": self.alpha, "lora_dropout": dropout}
        self.unet.add_adapter(LoraConfig(target_modules=list(target_modules), init_lora_weights="gaussian", **options))
        self.trains_text_encoder = train_text_encoder
        if train_text_encoder:
            self.text_encoder.add_adapter(
                LoraConfig(target_modules=list(text_target_modules), init_lora_weights="gaussian", **options)
            )
        self.register_state_dict_post_hook(_keep_adapter)
        self.register_load_state_dict_post_hook(_forgive_base)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The adapter's parameters, for the optimizer."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)


def _keep_adapter(module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]) -> None:
    for key in [key for key in state if "lora_" not in key]:
        del state[key]


def _forgive_base(module: nn.Module, incompatible: Any) -> None:
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if "lora_" in key]


def save_adapter(network: LoRADenoiser, folder: str | Path, metadata: dict[str, Any]) -> Path:
    """Writes the adapter as `pytorch_lora_weights.safetensors`, which `load_lora_weights` of diffusers reads.

    Args:
        network: whose adapter is written.
        folder: where to.
        metadata: plain values about its origin, such as the base's fingerprint, classes, prompts, rank and seed;
            they go into the file's header.

    Returns:
        The path of the file.

    Raises:
        RuntimeError: when a weight is not a finite number; a file that is there stays as it was.
    """
    broken = [name for name, value in network.named_parameters() if value.requires_grad and not value.isfinite().all()]
    if broken:
        raise RuntimeError(
            f"{len(broken)} tensors of the adapter are not finite numbers, the first is {broken[0]}. It was not "
            f"written; the last good adapter, if there is one, stays in {folder}. Lower the learning rate."
        )
    text = network.text_encoder if network.trains_text_encoder else None
    with tempfile.TemporaryDirectory() as scratch:
        StableDiffusionPipeline.save_lora_weights(
            scratch,
            unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(network.unet)),
            text_encoder_lora_layers=(convert_state_dict_to_diffusers(_text_state(text)) if text is not None else None),
            unet_lora_adapter_metadata=_peft_metadata(network.unet),
            text_encoder_lora_adapter_metadata=_peft_metadata(text) if text is not None else None,
        )
        weights = load_file(Path(scratch) / ADAPTER_FILE)
        with safe_open(Path(scratch) / ADAPTER_FILE, framework="pt") as file:
            header = dict(file.metadata() or {})
    path = Path(folder) / ADAPTER_FILE
    save_safetensors(path, weights, {**header, METADATA_KEY: json.dumps(metadata)})
    return path


def _text_state(text_encoder: nn.Module) -> dict[str, Tensor]:
    return get_peft_model_state_dict(text_encoder, adapter_name="default")


def _peft_metadata(module: Any) -> dict[str, Any]:
    config = module.peft_config["default"].to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}


def read_adapter_metadata(folder: str | Path) -> dict[str, Any]:
    """What `save_adapter` noted about an adapter; empty for an adapter of another program.

    Raises:
        FileNotFoundError: when the folder has no adapter.
    """
    path = Path(folder) / ADAPTER_FILE
    if not path.is_file():
        raise FileNotFoundError(f"There is no adapter {path}. Run train_diffusion.json first.")
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))


def load_adapter(diffusion: LatentDiffusion, folder: str | Path | None) -> Denoiser:
    """The denoiser with an adapter written into its weights, for generation.

    Args:
        diffusion: base model, changed in place.
        folder: of the adapter; None is the base alone.

    Raises:
        FileNotFoundError: when the folder has no adapter.
        ValueError: when the adapter was trained on another base; both fingerprints are named.
    """
    if folder is None:
        return Denoiser(diffusion).eval()
    metadata = read_adapter_metadata(folder)
    trained_on = metadata.get("base_fingerprint", diffusion.fingerprint)
    if trained_on != diffusion.fingerprint:
        raise ValueError(
            f"The adapter in {folder} belongs to the base {metadata.get('base_model')!r} ({trained_on[:12]}), but the "
            f"base is {diffusion.base_model!r} ({diffusion.fingerprint[:12]}). Name the base it was trained on, or "
            "train an adapter for this one."
        )
    state, alphas, header = StableDiffusionPipeline.lora_state_dict(
        str(folder), weight_name=ADAPTER_FILE, return_lora_metadata=True, local_files_only=True
    )
    StableDiffusionPipeline.load_lora_into_unet(
        state, network_alphas=alphas, unet=diffusion.unet, adapter_name="default", metadata=header
    )
    diffusion.unet.fuse_lora()
    if any(key.startswith("text_encoder.") for key in state):
        StableDiffusionPipeline.load_lora_into_text_encoder(
            state, network_alphas=alphas, text_encoder=diffusion.text_encoder, adapter_name="default", metadata=header
        )
    diffusion.unet.requires_grad_(False)
    diffusion.text_encoder.requires_grad_(False)
    return Denoiser(diffusion).eval()
