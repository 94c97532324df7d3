"""The measure: studies of `configs/studies/measure.yaml` on folders of real images, and the tables for the docs.

    python scripts/real_images.py --data_dir my_data --set wbc_pbc colon_lc25000 --shots 5 10 --work_dir real_runs

The name of a set begins with the bundle's. Images of the base without an adapter are drawn once for each set. Started
again, it goes on; `--print` prints the tables of what is complete.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from monai_synth.report.study_files import rows_if_any
from monai_synth.utils import read_json, write_text

ROOT = Path(__file__).resolve().parents[1]
BASE_ARM = "real + base without adapter"


def bundle_command(bundle: str, config: str, *overlays: str | Path, **settings: object) -> list[str]:
    """The command line of one config."""
    files = [str(ROOT / "bundles" / bundle / "configs" / f"{config}.json"), *map(str, overlays)]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", json.dumps(files)]
    return command + [word for key, value in settings.items() for word in (f"--{key}", str(value))]


def run(command: list[str], log: Path) -> None:
    """Runs a command, its output at the end of a file."""
    with open(log, "a") as file:
        subprocess.run(command, check=True, stdout=file, stderr=subprocess.STDOUT)


def measure(
    data_dir: Path, name: str, shots: int, work_dir: Path, images_per_class: int, draws: int, max_steps: int | None
) -> Path:
    """One set at one number of shots; gives the study's folder."""
    bundle, folder = name.split("_")[0], work_dir / f"{name}_shots{shots}"
    base = work_dir / f"{name}_base"
    base.mkdir(parents=True, exist_ok=True)
    same = {"dataset_dir": data_dir / name, "images_per_class": images_per_class}
    drawing = {"output_dir": base, "adapter_scope": "none", "amp": "bfloat16", **same}
    run(bundle_command(bundle, "generate", ROOT / "configs" / "few_steps" / "nano.yaml", **drawing), base / "log.txt")
    arm = {"mixing": "real+synthetic", "overlay": "configs/augmentation/strong.yaml"}
    arm["synthetic_datalist"] = str(base / "synthetic" / "datalist.json")
    grid = {"shots": [shots], "fold": list(range(draws)), "synthetic_per_class": [images_per_class]}
    overlay = work_dir / f"{folder.name}.json"
    write_text(overlay, json.dumps({f"arms#{BASE_ARM}": arm, **{f"grid#{key}": value for key, value in grid.items()}}))
    overlays = (ROOT / "configs" / "studies" / "measure.yaml", overlay)
    steps = {} if max_steps is None else {"max_steps": max_steps}
    study = bundle_command(bundle, "study", *overlays, output_dir=folder, **steps, **same)
    run(study, folder.with_suffix(".txt"))
    return folder


def interval(row: dict[str, str], prefix: str) -> str:
    """A difference with its interval: of the arm, or ("chosen_") of what the validation images keep of it."""
    difference, low, high = (float(row[prefix + key]) for key in ("difference", "low", "high"))
    return f"{difference:+.3f} ({low:+.3f} to {high:+.3f})"


def print_tables(folders: list[Path]) -> None:
    """Balanced accuracies with paired differences, and distances, of complete studies."""
    print(
        "\n| set, shots | arm | draws | balanced accuracy | reference | difference (95 %) | p (Holm) | kept | as kept |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for folder in folders:
        for row in rows_if_any(folder / "comparison.csv"):
            numbers = {key: float(row[key]) for key in ("balanced_accuracy", "reference")}
            print(
                f"| `{folder.name.replace('_shots', '`, ')} | {row['arm']} | {row['draws']} "
                f"| {numbers['balanced_accuracy']:.3f} | {numbers['reference']:.3f} | {interval(row, '')} "
                f"| {float(row['p_holm']):.3f} | {row['kept']} | {interval(row, 'chosen_')} |"
            )
    for folder in folders:
        if (folder / "run.json").is_file():
            noted = read_json(folder / "run.json")
            day = time.strftime("%Y-%m-%d", time.localtime(noted["began"]))
            print(
                f"\n{folder.name}: begun {day}, {noted['machine']['device']}, {noted['machine']['threads']} thread(s)"
            )
    print("\n| set, shots | class | floor | KID x 1000 of the synthetic images | ceiling | drawn over ceiling |")
    print("|---|---|---|---|---|---|")
    for folder in folders:
        distances = [row for row in rows_if_any(folder / "distances.csv") if row["kid"]]
        for class_name in dict.fromkeys(row["class_name"] for row in distances):
            own = [row for row in distances if row["class_name"] == class_name]
            floor, kid, ceiling = (
                1000 * np.nanmean([float(row[key] or "nan") for row in own]) for key in ("floor", "kid", "ceiling")
            )
            print(
                f"| `{folder.name.replace('_shots', '`, ')} | {class_name} | {floor:.1f} | {kid:.1f} | {ceiling:.1f} "
                f"| {kid / ceiling:.2f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--set", nargs="+", required=True, help="folders of data_dir")
    parser.add_argument("--shots", type=int, nargs="+", default=[5, 10])
    parser.add_argument("--draws", type=int, default=5, help="draws of the shots, each with other test images, up to 5")
    parser.add_argument("--images_per_class", type=int, default=200, help="synthetic images")
    parser.add_argument("--max_steps", type=int, help="optimizer steps of the fine-tuning; as shipped where not given")
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--print", action="store_true", help="print the tables of what is complete, and run nothing")
    args = parser.parse_args()
    wanted = [(shots, name) for shots in args.shots for name in args.set]
    if not args.print:
        for shots, name in wanted:
            began = time.time()
            measure(args.data_dir, name, shots, args.work_dir, args.images_per_class, args.draws, args.max_steps)
            print(f"{name}, {shots} shots: complete ({time.time() - began:.0f} s)", flush=True)
    print_tables([args.work_dir / f"{name}_shots{shots}" for shots, name in wanted])


if __name__ == "__main__":
    main()
