"""What each lever of a fine-tuning step does to the images that are drawn afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from monai_synth.networks import FeatureEncoder, LatentDiffusion, load_adapter

from .fine_tuning import SHIPPED, ladder
from .generation import Ours, Setting
from .quality import Quality, judge
from .shipped import train_as_shipped
from .timing import markdown

STEPS = 20  # of the sampler


class AdapterJudge:
    """Draws with adapters, all from the same seeds with our default sampler in bfloat16, and judges the images.

    Args:
        setting: the base, the prompts and where is drawn; its own adapter is not used.
        per_class: images of each class that are drawn.
        interval: noise levels at which guidance acts.
        real: features of real images of each class in the nano encoder, shape (N, D).
    """

    def __init__(
        self, setting: Setting, per_class: int, interval: tuple[float, float], real: dict[str, torch.Tensor]
    ) -> None:
        self.setting, self.per_class, self.interval, self.real = setting, per_class, interval, real
        self.encoder = FeatureEncoder("nano").to(setting.device)
        self.diffusion = LatentDiffusion(str(setting.base), device=setting.device, dtype=torch.bfloat16)

    def __call__(self, adapter: Path | None, name: str) -> Quality:
        """The quality of the images that an adapter draws into a folder of a name; None is the base alone."""
        folder = self.setting.folder / f"drawn_{name}"
        network = load_adapter(self.diffusion, adapter)
        ours = Ours(self.setting, STEPS, interval=self.interval, network=network)
        ours.draw(self.setting.requests(self.per_class), folder)
        return judge(self.real, folder, self.encoder)


def adapters_of(setting: Setting, images: list[tuple[Path, str]], steps: int) -> Iterator[tuple[str, Path]]:
    """The ways of the ladder, and the shipped trainer, each with the adapter that as many steps of it end with.

    The rate of the ladder's plain loop is constant, the trainer's warms up and falls. Every way begins with the same
    random numbers and takes the same batches; noise is drawn anew in each, since encoding draws from the same source.

    Args:
        setting: the base and where is trained.
        images: paths and prompts.
        steps: of the optimizer.
    """
    where = setting.base, setting.device, images, setting.size
    for number, (name, stepper) in enumerate(ladder(*where).items()):
        torch.manual_seed(0)
        for _ in range(steps):
            stepper.step()
        folder = setting.folder / f"way_{number}"
        stepper.save(folder)
        yield name, folder
    for name, precision in SHIPPED.items():
        folder = setting.folder / f"shipped{name.replace(', ', '_')}"
        train_as_shipped(*where, folder, max_steps=steps, **precision)
        yield f"train_diffusion.json{name}", folder


def benchmark_tuning_quality(
    setting: Setting,
    images: list[tuple[Path, str]],
    steps: int,
    per_class: int,
    interval: tuple[float, float],
    real: dict[str, torch.Tensor],
) -> str:
    """The table of the ladder with the distance of what each way draws after the same number of steps.

    Args:
        setting: the base, the prompts and where is trained and drawn; its own adapter is not used.
        images: paths and prompts.
        steps: of the optimizer.
        per_class: images of each class that are judged.
        interval: noise levels at which guidance acts.
        real: features of real images of each class in the nano encoder, shape (N, D).
    """
    quality = AdapterJudge(setting, per_class, interval, real)
    found = {"the base alone": quality(None, "base")}
    for name, adapter in adapters_of(setting, images, steps):
        found[name] = quality(adapter, adapter.name)
    rows = [[name, str(score), f"{score.vendi:.1f}", f"{score.recall:.2f}"] for name, score in found.items()]
    columns = ["way of a step", "KID x 1000 (95 %)", "Vendi score", "recall"]
    return markdown(f"Images after {steps} steps of fine-tuning", columns, rows)
