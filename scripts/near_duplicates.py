"""Compares the near-duplicates that are found in folders with their `groups.csv`, and prints the table for the docs.

    python scripts/near_duplicates.py my_data/colon_lc25000 my_data/lung_lc25000

Without a `groups.csv` every image counts as an original of its own, so that all that is joined is counted.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import numpy as np

from monai_synth.data import list_images
from monai_synth.data.near_duplicates import find_near_duplicates


def truth_of(folder: Path, paths: list[Path]) -> np.ndarray:
    """The group of each image by the folder's `groups.csv`."""
    if not (folder / "groups.csv").is_file():
        return np.array([str(path) for path in paths])
    with open(folder / "groups.csv", newline="", encoding="utf-8") as file:
        known = {row["image"]: row["group"] for row in csv.DictReader(file)}
    return np.array([known[path.relative_to(folder).as_posix()] for path in paths])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    folders = parser.parse_args().folders
    print(
        "| folder | images | originals | threshold | siblings outside their main group | originals joined | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    for folder in folders:
        paths = [Path(record["image"]) for record in list_images(folder)]
        truth, began = truth_of(folder, paths), time.time()
        found = find_near_duplicates(paths)
        names, sizes = np.unique(truth, return_counts=True)
        largest = [np.unique(found.groups[truth == name], return_counts=True)[1].max() for name in names]
        outside = int(sum(size - most for size, most in zip(sizes, largest)))
        joined = sum(len(np.unique(truth[found.groups == group])) - 1 for group in np.unique(found.groups))
        several = int(sizes[sizes > 1].sum())
        print(
            f"| `{folder.name}` | {len(paths)} | {len(names)} | {found.threshold:.2f} | {outside} of {several} "
            f"| {joined} | {time.time() - began:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
