"""Runs the bundles' whole job on real images over several draws of the shots, and prints the table for the docs.

    python scripts/real_images.py --data_dir my_data --set wbc_bccd --shots 5 10 --draws 3 --work_dir runs

Each run is the shipped `train.json` with `--dataset_dir`, `--shots` and `--seed`; a complete one is not run again.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from monai_synth.utils import read_json

ROOT = Path(__file__).resolve().parents[1]
ARMS = ("none", "real+synthetic")


def command_of(data_dir: Path, name: str, shots: int, seed: int, output_dir: Path, more: list[str]) -> list[str]:
    """The command line of one run."""
    return [
        *(sys.executable, "-m", "monai.bundle", "run"),
        *("--config_file", str(ROOT / "bundles" / name.split("_")[0] / "configs" / "train.json")),
        *("--dataset_dir", str(data_dir / name)),
        *("--output_dir", str(output_dir)),
        *("--model_path", str(output_dir / "model.pt")),
        *("--shots", str(shots), "--seed", str(seed)),
        *more,
    ]


def balanced_accuracies(output_dir: Path) -> dict[str, float]:
    """Balanced accuracy of each arm of a run."""
    folders = {arm: next((output_dir / "classifier").glob(f"*_{arm}")) for arm in ARMS}
    return {arm: read_json(path / "evaluation" / "metrics.json")["balanced_accuracy"] for arm, path in folders.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--set", nargs="+", required=True, help="folders of data_dir")
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--draws", type=int, default=3, help="draws of the shots: seeds 0, 1, ...")
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--more", default="", help="further settings, as one text")
    args = parser.parse_args()
    rows = []
    for name in args.set:
        for shots in args.shots:
            results = []
            for seed in range(args.draws):
                output_dir = args.work_dir / f"{name}_shots{shots}_seed{seed}"
                output_dir.mkdir(parents=True, exist_ok=True)
                command = command_of(args.data_dir, name, shots, seed, output_dir, shlex.split(args.more))
                began = time.time()
                with open(output_dir / "log.txt", "a") as log:
                    subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
                results.append(balanced_accuracies(output_dir))
                print(f"{name}, {shots} shots, draw {seed}: {results[-1]} ({time.time() - began:.0f} s)", flush=True)
            rows.append((name, shots, results))
    print(f"\n{platform.machine()}, {time.strftime('%Y-%m-%d')}, {args.draws} draws of the shots, balanced accuracy\n")
    print("| set | shots | real images alone | real + synthetic | paired differences |")
    print("|---|---|---|---|---|")
    for name, shots, results in rows:
        real, both = (np.array([result[arm] for result in results]) for arm in ARMS)
        differences = ", ".join(f"{value:+.3f}" for value in both - real)
        print(f"| `{name}` | {shots} | {real.mean():.3f} | {both.mean():.3f} | {differences} |")


if __name__ == "__main__":
    main()
