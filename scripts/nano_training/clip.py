"""The nano CLIP: an image tower and a text tower in open_clip's format that know phantoms and their captions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from monai_synth.data.phantom import phantom_caption
from monai_synth.networks.checkpoints import NANO_CLIP
from monai_synth.utils.io import read_json, write_json
from monai_synth.utils.tensors import save_safetensors

from .encoder import stains, views
from .loop import train, trained
from .phantoms import CLASS_NAMES, Phantoms

logger = logging.getLogger(__name__)


class Attributes:
    """The attributes of a phantom's patient as a shard's row has them."""

    def __init__(self, row: dict[str, str]) -> None:
        self.attributes = row


def caption(row: dict[str, str], rng: np.random.Generator) -> str:
    """A caption with some of the attributes; those of color are left out, since the images are recolored."""
    told = [name for name in ("background", "magnification") if rng.random() < 0.3]
    return phantom_caption(row["class_name"], Attributes(row), told)  # type: ignore[arg-type]


def build_clip() -> Any:
    """The pair with random weights; `monai_synth.networks` has told open_clip its architecture."""
    return open_clip.create_model(NANO_CLIP)


def train_clip(work_dir: Path, steps: int, batch_size: int, device: torch.device) -> None:
    """Trains the pair: which caption goes with which image; images of one caption are right answers alike."""
    phantoms = Phantoms(work_dir, device)
    labels = torch.tensor([CLASS_NAMES.index(row["class_name"]) for row in phantoms.rows], device=device)
    clip, tokenizer = build_clip().to(device), open_clip.get_tokenizer(NANO_CLIP)
    mean = torch.tensor(OPENAI_DATASET_MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(OPENAI_DATASET_STD, device=device).view(1, 3, 1, 1)

    def loss_of(step: int) -> dict[str, Tensor]:
        rng, generator = np.random.default_rng([5, step]), torch.Generator(device).manual_seed(step)
        indices = rng.integers(len(phantoms), size=batch_size)
        images = views(stains(phantoms.batch(indices), generator)[1], rng, generator)
        texts = tokenizer([caption(phantoms.rows[index], rng) for index in indices]).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            pictures = clip.encode_image((images - mean) / std, normalize=True).float()
            words = clip.encode_text(texts, normalize=True).float()
        scores = clip.logit_scale.exp().clamp(max=100.0) * pictures @ words.T
        truth = labels[torch.from_numpy(indices).to(device)]
        same = (truth[:, None] == truth[None]).float()  # the class decides; what else a caption says is a hint
        target = 0.8 * same / same.sum(1, keepdim=True) + 0.2 * torch.eye(batch_size, device=device)
        loss = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
        right = (truth[scores.argmax(dim=1)] == truth).float().mean()
        return {"loss": loss, "accuracy": right}

    train(work_dir, "clip", {"clip": clip}, loss_of, steps, 1e-3, 0.998)


def export_clip(work_dir: Path, output_dir: Path) -> None:
    """Writes the pair as open_clip's `local-dir:` reads it, in half precision."""
    clip = build_clip()
    trained(work_dir, "clip", {"clip": clip}, average=False)
    weights = {name: value.half().contiguous() for name, value in clip.state_dict().items()}
    save_safetensors(output_dir / "open_clip_model.safetensors", weights, {"format": "pt"})
    colors = {"mean": list(OPENAI_DATASET_MEAN), "std": list(OPENAI_DATASET_STD)}
    write_json(
        output_dir / "open_clip_config.json",
        {"model_cfg": open_clip.get_model_config(NANO_CLIP), "preprocess_cfg": colors},
    )
    logger.info(
        "Wrote the nano CLIP to %s: %s.", output_dir, json.dumps(read_json(output_dir / "open_clip_config.json"))
    )
