"""The denoiser as an engine trains it: the frozen base and a trainable low-rank adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.utils import recurse_remove_peft_layers
from peft import LoraConfig
from torch import Tensor, nn

from .diffusion import Conditioning, LatentDiffusion
from .lora_state import InitialState, WeightAverage, lora_layers

TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")
LORA_INITS = ("gaussian", "kaiming", "pissa")


class Denoiser(nn.Module):
    """A latent diffusion's denoiser with the call that MONAI's engines make.

    Args:
        diffusion: whose denoiser and text encoders are used, in place.
    """

    def __init__(self, diffusion: LatentDiffusion) -> None:
        super().__init__()
        self.diffusion = diffusion
        self.adapter_number = diffusion.adapter_number
        for name, part in diffusion.adaptable.items():
            self.add_module(name, part)

    def forward(self, x: Tensor, timesteps: Tensor | None = None, context: Conditioning | None = None) -> Tensor:
        """The prediction for noisy latents.

        Args:
            x: noisy latents, shape (B, c, h, w).
            timesteps: shape (B,).
            context: text features, see `LatentDiffusion.encode_prompts`, or token ids, which are encoded here so that
                the text encoders can learn.

        Returns:
            Shape (B, c, h, w).

        Raises:
            ValueError: without timesteps or context, which MONAI's engines allow and a denoiser needs.
            RuntimeError: when the base has got another adapter since.
        """
        if timesteps is None or context is None:
            raise ValueError("A denoiser needs timesteps and context; use LatentDiffusionPrepareBatch.")
        if self.adapter_number != self.diffusion.adapter_number:
            raise RuntimeError(
                "The base model has another adapter now, so this denoiser would predict what nobody trained. Build it "
                "anew, or load a base of its own with LatentDiffusion."
            )
        if "token_ids" in context:
            context = self.diffusion.encode_ids(context)
        return self.diffusion.predict(x, timesteps, context)


class LoRADenoiser(Denoiser):
    """A denoiser whose base is frozen and to which a trainable low-rank adapter is added.

    Its `state_dict` holds the adapter alone, so that checkpoints are small and never hold the base. The adapter is
    float32 whatever the base is.

    Args:
        diffusion: base model; the adapter is added to it in place.
        rank: inner size of the update.
        alpha: numerator of its scale alpha / rank; None takes the rank, which keeps the scale at 1.
        dropout: on the adapter's input.
        target_modules: layers of the denoiser that are adapted: "attention", "all" (every linear layer and
            convolution) or their names.
        train_text_encoder: adapt the text encoders as well.
        text_target_modules: names of their layers that are adapted.
        use_dora: learn the size of each output's weights apart from their direction.
        use_rslora: scale by alpha / sqrt(rank) instead of alpha / rank.
        init: "gaussian", "kaiming", which both begin at the base itself, or "pissa", which begins with the largest
            singular values of the base's weights; its file is an ordinary adapter of twice the rank.
        ema_decay: keep an average of the adapter's weights over the steps, with this decay; it is what is saved and
            drawn with. None keeps none.
        gradient_checkpointing: compute activations anew in the backward pass, for less memory and more time.

    Raises:
        ValueError: when the base already has an adapter or none of the target layers, or for settings that do not go
            together.

    Reference:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021. https://arxiv.org/abs/2106.09685; Liu et
        al., "DoRA", 2024. https://arxiv.org/abs/2402.09353; Kalajdzievski, "rsLoRA", 2023.
        https://arxiv.org/abs/2312.03732; Meng et al., "PiSSA", 2024. https://arxiv.org/abs/2404.02948
    """

    def __init__(
        self,
        diffusion: LatentDiffusion,
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.0,
        target_modules: Sequence[str] | str | None = "attention",
        train_text_encoder: bool = False,
        text_target_modules: Sequence[str] = TEXT_TARGETS,
        use_dora: bool = False,
        use_rslora: bool = False,
        init: str = "gaussian",
        ema_decay: float | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        _check_options(diffusion, init, use_dora, train_text_encoder)
        super().__init__(diffusion)
        diffusion.denoiser.to(memory_format=torch.contiguous_format)  # see `load_adapter`
        names = list(diffusion.adaptable) if train_text_encoder else [diffusion.denoiser_name]
        self.adapted: dict[str, Any] = {name: diffusion.adaptable[name] for name in names}
        for name, part in self.adapted.items():
            targets = text_target_modules if name.startswith("text_encoder") else target_modules
            targets = _names_of(part, targets, diffusion.lora_targets)
            if init == "pissa" and any(isinstance(layer, nn.Conv2d) for layer in _layers(part, targets)):
                raise ValueError(
                    "lora_init 'pissa' is defined for linear layers, but lora_targets names convolutions as well. Use "
                    "--lora_targets attention, or another --lora_init."
                )
            config = LoraConfig(
                r=rank,
                lora_alpha=alpha or rank,  # type: ignore[arg-type]  # peft takes and scales by any number
                lora_dropout=dropout,
                target_modules=targets,
                use_dora=use_dora,
                use_rslora=use_rslora,
                init_lora_weights={"kaiming": True}.get(init, init),  # type: ignore[arg-type]
            )
            _add_adapter(diffusion, name, config)
            if gradient_checkpointing:
                _set_checkpointing(part, True)
        diffusion.adapter_number += 1
        self.adapter_number = diffusion.adapter_number
        self.lora_initial = InitialState(self.adapted) if init == "pissa" else None
        self.lora_average = WeightAverage(list(self.trainable_parameters()), ema_decay) if ema_decay else None
        self.register_state_dict_post_hook(_keep_adapter)
        self.register_load_state_dict_post_hook(_forgive_base)

    def trainable_parameters(self) -> Iterator[nn.Parameter]:
        """The adapter's parameters, for the optimizer."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within the block the adapter's weights are their average over the steps, when one is kept."""
        if self.lora_average is None:
            yield
            return
        parameters = list(self.trainable_parameters())
        kept = [parameter.detach().clone() for parameter in parameters]
        self.lora_average.model.copy_to(parameters)
        try:
            yield
        finally:
            for parameter, value in zip(parameters, kept):
                parameter.data.copy_(value)


def _check_options(diffusion: LatentDiffusion, init: str, use_dora: bool, train_text_encoder: bool) -> None:
    if has_adapter(diffusion):
        raise ValueError("The base model already has an adapter. remove_adapter(diffusion) takes it out.")
    if init not in LORA_INITS:
        raise ValueError(f"lora_init is {init!r}. It can be {', '.join(map(repr, LORA_INITS))}.")
    if use_dora and train_text_encoder:
        raise ValueError(
            "use_dora and train_text_encoder cannot go together: diffusers and transformers lose DoRA's magnitudes of "
            "text encoders without an error, and would draw other images from the file."
        )
    if init == "pissa" and use_dora:
        raise ValueError("lora_init 'pissa' and use_dora cannot go together: PiSSA's file could not be told as DoRA.")
    if init == "pissa" and diffusion.dtype != torch.float32:
        raise ValueError("lora_init 'pissa' changes the base's weights and needs them in float32; leave --amp out.")


def _add_adapter(diffusion: LatentDiffusion, name: str, config: LoraConfig) -> None:
    part = diffusion.adaptable[name]
    before = {key: parameter.data for key, parameter in part.named_parameters()}
    part.add_adapter(config)
    for key, module in lora_layers(part):
        weight = module.get_base_layer().weight
        if weight.data_ptr() != before[f"{key}.weight"].data_ptr():  # PiSSA puts its rest in the place of a weight
            diffusion.base_weights[name, f"{key}.weight"] = before[f"{key}.weight"]
        if not config.use_dora:
            module.register_forward_pre_hook(_leave_casting_to_autocast)
    for parameter in part.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _leave_casting_to_autocast(layer: Any, inputs: tuple[Tensor, ...]) -> None:
    """Under autocast an adapter's layer takes its input as it is; peft would copy it to float32 first, for nothing."""
    layer.cast_input_dtype_enabled = not torch.is_autocast_enabled(inputs[0].device.type)


def _set_checkpointing(part: Any, on: bool) -> None:
    if part.is_gradient_checkpointing == on:
        return
    names = ("enable_gradient_checkpointing", "disable_gradient_checkpointing")  # diffusers
    if not hasattr(part, names[0]):
        names = ("gradient_checkpointing_enable", "gradient_checkpointing_disable")  # transformers
    getattr(part, names[0] if on else names[1])()


def has_adapter(diffusion: LatentDiffusion) -> bool:
    """Whether a base has an adapter, beside its weights or written into them."""
    return bool(diffusion.base_weights) or any(lora_layers(part) for part in diffusion.adaptable.values())


def remove_adapter(diffusion: LatentDiffusion) -> None:
    """Makes a base again what its files say, to the last bit, whatever adapter it has."""
    diffusion.compiled = False
    if not has_adapter(diffusion):
        return
    for part in diffusion.adaptable.values():
        strip_adapter(part)
        _set_checkpointing(part, False)
        part.eval().requires_grad_(False)
    for (name, key), value in diffusion.base_weights.items():
        diffusion.adaptable[name].get_parameter(key).data = value
    diffusion.base_weights.clear()
    diffusion.adapter_number += 1


def strip_adapter(part: Any) -> None:
    """Takes the adapter's layers out of one part; the weights beneath stay as they are."""
    recurse_remove_peft_layers(part)
    if hasattr(part, "peft_config"):
        del part.peft_config
    part._hf_peft_config_loaded = False


def _names_of(part: nn.Module, targets: Sequence[str] | str | None, attention: Sequence[str]) -> list[str]:
    """The names of the layers that are adapted, for "attention", "all" or names."""
    if targets is None or targets == "attention":
        return list(attention)
    if targets == "all":
        return [name for name, layer in part.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    if isinstance(targets, str):
        raise ValueError(f"lora_targets is {targets!r}. It can be 'attention', 'all' or a list of names of layers.")
    return list(targets)


def _layers(part: nn.Module, targets: Sequence[str]) -> list[nn.Module]:
    """The layers that peft finds for names: whole names, or their ends."""
    ends = tuple(f".{target}" for target in targets)
    return [layer for name, layer in part.named_modules() if name in targets or name.endswith(ends)]


def _keep_adapter(module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]) -> None:
    for key in [key for key in state if "lora_" not in key]:
        del state[key]


def _forgive_base(module: nn.Module, incompatible: Any) -> None:
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if "lora_" in key]
