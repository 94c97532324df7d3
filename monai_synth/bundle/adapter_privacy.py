"""Whether an adapter tells whose images it was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser
from tqdm import tqdm

from ..data.records import Record
from ..metrics.privacy import (
    LEAK,
    NOT_TESTABLE,
    epsilon_lower_bound,
    group_scores,
    membership,
    membership_verdict,
)
from ..networks import LatentDiffusion, load_adapter, shared_diffusion
from ..transforms import LoadTile, ResizeCrop

Channel = dict[str, Any]


def adapter_channel(
    parser: ConfigParser,
    real: Sequence[Record],
    is_member: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    reason: str,
) -> Channel:
    """Whether the adapter denoises its shots better than other real images, compared with the base.

    Reference:
        Watson et al., "On the Importance of Difficulty Calibration in Membership Inference Attacks", 2022.
        https://arxiv.org/abs/2111.08440
    """
    if reason:
        return {"verdict": NOT_TESTABLE, "words": reason}
    get = parser.get_parsed_content
    diffusion = shared_diffusion(get("base_model"), get("device"), get("amp"), get("variant"))
    prompts = get("class_prompts")
    resize, load = ResizeCrop(get("image_size")), LoadTile()
    folder, scope = Path(get("adapter_dir")), get("adapter_scope")
    names = [record["class_name"] for record in real]
    images = torch.stack([resize(load(record["image"])) for record in real])
    latents = torch.cat([diffusion.encode(part)[0].cpu() for part in images.split(16)])
    base = denoising_losses(diffusion, None, latents, [prompts[name] for name in names], "base")
    adapted = np.zeros(len(real))
    for part in sorted(set(names)) if scope == "class" else [None]:
        rows = [place for place, name in enumerate(names) if part in (None, name)]
        own = folder if part is None else folder / part
        adapted[rows] = denoising_losses(
            diffusion, own, latents[rows], [prompts[names[place]] for place in rows], "adapter"
        )
    null = membership(-base, is_member, labels, groups)
    found = membership(base - adapted, is_member, labels, groups)
    numbers = {
        "membership": found.as_dict(),
        "null_control": null.as_dict(),
        "epsilon_lower_bound": epsilon_lower_bound(*group_scores(base - adapted, is_member, labels, groups)),
    }
    harder = membership(base, is_member, labels, groups)  # shots that are harder for the base have more to gain
    either_way = min(1.0, 2 * min(null.p_value, harder.p_value))
    if either_way < 0.01:
        words = (
            f"The base alone, which has seen none of them, tells the shots from the holdout (AUC {null.auc:.2f}, p "
            f"{either_way:.3g}): the two differ in kind, and the test would blame the adapter for it."
        )
        return {"verdict": NOT_TESTABLE, "words": words, **numbers}
    verdict, words = membership_verdict(found, "The gain of the adapter over the base")
    words += f" The base alone, as control: AUC {null.auc:.2f}."
    if verdict == LEAK:
        words += " Whoever has the adapter can tell whose images it was trained on: treat the file as patient data."
    return {"verdict": verdict, "words": words, **numbers}


@torch.no_grad()
def denoising_losses(
    diffusion: LatentDiffusion,
    adapter: Path | None,
    latents: torch.Tensor,
    prompts: Sequence[str],
    name: str,
    draws: int = 10,
    batch: int = 16,
) -> np.ndarray:
    """Mean squared error of the denoiser for each image over draws of timestep and noise, shape (N,).

    The draws depend on their number alone, so that base and adapter see the same ones and their difference is paired.

    Args:
        diffusion: base; gets the adapter.
        adapter: its folder, None for the base alone.
        latents: shape (N, c, h, w).
        prompts: of each image.
        name: for the progress bar.
        draws: timesteps, from a tenth to nine tenths of the schedule, each with a noise.
        batch: images at once.
    """
    denoiser = load_adapter(diffusion, adapter).to(diffusion.device)
    ids, losses = diffusion.token_ids(list(prompts)), np.zeros(len(latents))
    steps = diffusion.noise_scheduler.config.num_train_timesteps
    for draw in tqdm(range(draws), desc=f"losses of the {name}"):
        generator = torch.Generator().manual_seed(draw)
        noise = torch.randn(latents.shape[1:], generator=generator).expand_as(latents)
        moment = int(steps * (0.1 + 0.8 * draw / max(1, draws - 1)))
        timesteps = torch.full((len(latents),), moment)
        noisy, target = diffusion.add_noise(latents, noise, timesteps), diffusion.target(latents, noise, timesteps)
        for rows in torch.arange(len(latents)).split(batch):
            context = {key: value[rows].to(diffusion.device) for key, value in ids.items()}
            moments = timesteps[rows].to(diffusion.device)
            output = denoiser(noisy[rows].to(diffusion.device), moments, context).float().cpu()
            losses[rows.numpy()] += (output - target[rows]).square().mean(dim=(1, 2, 3)).double().numpy() / draws
    return losses
