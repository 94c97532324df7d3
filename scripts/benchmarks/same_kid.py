"""Seconds of fine-tuning until the drawn images are as near to real ones as the works' way brings them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monai_synth.data.phantom import write_phantoms
from monai_synth.networks import FeatureEncoder

from .fine_tuning import Stepper
from .generation import Setting
from .quality import Quality, features_of
from .shipped import shipped_setting, train_as_shipped
from .timing import markdown, synchronize
from .tuning_quality import AdapterJudge

HELD_OUT = 300  # images of each class that judge
WORKS_RATE = 1e-4


@dataclass(frozen=True)
class Checkpoint:
    """How far a fine-tuning has come.

    Args:
        way: whose.
        steps: of the optimizer.
        seconds: that the fine-tuning took.
        quality: of what is drawn then.
    """

    way: str
    steps: int
    seconds: float
    quality: Quality


def write_patient(
    folder: Path, class_names: Sequence[str], shots: int, held_out: int, size: int, patient: int
) -> tuple[list[Path], dict[str, list[Path]]]:
    """Phantoms of one patient: the shots, and by class those that nobody trains on.

    Args:
        folder: for the images.
        class_names: of the phantoms.
        shots: of each class.
        held_out: of each class.
        size: pixels.
        patient: whose, a seed.
    """
    write_phantoms(folder, class_names, shots + held_out, 1, size, seed=patient)
    paths = {name: sorted((folder / name).glob("*.png")) for name in class_names}
    return [path for own in paths.values() for path in own[:shots]], {name: own[shots:] for name, own in paths.items()}


def train_the_works_way(
    setting: Setting, images: list[tuple[Path, str]], counts: Sequence[int]
) -> Iterator[tuple[float, Path]]:
    """Seconds and adapter after each number of steps, of one training whose clock stands still in between.

    The settings are the two works' own, as docs/the_works.md lists them: rank 16 in the attention of the denoiser and
    in the text encoder, AdamW at 1e-4, batches of 8, float32, no empty prompts, autoencoder and text encoder at every
    step. Two things are made easier for them: the rate is 1e-4 from the first step to the last, where theirs warms up
    for 100 steps and falls by a cosine over 600, so that every number of steps has all of it; and one adapter learns
    all classes, where they train one for each.

    Args:
        setting: the base and where is trained.
        images: paths and prompts.
        counts: numbers of steps.
    """
    stepper = Stepper(
        setting.base, setting.device, images, setting.size, False, False, learn_text=True, learning_rate=WORKS_RATE
    )
    seconds, done = 0.0, 0
    for count in sorted(counts):
        synchronize()
        start = time.perf_counter()
        for _ in range(count - done):
            stepper.step()
        synchronize()
        seconds, done = seconds + time.perf_counter() - start, count
        stepper.save(setting.folder / f"works_{count}")
        yield seconds, setting.folder / f"works_{count}"


def train_our_way(
    setting: Setting, images: list[tuple[Path, str]], counts: Sequence[int]
) -> Iterator[tuple[float, Path]]:
    """Seconds and adapter after each number of steps: train_diffusion.json as it is shipped, in bfloat16.

    The learning rate warms up and falls to nothing over the steps it is told, so each number has a training of its own.
    The seconds hold the encoding of images and prompts, all handlers and the writing of states and adapter.
    For the arguments see `train_the_works_way`.
    """
    for count in sorted(counts):
        folder = setting.folder / f"ours_{count}"
        changes = {"amp": "bfloat16", "max_steps": count}
        yield train_as_shipped(setting.base, setting.device, images, setting.size, folder, **changes), folder


def verdict(base: Quality, works: Sequence[Checkpoint], ours: Sequence[Checkpoint]) -> str:
    """In how much time each way comes as near as the works' way at its best, within the interval of that.

    Args:
        base: of images that the base draws without an adapter.
        works: the works' checkpoints.
        ours: ours.
    """
    best = min(works, key=lambda one: one.quality.kid)
    target = best.quality.kid + best.quality.error
    text = f"The works' way is nearest after {best.steps} steps, {best.quality}. "
    if base.kid <= target:
        return text + "The base alone is no further, so there is nothing to be reached: take more steps or images."

    def first(checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
        return min((one for one in checkpoints if one.quality.kid <= target), key=lambda one: one.seconds, default=None)

    theirs, own = first(works) or best, first(ours)
    text += f"It is within that interval (up to {target:.2f}) after {theirs.seconds:.1f} s ({theirs.steps} steps), "
    if own is None:
        return text + "ours never is."
    text += f"ours after {own.seconds:.1f} s ({own.steps} steps): {theirs.seconds / own.seconds:.1f}x."
    shipped = [one for one in ours if one.steps == shipped_setting("max_steps") and one.quality.kid <= target]
    for one in shipped:
        text += f" With the {one.steps} steps of the shipped config it takes {one.seconds:.1f} s for {one.quality}: "
        text += f"{theirs.seconds / one.seconds:.1f}x, {best.seconds / one.seconds:.1f}x against their nearest."
    return text


def benchmark_same_kid(
    setting: Setting,
    shots: int,
    counts: Sequence[int],
    per_class: int,
    interval: tuple[float, float],
    patient: int,
    held_out: int = HELD_OUT,
) -> str:
    """The table of both ways by number of steps, and what it says about the time to the same distance.

    All images are of one patient, as those of a small study are of one laboratory. All adapters draw with our default
    sampler in bfloat16, from the same seeds.

    Args:
        setting: the base, the prompts and where is trained and drawn; its own adapter is not used.
        shots: images of each class that are trained on.
        counts: numbers of steps after which is judged.
        per_class: images of each class that are drawn then.
        interval: noise levels at which guidance acts.
        patient: whose images, a seed.
        held_out: images of each class that judge.
    """
    setting = replace(setting, folder=setting.folder / f"patient_{patient}")
    side = min(setting.size, 512)
    paths, judges = write_patient(setting.folder, list(setting.prompts), shots, held_out, side, patient)
    images = [(path, setting.prompts[path.parent.name]) for path in paths]
    encoder = FeatureEncoder("nano").to(setting.device)
    quality = AdapterJudge(
        setting, per_class, interval, {name: features_of(own, encoder) for name, own in judges.items()}
    )
    base = quality(None, "base")
    ways = {"the works' way": train_the_works_way, "ours": train_our_way}
    trainings = {way: train(setting, images, counts) for way, train in ways.items()}
    found: dict[str, list[Checkpoint]] = {way: [] for way in ways}
    for count in sorted(counts):  # in turns, so that a busy machine slows both alike
        for way, training in trainings.items():
            seconds, adapter = next(training)
            found[way].append(Checkpoint(way, count, seconds, quality(adapter, adapter.name)))
    rows = [["the base alone", "0", "0", str(base), f"{base.recall:.2f}"]]
    for checkpoint in (one for checkpoints in found.values() for one in checkpoints):
        score = checkpoint.quality
        rows.append(
            [checkpoint.way, str(checkpoint.steps), f"{checkpoint.seconds:.1f}", str(score), f"{score.recall:.2f}"]
        )
    columns = ["way", "steps", "seconds of fine-tuning", "KID x 1000 (95 %)", "recall"]
    table = markdown(f"Time to the same distance, {shots} images of patient {patient} for each class", columns, rows)
    return f"{table}\n{verdict(base, *found.values())}\n"
