"""Adapters as files that diffusers reads: written after training, put into a base for generation."""

from __future__ import annotations

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..utils.io import sha256_of
from ..utils.tensors import save_safetensors
from .diffusion import LatentDiffusion
from .lora import Denoiser, LoRADenoiser, lora_layers, remove_adapter, strip_adapter

logger = logging.getLogger(__name__)

ADAPTER_FILE = "pytorch_lora_weights.safetensors"
METADATA_KEY = "monai_synth"
EMBEDDED_ADAPTERS = {"nano_few_step": Path(__file__).resolve().parents[1] / "assets" / "nano_few_step"}


def save_adapter(network: LoRADenoiser, folder: str | Path, metadata: dict[str, Any]) -> Path:
    """Writes the adapter as `pytorch_lora_weights.safetensors`, which `load_lora_weights` of diffusers reads.

    Args:
        network: whose adapter is written, its average where one is kept.
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
    layers: dict[str, Any] = {}
    with network.averaged():
        for name, part in network.adapted.items():
            state, config = get_peft_model_state_dict(part, adapter_name="default"), _peft_metadata(part)
            if network.lora_initial is not None:
                state, config = _without_beginning(state, network.lora_initial.states[name], config)
            # peft's names throughout: diffusers' own ones for attention, mixed with peft's for other layers, would be
            # passed over by diffusers' loader without an error
            layers[f"{name}_lora_layers"] = state
            layers[f"{name}_lora_adapter_metadata"] = config
        with tempfile.TemporaryDirectory() as scratch:
            network.diffusion.pipeline.save_lora_weights(scratch, **layers)
            weights = load_file(Path(scratch) / ADAPTER_FILE)
            with safe_open(Path(scratch) / ADAPTER_FILE, framework="pt") as file:
                header = dict(file.metadata() or {})
    path = Path(folder) / ADAPTER_FILE
    save_safetensors(path, weights, {**header, METADATA_KEY: json.dumps(metadata)})
    return path


def _peft_metadata(module: Any) -> dict[str, Any]:
    config = module.peft_config["default"].to_dict()
    return {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}


def _without_beginning(
    state: dict[str, Tensor], initial: dict[str, Tensor], config: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """PiSSA's adapter as one for the unchanged base: B A - B0 A0 is one product of twice the rank.

    Reference:
        Meng et al., "PiSSA", 2024, appendix C. https://arxiv.org/abs/2404.02948
    """
    result = {}
    for key, value in state.items():
        before = initial[key].to(value)
        joined = [value, before] if "lora_A" in key else [value, -before]
        result[key] = torch.cat(joined, dim=0 if "lora_A" in key else 1)
    growth = 2**0.5 if config["use_rslora"] else 2  # keeps the scale, alpha over the rank or its root
    changes = {"r": 2 * config["r"], "lora_alpha": growth * config["lora_alpha"], "init_lora_weights": True}
    return result, {**config, **changes}


def adapter_path(adapter: str | Path) -> Path:
    """The file of an adapter that is named by its folder or by itself, or of an embedded one by its name."""
    adapter = EMBEDDED_ADAPTERS.get(str(adapter), adapter)
    return Path(adapter) if Path(adapter).suffix == ".safetensors" else Path(adapter) / ADAPTER_FILE


def read_adapter_metadata(folder: str | Path) -> dict[str, Any]:
    """What `save_adapter` noted about an adapter; empty for an adapter of another program.

    Raises:
        FileNotFoundError: when the folder has no adapter.
    """
    path = adapter_path(folder)
    if not path.is_file():
        raise FileNotFoundError(f"There is no adapter {path}. Run train_diffusion.json first.")
    with safe_open(path, framework="pt") as file:
        return json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))


def adapter_sha256(folder: str | Path | None) -> str:
    """The SHA-256 of an adapter's file, or "none" without an adapter."""
    return "none" if folder is None else sha256_of(adapter_path(folder))


def load_adapter(
    diffusion: LatentDiffusion,
    folder: str | Path | None,
    few_step: str | Path | None = None,
    compile: bool = False,
) -> Denoiser:
    """The denoiser with an adapter written into its weights, for generation.

    An adapter that the base had before is taken out first, so that one base serves one adapter after another.

    Args:
        diffusion: base model, changed in place; `remove_adapter` makes it again what it was.
        folder: of the adapter; None is the base alone.
        few_step: folder or file of an adapter that lets the base draw in a few steps (LCM-LoRA, Hyper-SD), or
            "nano_few_step" for the embedded one of the nano base; it is written in on top.
        compile: let torch.compile make the denoiser and, on a GPU, the decoder faster, once for all adapters of a base.

    Raises:
        FileNotFoundError: when there is no adapter.
        ValueError: when an adapter was trained on another base, both fingerprints are named, or fits no part of it.

    Reference:
        Luo et al., "LCM-LoRA: A Universal Stable-Diffusion Acceleration Module", 2023, section 2.3: the two updates
        are added. https://arxiv.org/abs/2311.05556
    """
    adapters = [adapter for adapter in (folder, few_step) if adapter is not None]
    for adapter in adapters:
        _check_origin(diffusion, adapter)
    remove_adapter(diffusion)
    for adapter in adapters:
        _put_in(diffusion, adapter)
        diffusion.adapter_number += 1
    diffusion.compiled = compile
    if diffusion.device.type == "cuda":
        diffusion.denoiser.to(memory_format=torch.channels_last)  # faster without gradients, slower with them
    return Denoiser(diffusion).eval()


def _put_in(diffusion: LatentDiffusion, folder: str | Path) -> None:
    state, alphas, header = _read(diffusion, folder)
    fits = [name for name in diffusion.adaptable if any(key.startswith(f"{name}.") for key in state)]
    if not fits:
        raise ValueError(f"The adapter in {folder} has no weights for {list(diffusion.adaptable)}.")
    for name in fits:
        _put_beside(diffusion, name, state, alphas, header)
        _write_in(diffusion, name)


def _check_origin(diffusion: LatentDiffusion, folder: str | Path) -> None:
    metadata = read_adapter_metadata(folder)
    if "base_fingerprint" not in metadata:
        logger.warning(
            "The adapter in %s, of another program, does not say which base it was trained on; that it was %s is taken "
            "on trust.",
            folder,
            diffusion.base_model,
        )
    trained_on = metadata.get("base_fingerprint", diffusion.fingerprint)
    if trained_on != diffusion.fingerprint:
        raise ValueError(
            f"The adapter in {folder} belongs to the base {metadata.get('base_model')!r} ({trained_on[:12]}), but the "
            f"base is {diffusion.base_model!r} ({diffusion.fingerprint[:12]}). Name the base it was trained on, or "
            "train an adapter for this one."
        )


def _read(diffusion: LatentDiffusion, folder: str | Path) -> tuple[dict[str, Tensor], Any, Any]:
    """An adapter's weights, with the scales that files of other programs have, and the header of diffusers' files."""
    path = adapter_path(folder)
    options = {"weight_name": path.name, "return_lora_metadata": True, "local_files_only": True}
    if diffusion.denoiser_name == "unet":
        options["unet_config"] = diffusion.denoiser.config
    state, *alphas, header = diffusion.pipeline.lora_state_dict(str(path.parent), **options)
    return state, alphas[0] if alphas else None, header


def _put_beside(diffusion: LatentDiffusion, name: str, state: dict[str, Tensor], alphas: Any, header: Any) -> None:
    options = {"network_alphas": alphas, "prefix": name, "adapter_name": "default", "metadata": header}
    if name == diffusion.denoiser_name:
        diffusion.denoiser.load_lora_adapter(state, **options)
    else:
        part = diffusion.text_encoders[name]
        diffusion.pipeline.load_lora_into_text_encoder(state, text_encoder=part, **options)


def _write_in(diffusion: LatentDiffusion, name: str) -> None:
    """Merges one part's adapter into its weights, computed in float32, and keeps the weights it replaces."""
    part = diffusion.adaptable[name]
    for key, module in lora_layers(part):
        layer = module.get_base_layer()
        before = layer.weight.data
        module.float().merge(safe_merge=True)
        layer.to(before.dtype)
        diffusion.base_weights.setdefault((name, f"{key}.weight"), before)
    strip_adapter(part)
    part.eval().requires_grad_(False)
