"""A latent diffusion model and the one place where pixels, latents and prompts change form."""

from __future__ import annotations

import functools
import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import CLIPTokenizer
from transformers.utils import logging as transformers_logging

from ..base_models import fingerprint, pipeline_class, resolve_base_model, weight_files
from .memory import check_memory

logger = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()  # reading a file of a few seconds needs none

# A prompt as the model sees it: token ids ("token_ids", "token_ids_2") before, and "features" (B, L, D), for some
# families with "pooled" (B, P), after the text encoders.
Conditioning = dict[str, Tensor]


class LatentDiffusion(ABC):
    """The frozen parts of a latent diffusion model, read from a folder in diffusers' format.

    `LatentDiffusion(name)` gives the class of the base's family; what differs between families (text encoders, time
    ids, prediction type, noise schedule) is known to these classes alone. It is no module: an engine moves, trains and
    saves only the network it is given, and these parts are never any of that. Images are in [0, 1]; only here do they
    become [-1, 1].

    Args:
        base_model: name, folder or hub id, see `resolve_base_model`.
        device: where the parts lie.
        dtype: of the denoiser and the text encoders; float32 trains on any machine. The autoencoder keeps float32
            weights, since those of some families overflow in float16; with bfloat16, which does not, it decodes in it.
        variant: "fp16" reads the files of half precision where the base has both.

    Raises:
        ValueError: for a pipeline of a family that is not known, or with a noise schedule that is not.
        MemoryError: when the base is too large for the free memory; told before anything is loaded.
    """

    families: ClassVar[dict[str, type[LatentDiffusion]]] = {}
    pipeline: ClassVar[Any]  # diffusers' pipeline, which saves and loads adapters
    denoiser_name: ClassVar[str] = "unet"
    denoiser_class: ClassVar[Any]
    text_encoder_classes: ClassVar[dict[str, Any]]
    lora_targets: ClassVar[tuple[str, ...]] = ("to_q", "to_k", "to_v", "to_out.0")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        LatentDiffusion.families[cls.pipeline.__name__] = cls

    def __new__(cls, base_model: str = "", *args: Any, **kwargs: Any) -> LatentDiffusion:
        if cls is not LatentDiffusion:
            return super().__new__(cls)
        kind = pipeline_class(resolve_base_model(base_model, kwargs.get("variant")))
        if kind not in cls.families:
            raise ValueError(f"{base_model!r} is a {kind}. Bases of these kinds can be used: {sorted(cls.families)}.")
        return super().__new__(cls.families[kind])

    def __init__(
        self,
        base_model: str,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        variant: str | None = None,
    ) -> None:
        self.base_model, self.variant, self.dtype = base_model, variant, dtype
        self.folder: Path = resolve_base_model(base_model, variant)
        self.device = torch.device(device)
        check_memory(self.folder, base_model, self.device, dtype, variant)
        self.noise_scheduler: Any = self.load_noise_scheduler()
        autoencoder = self._part(AutoencoderKL, "vae", torch.float32)
        self.autoencoder: Any = autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.denoiser: Any = self._part(self.denoiser_class, self.denoiser_name, dtype)
        self.text_encoders: dict[str, Any] = {
            name: self._part(kind, name, dtype) for name, kind in self.text_encoder_classes.items()
        }
        self.tokenizers: dict[str, Any] = {}
        for name in self.text_encoder_classes:
            suffix = name.removeprefix("text_encoder")
            tokenizer = CLIPTokenizer.from_pretrained(self.folder / f"tokenizer{suffix}", local_files_only=True)
            self.tokenizers[f"token_ids{suffix}"] = tokenizer
        self.base_weights: dict[tuple[str, str], Tensor] = {}  # those that an adapter has replaced, see networks.lora
        self.compiled = False  # see `denoise`
        self.adapter_number = 0  # of adapters that were put in or taken out so far
        self._told: set[str] = set()

    def _part(self, kind: Any, name: str, dtype: torch.dtype) -> nn.Module:
        folder = self.folder / name
        variant = "fp16" if ".fp16." in weight_files(folder, self.variant)[0].name else None
        options = {"use_safetensors": True, "torch_dtype": dtype, "local_files_only": True}
        return kind.from_pretrained(folder, variant=variant, **options).to(self.device).eval().requires_grad_(False)

    @property
    def adaptable(self) -> dict[str, Any]:
        """The parts that can have an adapter, by their names in the pipeline; the denoiser comes first."""
        return {self.denoiser_name: self.denoiser, **self.text_encoders}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the base model's weights."""
        return fingerprint(self.folder, self.variant)

    @property
    def image_size(self) -> int:
        """Side of the images the base was trained on, in pixels."""
        return int(self.denoiser.config.sample_size * self.downsampling)

    @property
    def downsampling(self) -> int:
        """Pixels per latent cell along a side."""
        return int(2 ** (len(self.autoencoder.config.block_out_channels) - 1))

    @property
    @abstractmethod
    def latent_step(self) -> int:
        """Latent cells of which a side must hold a whole number."""

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        """Shape (c, h, w) of the latent of a square image.

        Raises:
            ValueError: when the size is no multiple of what the autoencoder and the denoiser need.
        """
        step = self.downsampling * self.latent_step
        if image_size % step:
            raise ValueError(f"image_size is {image_size}; the base {self.base_model!r} needs a multiple of {step}.")
        side = image_size // self.downsampling
        return int(self.denoiser.config.in_channels), side, side

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the scaled latents.

        Args:
            images: shape (B, 3, H, W), in [0, 1].

        Returns:
            Two tensors of shape (B, c, h, w).
        """
        posterior = self.autoencoder.encode(images.to(self.device, torch.float32) * 2 - 1).latent_dist
        scale, shift = self._scale_and_shift()
        return (posterior.mean - shift) * scale, posterior.std * scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images of shape (B, 3, H, W) in [0, 1] from scaled latents of shape (B, c, h, w)."""
        scale, shift = self._scale_and_shift()
        pays = self.compiled and self.device.type == "cuda"  # on a CPU it takes longer than without
        decode = self._compiled_decoder if pays else self.autoencoder.decode
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            images = decode(latents.float() / scale + shift).sample.float()
        return (images / 2 + 0.5).clamp(0, 1)

    def _scale_and_shift(self) -> tuple[float, float]:
        return self.autoencoder.config.scaling_factor, getattr(self.autoencoder.config, "shift_factor", None) or 0.0

    def token_ids(self, prompts: list[str]) -> Conditioning:
        """Token ids of prompts, each of shape (B, 77); one that does not fit is cut, with a warning on what is lost."""
        for prompt in dict.fromkeys(prompts):
            self._tell_if_cut(prompt)
        options: dict[str, Any] = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        return {
            name: tokenizer(prompts, max_length=tokenizer.model_max_length, **options).input_ids
            for name, tokenizer in self.tokenizers.items()
        }

    def _tell_if_cut(self, prompt: str) -> None:
        tokenizer = self.tokenizers["token_ids"]
        ids, longest = tokenizer(prompt, verbose=False).input_ids, tokenizer.model_max_length
        if len(ids) <= longest or prompt in self._told:
            return
        self._told.add(prompt)
        logger.warning(
            "A prompt has %d tokens and the text encoder sees %d; it does not see: %s",
            len(ids),
            longest,
            tokenizer.decode(ids[longest - 1 : -1]),
        )

    @abstractmethod
    def encode_ids(self, ids: Conditioning) -> Conditioning:
        """Text features of token ids; gradients flow to the text encoders when these learn."""

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Conditioning:
        """Text features of prompts: "features" of shape (B, L, D), and "pooled" (B, P) where the family has it."""
        ids = {name: value.to(self.device) for name, value in self.token_ids(prompts).items()}
        return self.encode_ids(ids)

    @functools.cached_property
    def _compiled_denoiser(self) -> Any:
        return torch.compile(self.denoiser)

    @functools.cached_property
    def _compiled_decoder(self) -> Any:
        return torch.compile(self.autoencoder.decode)

    def denoise(self, *args: Any, **kwargs: Any) -> Tensor:
        """What the denoiser predicts, in float32; where `compiled` is set, as torch.compile made it.

        While it learns in bfloat16, an adapter's float32 weights are rounded for their products, as the base's are.
        """
        denoiser = self._compiled_denoiser if self.compiled else self.denoiser
        learns = torch.is_grad_enabled() and self.dtype == torch.bfloat16
        if not learns:
            return denoiser(*args, **kwargs).sample.float()
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False):
            return denoiser(*args, **kwargs).sample.float()

    @abstractmethod
    def predict(self, x: Tensor, timesteps: Tensor, context: Conditioning) -> Tensor:
        """The denoiser's prediction, float32, for noisy latents of shape (B, c, h, w) at timesteps of shape (B,)."""

    @abstractmethod
    def load_noise_scheduler(self) -> Any:
        """The base's noise schedule as diffusers has it.

        Raises:
            ValueError: for one that is not known.
        """

    @property
    @abstractmethod
    def prediction_type(self) -> str:
        """ "epsilon", "v_prediction" or "flow"."""

    def draw_timesteps(self, count: int) -> Tensor:
        """Random timesteps for training, shape (count,), one of each of as many equally likely parts of the schedule.

        Every timestep is as likely as if each were drawn alone; the gradient of a batch varies less.

        Reference:
            Kingma et al., "Variational Diffusion Models", 2021, appendix I.1, with a random number for each part.
        """
        parts = (torch.randperm(count) + torch.rand(count, dtype=torch.float64)) / count
        return self.timesteps_at(parts.clamp(1e-6, 1 - 1e-6))

    @abstractmethod
    def timesteps_at(self, quantiles: Tensor) -> Tensor:
        """Timesteps at quantiles of their distribution in training, between 0 and 1, shape (B,) of both."""

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents, shape (B, c, h, w)."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the denoiser shall predict, shape (B, c, h, w)."""

    @abstractmethod
    def signal_to_noise(self, timesteps: Tensor) -> Tensor:
        """Ratio of signal to noise power at timesteps of shape (B,), shape (B,)."""

    def solver_options(self, name: str) -> tuple[Any, dict[str, Any]]:
        """Class of a solver and its options over the base's own schedule.

        Raises:
            ValueError: for a solver that the family does not have; names those it has.
        """
        solvers = self.solvers()
        if name not in solvers:
            raise ValueError(f"There is no scheduler {name!r}. Choose one of {', '.join(solvers)}.")
        return solvers[name]

    def solver_timesteps(self, name: str, num_steps: int) -> list[int] | None:
        """The timesteps at which a solver calls the denoiser, falling; None leaves them to the solver."""
        return None

    @abstractmethod
    def solvers(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        """All solvers of the family by name."""
