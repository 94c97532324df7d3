"""Everything that a report says, gathered from the files of a run; no weights and no GPU are needed."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ..data.audits import audit_of
from ..data.records import ROLES, class_names_of, load_datalist
from ..metrics.calibration import brier_score, expected_calibration_error, fit_temperature, with_temperature
from ..metrics.statistics import delong_interval, holm, paired_bootstrap
from ..utils.io import read_json
from .study_files import read_predictions, read_probabilities

STAGES = {"split": "datalist.json", "fine-tuning": "adapter/run.json", "generation": "synthetic/run.json"}
LIMITS = (
    "Synthetic images add no patients: what the shots do not show, the generator cannot know.",
    "An interval over the images of one draw of the shots says nothing about another draw; a study over several does.",
    "Distances hold for the one encoder that is named, and are never compared across encoders.",
    "No leak found means that these tests found none, with the power that is stated. It never means safe.",
    "Nothing here has been evaluated for clinical use.",
)


def collect(output_dir: str | Path) -> dict[str, Any]:
    """The content of `report.json`: plain numbers, texts and lists.

    Args:
        output_dir: of a run of `train.json`, and `assess.json` where there is one.

    Raises:
        FileNotFoundError: when the folder holds no run.
    """
    folder = Path(output_dir)
    class_names = class_names_of(folder / "datalist.json")
    real = load_datalist(folder / "datalist.json")
    drawn = folder / "synthetic" / "datalist.json"
    synthetic = load_datalist(drawn) if drawn.is_file() else []
    return {
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "class_names": class_names,
        "data": data_of(real, synthetic, class_names),
        "settings": settings_of(folder),
        "arms": arms_of(folder),
        "comparison": comparison_of(folder),
        "quality": optional(folder / "assess" / "quality.json"),
        "filters": {path.parent.name: read_json(path) for path in sorted(folder.glob("filter_*/filter.json"))},
        "privacy": audit_of(folder),
        "provenance": provenance_of(folder),
        "samples": samples_of(synthetic, class_names),
        "limits": list(LIMITS),
    }


def optional(path: Path) -> Any:
    """The content of a JSON file, None when there is none."""
    return read_json(path) if path.is_file() else None


def data_of(real: list[dict], synthetic: list[dict], class_names: list[str]) -> dict[str, Any]:
    """Counts of images per class and role, and of groups."""
    roles = Counter((record["class_name"], record["role"]) for record in real)
    groups = Counter(name for name, _ in {(record["class_name"], record["group"]) for record in real})
    drawn = Counter(record["class_name"] for record in synthetic)
    names = [role for role in ROLES if role != "external" or any(record["role"] == role for record in real)]
    return {
        "classes": {
            name: {
                **{role: roles[name, role] for role in names},
                "groups": groups[name],
                "synthetic": drawn[name],
            }
            for name in class_names
        },
        "num_real": len(real),
        "num_groups": len({record["group"] for record in real}),
        "num_synthetic": len(synthetic),
    }


def settings_of(folder: Path) -> dict[str, Any]:
    """The settings of fine-tuning and generation, by name."""
    merged: dict[str, Any] = {}
    for name in ("adapter", "synthetic"):
        merged |= (optional(folder / name / "run.json") or {"settings": {}})["settings"]
    return merged


def arms_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The metrics of each classifier that was evaluated, with its calibration, the baseline first."""
    arms = {}
    for path in sorted(folder.glob("classifier/*/evaluation/metrics.json")):
        arms[path.parents[1].name] = {
            **read_json(path),
            **calibration_of(path.parent, path.parents[1] / "evaluation_val"),
            "folder": path.parent.relative_to(folder).as_posix(),
        }
    return dict(sorted(arms.items(), key=lambda item: (item[1].get("mixing") != "none", item[0])))


def calibration_of(test: Path, validation: Path) -> dict[str, float | None]:
    """How far a classifier's probabilities can be trusted on its test images, and how far its AUROC of two classes.

    The temperature is fitted on the real validation images, and the test images have no say in it.

    Args:
        test: folder of the evaluation on test images.
        validation: that on validation images; without one nothing is fitted, nor where there is no such temperature.
    """
    labels, probabilities = read_probabilities(test / "predictions.csv")
    found: dict[str, float | None] = {
        "ece": expected_calibration_error(labels, probabilities),
        "brier": brier_score(labels, probabilities),
    }
    found |= dict.fromkeys(("temperature", "ece_scaled", "brier_scaled", "auroc_low", "auroc_high"))
    if (validation / "predictions.csv").is_file():
        seen_labels, seen = read_probabilities(validation / "predictions.csv")
        temperature = fit_temperature(seen_labels, logits_of(seen))
        if temperature is not None:
            scaled = with_temperature(logits_of(probabilities), temperature)
            found |= {"temperature": temperature, "ece_scaled": expected_calibration_error(labels, scaled)}
            found["brier_scaled"] = brier_score(labels, scaled)
    if probabilities.shape[1] == 2 and min(np.bincount(labels, minlength=2)) > 1:
        _, found["auroc_low"], found["auroc_high"] = delong_interval(labels, probabilities[:, 1])
    return found


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """Logits, up to a constant of each image, of probabilities; shape (N, K) as they are."""
    return np.log(np.clip(probabilities, np.finfo(np.float32).tiny, 1.0))


def comparison_of(folder: Path) -> list[dict[str, Any]]:
    """Each arm less the one of the same classifier on real images alone, paired by test image, p-values by Holm.

    The intervals are over groups and images of this draw. An arm whose classifier was not trained on real images alone,
    for as many steps, is left out: another's difference would be that of the architecture or the training.
    """
    arms = arms_of(folder)
    kinds = {name: (arm.get("classifier"), arm.get("classifier_steps")) for name, arm in arms.items()}
    baselines: dict[tuple, str] = {}
    for name, arm in arms.items():
        if arm.get("mixing") == "none":
            baselines.setdefault(kinds[name], name)
    pairs = [(name, baselines[kind]) for name, kind in kinds.items() if baselines.get(kind, name) != name]
    said = {name: read_predictions(folder / arm["folder"] / "predictions.csv") for name, arm in arms.items()}
    found = [paired_bootstrap([said[name][0]], [said[base][0]], *said[base][1:]) for name, base in pairs]
    rows = []
    for (name, base), difference, p_value in zip(pairs, found, holm([one.p_value or 1.0 for one in found])):
        words = difference.sentence(p_value)
        if arms[name]["accuracy"] <= arms[name]["majority_share"] and difference.estimate > 0:
            words = "Not better than always answering the most frequent class: no gain."
        rows.append(
            {
                "arm": name,
                "reference": base,
                "difference": difference.estimate,
                "low": difference.low,
                "high": difference.high,
                "words": f"{words} One draw of the shots; another draw may differ.",
            }
        )
    return rows


def provenance_of(folder: Path) -> list[dict[str, Any]]:
    """When and with what each stage was run, and the hash of its settings."""
    rows = []
    paths = [folder / path for name, path in STAGES.items() if name != "split"]
    for path in [*paths, *sorted(folder.glob("classifier/*/run.json"))]:
        record = optional(path)
        if record:
            rows.append(
                {
                    "stage": record["stage"],
                    "folder": path.parent.relative_to(folder).as_posix(),
                    "identity": record["identity"],
                    "began": time.strftime("%Y-%m-%d %H:%M", time.localtime(record["began"])),
                    "wall_time_s": record["wall_time_s"] if record["complete"] else None,
                    "versions": record["versions"],
                }
            )
    return rows


def samples_of(synthetic: list[dict], class_names: list[str], per_class: int = 8, seed: int = 0) -> dict[str, Any]:
    """Random synthetic images of each class with their seeds; chosen by chance, not by eye."""
    rng, samples = np.random.default_rng(seed), {}
    for name in class_names:
        members = [record for record in synthetic if record["class_name"] == name]
        chosen = [members[index] for index in sorted(rng.permutation(len(members))[:per_class])]
        samples[name] = [{"image": record["image"], "seed": record["seed"]} for record in chosen]
    return samples
