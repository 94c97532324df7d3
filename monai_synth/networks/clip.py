"""CLIP as a classifier whose head is the text tower's view of the class prompts."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import open_clip
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from .attention import join_attention, split_attention
from .checkpoints import fit_weights, initial_weights
from .encoders import PREFIX, ImageEncoder, build_clip, clip_colors, clip_weights

logger = logging.getLogger(__name__)

TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj")  # of both towers, as in the adapters of the generator


class PromptClassifier(nn.Module):
    """An image encoder whose head is a constant matrix: the features of the class prompts times the logit scale.

    It is what zero-shot CLIP and `CLIPLoRAClassifier` are once their prompts are known, without a text tower.

    Args:
        name: of the encoder, see `ImageEncoder`.
        num_classes: number of classes, K.
        image_size: pixels of the images; None takes the size that the encoder was published with.
    """

    def __init__(self, name: str, num_classes: int, image_size: int | None = None) -> None:
        super().__init__()
        self.encoder = ImageEncoder(name, None, image_size).requires_grad_(False)
        self.register_buffer("head", torch.zeros(num_classes, self.encoder.feature_size))

    def forward(self, x: Tensor) -> Tensor:
        """Scaled cosines of shape (B, K) for images of shape (B, 3, H, W) in [0, 1]."""
        return nn.functional.normalize(self.encoder(x), dim=-1) @ self.head.t()

    def describe(self) -> dict[str, Any]:
        """What `published_classifier` needs to build this network again."""
        return {"family": "prompts", "name": self.encoder.name}


def zero_shot_clip(
    name: str, prompts: Sequence[str], checkpoint: str | None = None, image_size: int | None = None
) -> PromptClassifier:
    """CLIP that is asked which prompt fits an image best; nothing is trained.

    Args:
        name: a name of `open_clip.list_models()`.
        prompts: one for each class, in the order of the labels.
        checkpoint: weights of the whole model, see `find_weights`. None is random, which knows nothing.
        image_size: pixels of the images; None takes the size that the model was published with.

    Raises:
        ValueError: for an unknown name, a checkpoint of another model, or a size that the model cannot take.

    Reference:
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021.
        https://arxiv.org/abs/2103.00020
    """
    clip = loaded_clip(name, checkpoint, image_size).eval()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in clip_colors(initial_weights(name, checkpoint)))
    with torch.no_grad():
        return with_constant_head(clip, name, text_head(clip, tokens_of(name, prompts)), image_size, mean, std)


class CLIPLoRAClassifier(nn.Module):
    """CLIP with trainable low-rank adapters in its image and its text tower; class prompts are the head.

    The adapters lie on the query, key, value and output projections of every attention of both towers, each projection
    a linear layer of its own (see `SplitAttention` for why not peft's wrapper of torch's attention). The logit scale is
    trained too; everything else is frozen. `state_dict` holds adapters and logit scale alone, so checkpoints are small,
    and need the same base: without a checkpoint that is random, but the same in every run. `deployed` merges the
    adapters and computes the head once, for export and inference.

    Args:
        name: a name of `open_clip.list_models()`.
        prompts: one for each class, in the order of the labels.
        rank: inner size of the update.
        alpha: numerator of its scale alpha / rank; None takes the rank, which keeps the scale at 1.
        dropout: on the adapters' input.
        checkpoint: weights of the whole model, see `find_weights`. None is random.
        image_size: pixels of the images; None takes the size that the model was published with.

    Raises:
        ValueError: for an unknown name, a checkpoint of another model, a size that the model cannot take, or towers
            without torch's attention.

    Reference:
        Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021. https://arxiv.org/abs/2106.09685. For
        CLIP as here: Zanella and Ben Ayed, "Low-Rank Few-Shot Adaptation of Vision-Language Models", 2024.
        https://arxiv.org/abs/2405.18541
    """

    def __init__(
        self,
        name: str,
        prompts: Sequence[str],
        rank: int = 16,
        alpha: int | None = None,
        dropout: float = 0.0,
        checkpoint: str | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.name, self.image_size = name, image_size
        clip: Any = loaded_clip(name, checkpoint, image_size)
        if not split_attention(clip):
            raise ValueError(f"{PREFIX}{name} has no attention that takes adapters. Take ViT-B-16 or ViT-B-32.")
        clip.requires_grad_(False)
        options: dict[str, Any] = {"r": rank, "lora_alpha": alpha or rank, "lora_dropout": dropout}
        self.clip: Any = inject_adapter_in_model(LoraConfig(target_modules=list(TARGETS), **options), clip)
        self.clip.logit_scale.requires_grad_(True)
        self.register_buffer("tokens", tokens_of(name, prompts))
        mean, std = clip_colors(initial_weights(name, checkpoint))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self.register_state_dict_post_hook(_keep_trained)
        self.register_load_state_dict_post_hook(_forgive_base)

    def forward(self, x: Tensor) -> Tensor:
        """Scaled cosines of shape (B, K) for images of shape (B, 3, H, W) in [0, 1]."""
        features = self.clip.encode_image((x - self.mean) / self.std, normalize=True)
        return features @ text_head(self.clip, self.tokens).t()

    @torch.no_grad()
    def deployed(self) -> PromptClassifier:
        """The same classifier with merged adapters and a constant head; this one stays as it is."""
        training, head = self.training, text_head(self.eval().clip, self.tokens)
        self.train(training)
        clip = nn.Module()
        clip.visual = join_attention(copy.deepcopy(self.clip.visual))
        return with_constant_head(clip, self.name, head, self.image_size, self.mean, self.std)


def _trained(key: str) -> bool:
    return "lora_" in key or key.endswith("logit_scale")


def _keep_trained(module: nn.Module, state: dict[str, Any], prefix: str, local_metadata: dict[str, Any]) -> None:
    for key in [key for key in state if not _trained(key)]:
        del state[key]


def _forgive_base(module: nn.Module, incompatible: Any) -> None:
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if _trained(key)]


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def loaded_clip(name: str, checkpoint: str | None, image_size: int | None) -> Any:
    """A whole model of open_clip with the weights of a checkpoint, or random ones that are the same in every run."""
    with _same_random_numbers():
        clip = build_clip(name, image_size)
    checkpoint = initial_weights(name, checkpoint)
    if checkpoint:
        weights, path = clip_weights(clip, name, checkpoint)
        fit_weights(clip, weights, path, PREFIX + name)
    return clip


def tokens_of(name: str, prompts: Sequence[str]) -> Tensor:
    """Token ids of prompts, shape (K, L); a prompt that is cut off is told.

    Raises:
        ValueError: for prompts that are not a list of texts.
    """
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts) or not len(prompts):
        raise ValueError(f"prompts is {prompts!r}. It must be a list of texts, one for each class.")
    tokenizer = open_clip.get_tokenizer(name)
    for prompt in prompts:
        length = len(tokenizer.encode(prompt)) + 2 if hasattr(tokenizer, "encode") else 0
        if length > tokenizer.context_length:
            logger.warning("CLIP sees %d of the %d tokens of %r.", tokenizer.context_length, length, prompt)
    return tokenizer(list(prompts))


def text_head(clip: Any, tokens: Tensor) -> Tensor:
    """Unit features of prompts times the logit scale, which CLIP keeps at 100 or less; shape (K, D)."""
    return clip.logit_scale.exp().clamp(max=100.0) * clip.encode_text(tokens, normalize=True)


def with_constant_head(
    clip: Any, name: str, head: Tensor, image_size: int | None, mean: Tensor, std: Tensor
) -> PromptClassifier:
    """A classifier of a model's image tower, its colors, (1, 3, 1, 1) each, and a constant head, shape (K, D)."""
    network = PromptClassifier(PREFIX + name, len(head), image_size).to(head.device)
    network.encoder.tower.load_state_dict(clip.visual.state_dict())
    for buffer, value in ((network.head, head), (network.encoder.mean, mean), (network.encoder.std, std)):
        buffer.copy_(value)
    return network.eval()
