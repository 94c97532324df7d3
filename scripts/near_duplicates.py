"""Compares the near-duplicates that are found in folders with their `groups.csv`, and prints the table for the docs.

    python scripts/near_duplicates.py my_data/colon_lc25000 my_data/lung_lc25000 --encoder nano

Without a `groups.csv` every image counts as an original of its own, so that all that is joined is counted.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np
import torch
from monai.transforms import Compose
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from tqdm import tqdm

from monai_synth.data import list_images
from monai_synth.data.near_duplicates import find_near_duplicates
from monai_synth.networks import FeatureEncoder
from monai_synth.transforms import LoadTile, ResizeCrop, dihedral_views


def truth_of(folder: Path, paths: list[Path]) -> np.ndarray:
    """The group of each image by the folder's `groups.csv`."""
    if not (folder / "groups.csv").is_file():
        return np.array([str(path) for path in paths])
    with open(folder / "groups.csv", newline="", encoding="utf-8") as file:
        known = {row["image"]: row["group"] for row in csv.DictReader(file)}
    return np.array([known[path.relative_to(folder).as_posix()] for path in paths])


def outside_and_joined(groups: np.ndarray, truth: np.ndarray) -> tuple[int, int]:
    """Siblings outside the group that holds most of their original's, and originals joined with another."""
    outside = 0
    for name in np.unique(truth):
        sizes = np.unique(groups[truth == name], return_counts=True)[1]
        outside += int(sizes.sum() - sizes.max())
    return outside, sum(len(np.unique(truth[groups == group])) - 1 for group in np.unique(groups))


@torch.no_grad()
def groups_by_features(paths: list[Path], encoder: FeatureEncoder, truth: np.ndarray, most_joined: int) -> np.ndarray:
    """What the features of an encoder would make of it: images are joined by the cosine of whitened features at the
    best of 8 flips and quarter turns, from the lowest threshold on that joins no more originals than allowed.

    Args:
        paths: of the images.
        encoder: gives the features.
        truth: originals; a yardstick may look at them to set its threshold.
        most_joined: originals that may be joined with another.
    """
    load = Compose([LoadTile(), ResizeCrop(encoder.size), dihedral_views])
    features = np.stack([encoder(load(path)).numpy() for path in tqdm(paths, desc=encoder.name)])
    features -= features[:, 0].mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(features.reshape(-1, features.shape[-1]).T))
    features = features @ (vectors[:, -128:] / np.sqrt(values[-128:]))
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    alike = np.max([features[:, 0] @ features[:, view].T for view in range(features.shape[1])], axis=0)
    alike = np.maximum(alike, alike.T)
    np.fill_diagonal(alike, -1)
    groups = np.arange(len(paths))
    for threshold in np.quantile(alike[truth[:, None] != truth[None]], 1 - np.logspace(-6, -3, 25)):
        joined = connected_components(coo_matrix(alike > threshold), directed=False)[1]
        if outside_and_joined(joined, truth)[1] > most_joined:
            return groups
        groups = joined
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--encoder", help="beside it, what the features of this encoder would find: a name or folder")
    options = parser.parse_args()
    print("| folder, way | images | originals | siblings outside their main group | originals joined | seconds |")
    print("|---|---|---|---|---|---|")
    for folder in options.folders:
        paths = [Path(record["image"]) for record in list_images(folder)]
        truth, began = truth_of(folder, paths), time.time()
        found = find_near_duplicates(paths)
        joined = outside_and_joined(found.groups, truth)[1]
        print_row(f"`{folder.name}`, threshold {found.threshold:.2f}", found.groups, truth, began)
        if options.encoder:
            began = time.time()
            groups = groups_by_features(paths, FeatureEncoder(options.encoder), truth, joined)
            print_row(f"`{folder.name}`, features of {options.encoder}", groups, truth, began)


def print_row(what: str, groups: np.ndarray, truth: np.ndarray, began: float) -> None:
    """A row of the table."""
    outside, joined = outside_and_joined(groups, truth)
    sizes = np.unique(truth, return_counts=True)[1]
    print(
        f"| {what} | {len(truth)} | {len(sizes)} | {outside} of {sizes[sizes > 1].sum()} | {joined} "
        f"| {time.time() - began:.0f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
