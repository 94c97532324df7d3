"""Real and synthetic images in one data set, under a named policy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from monai.data import Dataset

from .records import JUDGES, KEPT, Record, by_number, load_datalist
from .sampling import realized_first

MIXING = ("none", "synthetic", "real+synthetic", "fill-up")


class RealSyntheticDataset(Dataset):
    """A MONAI data set of real and synthetic records, each with its weight in the loss.

    The weights make the mean weighted loss of a training `real_weight` times the mean over real images plus the rest
    times the mean over synthetic ones, however often `OriginSampler` draws each with the same settings. Every class
    gets the same number of synthetic images, or the network would learn "synthetic" in place of the disease.

    Args:
        real: records of the roles shots or train.
        synthetic: records of origin "synthetic".
        mixing: "none" (real alone, the baseline), "synthetic" (synthetic alone), "real+synthetic", or "fill-up" (each
            class gets as many synthetic images as bring it to the size of the largest).
        synthetic_per_class: synthetic images of each class; None takes as many as the scarcest class has. For "fill-up"
            the largest number that a class may get.
        real_weight: share of the real images in the loss, 0 to 1; None gives every image the same weight.
        real_share: odds of a real image at each draw, for `OriginSampler`; None draws every image alike, and so does
            "fill-up", whose classes are level only then.
        synthetic_first: share of the epochs with synthetic images alone, for `OriginSampler`; 0 for "fill-up", whose
            synthetic images are of the smaller classes alone.
        num_epochs: epochs in all, of which `synthetic_first` is a whole number.
        seen_once: every image is seen once and `OriginSampler` draws none, as for a nearest-neighbor probe; the weights
            then hold the shares that its odds would have given.
        transform: applied to each record, as in `monai.data.Dataset`.

    Raises:
        ValueError: for an unknown policy, a record on the wrong side of the wall, a synthetic class that the real
            images lack, too few synthetic images, a `real_weight` of images that are never drawn, or a
            `synthetic_first` that `check_order` or `realized_first` refuses.

    Reference:
        Kim et al., "DataDream: Few-shot Guided Dataset Generation", 2024, equation 4, for the weighted loss.

    Example:
        >>> records = load_datalist("output/datalist.json")
        >>> drawn = load_datalist("output/synthetic/datalist.json")
        >>> dataset = RealSyntheticDataset(select(records, "shots"), drawn, synthetic_per_class=100)
    """

    def __init__(
        self,
        real: Sequence[Record],
        synthetic: Sequence[Record] = (),
        mixing: str = "real+synthetic",
        synthetic_per_class: int | None = None,
        real_weight: float | None = 0.5,
        real_share: float | None = None,
        synthetic_first: float = 0.0,
        num_epochs: int = 1,
        seen_once: bool = False,
        transform: Callable | Sequence[Callable] | None = None,
    ) -> None:
        if mixing not in MIXING:
            raise ValueError(f"There is no mixing policy {mixing!r}. Choose one of {', '.join(MIXING)}.")
        if real_weight is not None and not 0 <= real_weight <= 1:
            raise ValueError(f"real_weight is {real_weight}; it must lie between 0 and 1.")
        check_order(mixing, synthetic_first)
        _check_sides(real, synthetic)
        if mixing != "none":
            synthetic = relabeled(real, synthetic)
        kept = [] if mixing == "synthetic" else list(real)
        drawn: list[Record] = []
        if mixing == "fill-up":
            drawn, real_weight, real_share = fill_up(real, synthetic, synthetic_per_class), None, None
        elif mixing != "none":
            drawn = choose_synthetic(real, synthetic, synthetic_per_class)
        self.real_share = real_share
        weighing = weighted(kept, drawn, real_weight, real_share, synthetic_first, num_epochs, seen_once)
        super().__init__(weighing, transform)


def _check_sides(real: Sequence[Record], synthetic: Sequence[Record]) -> None:
    for record in real:
        if record.get("origin") != "real" or record.get("role") in JUDGES:
            raise ValueError(
                f"{record['image']} has origin {record.get('origin')!r} and role {record.get('role')!r}. "
                "Only real images with the role shots or train may train beside synthetic ones."
            )
    for record in synthetic:
        if record.get("origin") != "synthetic" or record.get("role") in JUDGES:
            raise ValueError(
                f"{record['image']} has origin {record.get('origin')!r} and role {record.get('role')!r}, "
                "but is named among the synthetic training images."
            )


def relabeled(real: Sequence[Record], synthetic: Sequence[Record]) -> list[Record]:
    """Synthetic records with the label that real ones of their class have: another run may count its classes otherwise.

    Without real records they keep their own.

    Raises:
        ValueError: when a synthetic class is none of the real ones; names both lists.
    """
    if not real:
        return list(synthetic)
    labels = {record["class_name"]: record["label"] for record in real}
    names = {record["class_name"] for record in synthetic}
    if not names <= set(labels):
        raise ValueError(
            f"The synthetic images are of the classes {sorted(names)}, but the real ones of {sorted(labels)}. Name a "
            "--synthetic_datalist of these classes alone, or name the real classes as it does (--class_map)."
        )
    return [{**record, "label": labels[record["class_name"]]} for record in synthetic]


def choose_synthetic(real: Sequence[Record], synthetic: Sequence[Record], per_class: int | None) -> list[Record]:
    """The same number of synthetic records of each class that the real ones have, the first ones by their number.

    Every image has a seed of its own, so the first are as good a draw as any; fewer are always part of more, also when
    images are added later.

    Raises:
        ValueError: when a class has fewer than asked for; names it.
    """
    names = sorted({record["class_name"] for record in real} or {record["class_name"] for record in synthetic})
    counts = Counter(record["class_name"] for record in synthetic)
    scarcest = min(names, key=lambda name: counts[name])
    wanted = counts[scarcest] if per_class is None else per_class
    if counts[scarcest] < wanted or wanted == 0:
        raise ValueError(
            f"The class {scarcest!r} has {counts[scarcest]} synthetic images, but {max(wanted, 1)} of each class are "
            f"asked for. Generate more (--images_per_class) or ask for fewer (--synthetic_per_class)."
        )
    chosen: list[Record] = []
    for name in names:
        members = (record for record in synthetic if record["class_name"] == name)
        chosen += sorted(members, key=by_number)[:wanted]
    return chosen


def fill_up(real: Sequence[Record], synthetic: Sequence[Record], most: int | None) -> list[Record]:
    """The first synthetic records of each class that bring it to the size of the largest real class.

    Raises:
        ValueError: when a class needs more than there are or than `most` allows; names it.
    """
    counts = Counter(record["class_name"] for record in real)
    chosen: list[Record] = []
    for name, count in sorted(counts.items()):
        missing = max(counts.values()) - count
        members = sorted((r for r in synthetic if r["class_name"] == name), key=by_number)
        allowed = len(members) if most is None else min(most, len(members))
        if missing > allowed:
            raise ValueError(
                f"The class {name!r} needs {missing} synthetic images to be as large as the largest, but {allowed} can "
                "be used. Generate more (--images_per_class) or allow more (--synthetic_per_class)."
            )
        chosen += members[:missing]
    return chosen


def weighted(
    real: Sequence[Record],
    synthetic: Sequence[Record],
    real_weight: float | None,
    real_share: float | None = None,
    synthetic_first: float = 0.0,
    num_epochs: int = 1,
    seen_once: bool = False,
) -> list[Record]:
    """What training needs of each record (real and synthetic ones differ in the rest), and a "weight".

    Over all draws of a training the weights have the mean 1. Arguments are those of `RealSyntheticDataset`.

    Raises:
        ValueError: for weights that the odds do not allow, see `check_shares` and `realized_first`.
    """
    weights = {"real": 1.0, "synthetic": 1.0}
    if real and synthetic:
        check_shares(real_weight, real_share, synthetic_first)
        if not seen_once:  # else there are no epochs to be whole
            synthetic_first = realized_first(synthetic_first, num_epochs)
        alike = len(real) / (len(real) + len(synthetic))
        drawn = share_of_draws(real_share, synthetic_first)
        drawn = alike if drawn is None else drawn
        share, seen = drawn if real_weight is None else real_weight, alike if seen_once else drawn
        if share != seen:
            weights = {"real": share / seen, "synthetic": (1 - share) / (1 - seen)}
    return [
        {**{key: record[key] for key in KEPT}, "weight": weights[record["origin"]]} for record in [*real, *synthetic]
    ]


def share_of_draws(real_share: float | None, synthetic_first: float) -> float | None:
    """The share of a training's draws that `OriginSampler` makes among the real images; None where all are alike."""
    return 1 - synthetic_first if synthetic_first else real_share


def check_shares(real_weight: float | None, real_share: float | None, synthetic_first: float) -> None:
    """Checks that images with a share in the loss are drawn.

    Raises:
        ValueError: when the odds leave out the real or the synthetic images, and `real_weight` does not.
    """
    drawn = share_of_draws(real_share, synthetic_first)
    if real_weight is None or drawn not in (0, 1) or drawn == real_weight:
        return
    key, value = ("synthetic_first", synthetic_first) if synthetic_first else ("real_share", real_share)
    raise ValueError(
        f"real_weight is {real_weight}, but with {key} {value} no {'synthetic' if drawn else 'real'} image is drawn. "
        f"Set real_weight to null, or {key} to a number between 0 and 1."
    )


def check_order(mixing: str | None, synthetic_first: float) -> None:
    """Checks that synthetic images that come first are of every class.

    Raises:
        ValueError: for "fill-up", whose largest class has none: the first epochs would see the others alone.
    """
    if mixing == "fill-up" and synthetic_first:
        raise ValueError(
            f"synthetic_first is {synthetic_first}, but with the mixing 'fill-up' the largest class has no synthetic "
            "image that could come first. Set synthetic_first to 0, or mixing to 'real+synthetic'."
        )


def load_synthetic(path: str | Path, mixing: str) -> list[Record]:
    """The synthetic records that a policy needs: none for the baseline, which runs without a generator.

    Raises:
        FileNotFoundError: when the policy needs images and none were generated.
    """
    return [] if mixing == "none" else load_datalist(path)
