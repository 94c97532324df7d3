"""How near synthetic images are to real ones of their class, with the scale to read it by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from .distances import (
    FEWEST_FOR_FRECHET,
    Kernel,
    cubic_kernel,
    frechet_distance,
    gaussian_kernel,
    neighbor_scores,
    vendi_score,
)
from .statistics import resampled

Array = np.ndarray
FEWEST = 5  # images on each side for a distance; fewer say nothing
FEWEST_GROUPS = 3  # real groups; of two, every bootstrap sample would hold the same pair
FEWEST_FOR_FLOOR = 4  # real groups, so that each half has pairs of different groups


@dataclass(frozen=True)
class ImageSet:
    """Features of images with what is known of each.

    Args:
        features: shape (N, D), from one encoder.
        labels: classes, shape (N,).
        groups: patient or slide of each image, length N.
    """

    features: Array
    labels: Array
    groups: Array

    def of_class(self, label: int) -> ImageSet:
        """The images of one class."""
        return self.where(self.labels == label)

    def where(self, mask: Array) -> ImageSet:
        """The images that a mask of shape (N,) keeps."""
        return ImageSet(self.features[mask], self.labels[mask], self.groups[mask])

    @property
    def members(self) -> Array:
        """The number of each image's group, shape (N,)."""
        return np.unique(self.groups, return_inverse=True)[1] if len(self.groups) else np.zeros(0, int)


class Discrepancy:
    """The unbiased squared MMD of two sets whose images come in groups, for any weights of the images.

    Only pairs of different groups enter, on one side and across: two tiles of one slide are no independent draws, a
    patient with cells of two classes would otherwise draw these together, and a bootstrap sample that holds an image
    twice would compare it with itself.

    Args:
        real: N images.
        other: M images.
        kernel: gives the matrix (N, M) for two sets of features.

    Raises:
        ValueError: with fewer than two groups on a side.

    Reference:
        Gretton et al., "A Kernel Two-Sample Test", 2012, equation 3, over groups.
    """

    def __init__(self, real: ImageSet, other: ImageSet, kernel: Kernel = cubic_kernel) -> None:
        self.members = [real.members, other.members]
        if min(len(set(members)) for members in self.members) < 2:
            raise ValueError("A distance needs images of two groups (patients, slides or single images) on each side.")
        self.between, self.across = kernel(real.features, other.features), None
        if np.isin(real.groups, other.groups).any():
            self.across = (real.groups[:, None] != other.groups[None]).astype(float)
            self.between = self.between * self.across
        self.within = []
        for side, members in zip((real, other), self.members):
            matrix = kernel(side.features, side.features)
            matrix[members[:, None] == members[None]] = 0.0
            self.within.append(matrix)
        self.apart = [(members[:, None] != members[None]).astype(float) for members in self.members]

    def value(self, weights: Sequence[Array] | None = None) -> float:
        """The distance, around 0 for equal distributions.

        Args:
            weights: how often each real and each other image counts, shapes (N,) and (M,); None is once.
        """
        w = [np.ones(len(members)) for members in self.members] if weights is None else list(weights)
        own = [u @ k @ u / max(u @ a @ u, 1e-12) for u, k, a in zip(w, self.within, self.apart)]
        pairs = w[0].sum() * w[1].sum() if self.across is None else max(w[0] @ self.across @ w[1], 1e-12)
        return float(own[0] + own[1] - 2 * (w[0] @ self.between @ w[1]) / pairs)

    def interval(self, num_samples: int = 200, level: float = 0.95, seed: int = 0) -> tuple[float, float]:
        """Bootstrap interval over groups on both sides, of samples with at least two groups on each."""
        rng = np.random.default_rng(seed)
        values = [self.value([_with_pairs(members, rng) for members in self.members]) for _ in range(num_samples)]
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def _with_pairs(members: Array, rng: np.random.Generator) -> Array:
    """How often each image counts in a bootstrap sample of at least two groups: one alone has no pairs to compare."""
    while True:  # of two groups every second sample will do, of more nearly every one
        weights = resampled(members, rng)
        if len(np.unique(members[weights > 0])) > 1:
            return weights


def floor(real: ImageSet, kernel: Kernel = cubic_kernel, repeats: int = 20, seed: int = 0) -> tuple[float, float]:
    """Distance of real images to other real images of their class: mean and 95 % quantile over random halves of groups.

    Raises:
        ValueError: with fewer than four groups.
    """
    names = np.unique(real.groups)
    if len(names) < FEWEST_FOR_FLOOR:
        raise ValueError(f"Two halves of real groups need four groups, found {len(names)}.")
    rng, values = np.random.default_rng(seed), []
    for _ in range(repeats):
        half = np.isin(real.groups, rng.permutation(names)[: len(names) // 2])
        values.append(Discrepancy(real.where(half), real.where(~half), kernel).value())
    return float(np.mean(values)), float(np.quantile(values, 0.95))


def quality(
    real: ImageSet, synthetic: ImageSet, class_names: Sequence[str], num_samples: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Fidelity and variety of synthetic images, per class and pooled.

    Args:
        real: real images that the generator never saw, and no test images.
        synthetic: synthetic images, features of the same encoder.
        class_names: in the order of the labels.
        num_samples: bootstrap samples of the intervals.
        seed: of samples and halves.

    Returns:
        `classes` and `pooled`, each with the number of images, KID with its 95 % interval, its floor (real against
        real), its ceiling (the class against the nearest other one) and `ratio` = KID / ceiling (0 is as good as real,
        1 is as far as the wrong class); `cmmd` (Gaussian kernel of bandwidth 10 on features of length 10); precision,
        recall and density at equal n; Vendi score of both. What is pooled, and `fid`, are of the classes in the
        proportions of the real images, so that they do not measure how many of each class were drawn. A number that
        cannot be had is None, and `notes` says why. `fid` is given from 2,000 real images on.

    Raises:
        ValueError: for features of different sizes.
    """
    if real.features.shape[1:] != synthetic.features.shape[1:]:
        raise ValueError(
            f"Features of different encoders cannot be compared: real ones have D={real.features.shape[1:]}, synthetic "
            f"ones D={synthetic.features.shape[1:]}."
        )
    notes: list[str] = []
    classes = {}
    for label, name in enumerate(class_names):
        own, others = real.of_class(label), [real.of_class(k) for k in range(len(class_names)) if k != label]
        numbers = set_quality(own, synthetic.of_class(label), name, notes, num_samples, seed)
        ceilings = {
            class_names[k]: Discrepancy(own, other).value()
            for k, other in zip((k for k in range(len(class_names)) if k != label), others)
            if min(len(np.unique(own.groups)), len(np.unique(other.groups))) >= 2
        }
        nearest = min(ceilings, key=lambda key: ceilings[key]) if ceilings else None
        numbers |= {"ceiling": ceilings[nearest] if nearest else None, "nearest_class": nearest}
        kid, ceiling = numbers["kid"], numbers["ceiling"]
        numbers["ratio"] = kid / ceiling if kid is not None and ceiling and ceiling > 0 else None
        if ceiling is not None and ceiling <= 0:
            notes.append(
                f"{name}: real images are as near to those of {nearest} as to their own class (ceiling "
                f"{1000 * ceiling:.1f} x 0.001), so there is no ratio to it."
            )
        classes[name] = numbers
    real, synthetic = in_proportion(real, synthetic, seed)
    pooled = set_quality(real, synthetic, "all classes", notes, num_samples, seed)
    ratios = [numbers["ratio"] for numbers in classes.values() if numbers["ratio"] is not None]
    pooled["ratio"] = float(np.mean(ratios)) if ratios else None
    fid, note = frechet_or_reason(real, synthetic)
    return {"classes": classes, "pooled": pooled, "fid": fid, "fid_note": note, "notes": notes}


def in_proportion(real: ImageSet, synthetic: ImageSet, seed: int = 0) -> tuple[ImageSet, ImageSet]:
    """Both sets with the classes that both have, the synthetic ones drawn in the proportions of the real ones.

    As many synthetic images are kept as these proportions allow, at least one of each class.
    """
    counts = {label: int((real.labels == label).sum()) for label in np.unique(synthetic.labels)}
    counts = {label: count for label, count in counts.items() if count}
    if not counts:
        return real, synthetic
    share = min((synthetic.labels == label).sum() / count for label, count in counts.items())
    rng, kept = np.random.default_rng(seed), np.zeros(len(synthetic.labels), bool)
    for label, count in counts.items():
        places = rng.permutation(np.flatnonzero(synthetic.labels == label))
        kept[places[: max(1, int(share * count + 1e-9))]] = True
    return real.where(np.isin(real.labels, list(counts))), synthetic.where(kept)


def set_quality(
    real: ImageSet, synthetic: ImageSet, name: str, notes: list[str], num_samples: int, seed: int
) -> dict[str, Any]:
    """The numbers of `quality` for one set, apart from those that need other classes; reasons go to `notes`."""
    keys = ("kid", "kid_low", "kid_high", "floor", "floor_high", "cmmd", "precision", "recall", "density")
    numbers: dict[str, Any] = {"num_real": len(real.labels), "num_synthetic": len(synthetic.labels)}
    numbers |= dict.fromkeys([*keys, "vendi_real", "vendi_synthetic"])
    num_groups = len(np.unique(real.groups))
    if min(len(real.labels), len(synthetic.labels)) < FEWEST or num_groups < FEWEST_GROUPS:
        notes.append(
            f"{name}: {len(real.labels)} real images of {num_groups} groups and {len(synthetic.labels)} synthetic ones "
            f"are too few for a distance ({FEWEST} images and {FEWEST_GROUPS} groups are needed)."
        )
        return numbers
    distance = Discrepancy(real, synthetic)
    numbers["kid"] = distance.value()
    numbers["kid_low"], numbers["kid_high"] = distance.interval(num_samples, seed=seed)
    if num_groups >= FEWEST_FOR_FLOOR:
        numbers["floor"], numbers["floor_high"] = floor(real, seed=seed)
    else:
        notes.append(f"{name}: {num_groups} real groups are too few for a floor.")
    numbers["cmmd"] = Discrepancy(scaled(real), scaled(synthetic), gaussian_kernel(10.0)).value()
    count = min(len(real.labels), len(synthetic.labels))
    if count >= 7:
        numbers |= neighbor_scores(real.features, synthetic.features, seed=seed)
    rng = np.random.default_rng(seed)
    for key, side in (("vendi_real", real), ("vendi_synthetic", synthetic)):
        numbers[key] = vendi_score(side.features[rng.permutation(len(side.labels))[:count]])
    return numbers


def scaled(images: ImageSet, length: float = 10.0) -> ImageSet:
    """The images with features of one length, so that a fixed bandwidth means the same for every encoder."""
    norms = np.linalg.norm(images.features, axis=1, keepdims=True)
    return ImageSet(length * images.features / np.maximum(norms, 1e-12), images.labels, images.groups)


def frechet_or_reason(real: ImageSet, synthetic: ImageSet) -> tuple[float | None, str | None]:
    """FID where the sets are large enough, otherwise None and the reason."""
    count = min(len(real.labels), len(synthetic.labels))
    if count < FEWEST_FOR_FRECHET:
        return None, (
            f"No FID: with {count} images it measures their number more than their likeness; "
            f"{FEWEST_FOR_FRECHET} on each side are needed."
        )
    return frechet_distance(real.features, synthetic.features), None


def class_agreement(
    fitted_on: ImageSet, synthetic: ImageSet, checked_on: ImageSet | None, class_names: Sequence[str]
) -> dict[str, Any]:
    """How often a linear classifier of real images sees in a synthetic image the class that it claims.

    Args:
        fitted_on: real images that trained the generator or the classifier.
        synthetic: images to judge.
        checked_on: other real images, which tell how far the classifier itself is to be trusted.
        class_names: in the order of the labels.

    Returns:
        `synthetic` (share per class), `real` (the same on `checked_on`), and `probabilities`, the probability of the
        claimed class of each synthetic image, shape (M,).
    """
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced"))
    probe.fit(fitted_on.features, fitted_on.labels)
    columns = {label: place for place, label in enumerate(probe.classes_)}
    given = probe.predict_proba(synthetic.features)
    claimed = np.array([given[i, columns[k]] if k in columns else 0.0 for i, k in enumerate(synthetic.labels)])

    def shares(images: ImageSet) -> dict[str, float | None]:
        right = probe.predict(images.features) == images.labels
        return {
            name: float(right[images.labels == label].mean()) if (images.labels == label).any() else None
            for label, name in enumerate(class_names)
        }

    real = shares(checked_on) if checked_on is not None and len(checked_on.labels) else None
    return {"synthetic": shares(synthetic), "real": real, "probabilities": claimed}
