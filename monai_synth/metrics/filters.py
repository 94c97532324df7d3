"""Which synthetic images are fit to be used: limits that real images set, and what each image fails by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.preprocessing import normalize

from .quality import ImageSet, class_agreement

Array = np.ndarray
# Policies by name: the steps that an image must pass, in this order.
FILTERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "copies": ("contrast", "copy", "repeat"),
    "standard": ("contrast", "copy", "repeat", "label", "radius"),
}
COPY_SHARE = 0.01  # of real images of other groups than the shots', those nearest to a shot; what is nearer is suspect
OTHERS = f"{1 - COPY_SHARE:.0%} of real images of other groups"
REASONS = {
    "contrast": "flatter than any real image",
    "copy": f"nearer to a shot, in one of its 8 flips and turns, than {OTHERS} are",
    "repeat": f"nearer to an earlier synthetic image of its class than {OTHERS} are to a shot",
    "label": "a linear classifier of the shots sees the claimed class less than in real images of it",
    "radius": "further from all shots of its class than real images of it are",
}
FEWEST_FOR_LABELS = 10  # shots of every class; a classifier of fewer is no judge


@dataclass(frozen=True)
class Limits:
    """What real images say is possible.

    Args:
        contrast: the lowest standard deviation of the grey values.
        copy: the distance to the nearest shot, in one of its 8 flips and turns, that 99 % of the real images of other
            groups keep at least; of up to 100 of them, the smallest.
        label: for each class the lowest probability of the own class, NaN when there are too few judges of it; None
            when there are too few shots.
        radius: for each class the largest distance to the nearest shot, NaN when there are too few judges of it.
        judges: for each class the number of real images that set label and radius.
    """

    contrast: float
    copy: float
    label: Array | None
    radius: Array
    judges: Array


def distances_to_nearest(features: Array, others: Array) -> Array:
    """Euclidean distance of each row to its nearest of `others`, both of length 1, shape (N,), in bounded memory."""
    if not len(features):
        return np.zeros(0)
    return pairwise_distances_argmin_min(normalize(features), normalize(others))[1]


def real_limits(
    shots: ImageSet, views: Array, judges: ImageSet, contrasts: Array, class_names: Sequence[str], quantile: float
) -> Limits:
    """The limits that leave all but a share `quantile` of real images, step by step.

    A limit at the k-th most extreme of n judges refuses k in n + 1 further real images, the conformal rank (Vovk et
    al., "Algorithmic Learning in a Random World", 2005). So it lies at the largest k for which that is no more than
    `quantile`, and a class has limits of label and radius where there is one: at 0.05 from 19 judges on.

    Args:
        shots: images that the generator was fine-tuned on.
        views: features of their 8 flips and turns, shape (8 * K, D).
        judges: real images of other groups, such as the validation images.
        contrasts: standard deviations of the grey values of shots and judges.
        class_names: in the order of the labels.
        quantile: share of real images that a limit may refuse, 0 to 1.

    Raises:
        ValueError: when a class lacks shots or judges.
    """
    nearest = distances_to_nearest(judges.features, views)
    for label, name in enumerate(class_names):
        for role, images in (("shots", shots), ("validation images", judges)):
            if not (images.labels == label).any():
                raise ValueError(f"The class {name!r} has no {role}, without which no filter can be set. Use none.")
    fewest = min(int((shots.labels == label).sum()) for label in range(len(class_names)))
    counts = np.bincount(judges.labels, minlength=len(class_names))
    label_limits = None
    if fewest >= FEWEST_FOR_LABELS:
        claimed = _claimed(shots, judges, class_names)
        label_limits = _lowest(claimed, judges.labels, len(class_names), quantile)
    own = np.zeros(len(judges.labels))
    for k in range(len(class_names)):
        own[judges.labels == k] = _to_own_class(shots, judges.of_class(k), k)
    return Limits(
        contrast=float(np.min(contrasts)),
        copy=float(np.quantile(nearest, COPY_SHARE, method="lower")),
        label=label_limits,
        radius=-_lowest(-own, judges.labels, len(class_names), quantile),
        judges=counts,
    )


def _lowest(values: Array, labels: Array, num_classes: int, share: float) -> Array:
    """For each class the value that no more than a share of further ones is below; NaN where there are too few."""
    limits = np.full(num_classes, np.nan)
    for label in range(num_classes):
        own = np.sort(values[labels == label])
        rank = int((len(own) + 1) * share + 1e-9)
        if rank:
            limits[label] = own[min(rank, len(own)) - 1]
    return limits


def _claimed(shots: ImageSet, images: ImageSet, class_names: Sequence[str]) -> Array:
    return class_agreement(shots, images, None, class_names)["probabilities"]


def _to_own_class(shots: ImageSet, images: ImageSet, label: int) -> Array:
    return distances_to_nearest(images.features, shots.of_class(label).features)


def measured(
    step: str, shots: ImageSet, views: Array, images: ImageSet, contrasts: Array, class_names: Sequence[str]
) -> Array:
    """What a step measures of each synthetic image, shape (M,); images are in the order in which they were drawn."""
    if step == "contrast":
        return contrasts
    if step == "copy":
        return distances_to_nearest(images.features, views)
    if step == "label":
        return _claimed(shots, images, class_names)
    values = np.full(len(images.labels), np.inf)
    for label in range(len(class_names)):
        members = np.flatnonzero(images.labels == label)
        if step == "radius":
            values[members] = _to_own_class(shots, images.of_class(label), label)
            continue
        rows = normalize(images.features[members]) if len(members) else np.zeros((0, 1))
        for place in range(1, len(members)):
            gap = np.linalg.norm(rows[:place] - rows[place], axis=1)
            values[members[place]] = gap.min()
    return values


def failing(
    steps: Sequence[str],
    limits: Limits,
    shots: ImageSet,
    views: Array,
    images: ImageSet,
    contrasts: Array,
    class_names: Sequence[str],
) -> list[tuple[str, float, float] | None]:
    """The first step that each synthetic image fails with its value and the limit; None for the images that pass.

    What is said of an image depends on real images and on earlier images of its class alone, so more images change
    nothing for those that are there.

    Args:
        steps: names of steps, as in `FILTERS`.
        limits: from `real_limits`.
        shots: images that the generator was fine-tuned on.
        views: features of their 8 flips and turns.
        images: synthetic images, in the order in which they were drawn.
        contrasts: standard deviations of their grey values, shape (M,).
        class_names: in the order of the labels.
    """
    verdicts: list[tuple[str, float, float] | None] = [None] * len(images.labels)
    for step in steps:
        if step == "label" and limits.label is None:
            continue
        limit = np.broadcast_to(np.asarray(getattr(limits, "copy" if step == "repeat" else step)), (len(class_names),))
        limit = limit[images.labels]
        values = measured(step, shots, views, images, contrasts, class_names)
        bad = values > limit if step == "radius" else values < limit  # nothing is beyond NaN
        for place in np.flatnonzero(bad):
            if verdicts[place] is None:
                verdicts[place] = (step, float(values[place]), float(limit[place]))
    return verdicts
