import csv

import numpy as np
import pytest

from monai_synth.metrics import expected_calibration_error
from monai_synth.report.collect import calibration_of, comparison_of
from monai_synth.utils import write_json


def write(folder, seed, sharpness, names=("a", "b")):
    """Predictions whose logits are `sharpness` times those that the labels were drawn from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3000, len(names)))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(len(names), p=row) for row in probabilities])
    said = np.exp(sharpness * logits)
    said /= said.sum(axis=1, keepdims=True)
    folder.mkdir()
    with open(folder / "predictions.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "class_name", *(f"prob_{name}" for name in names)])
        writer.writerows([[index, names[label], *row] for index, (label, row) in enumerate(zip(labels, said))])
    return labels, said


@pytest.mark.parametrize("sharpness", [3.0, 0.5])
def test_the_temperature_of_the_validation_images_calibrates_the_test_images(tmp_path, sharpness):
    labels, said = write(tmp_path / "test", 0, sharpness)
    write(tmp_path / "val", 1, sharpness)
    found = calibration_of(tmp_path / "test", tmp_path / "val")
    assert found["temperature"] == pytest.approx(sharpness, rel=0.15)
    assert found["ece"] == pytest.approx(expected_calibration_error(labels, said))
    assert found["ece_scaled"] < 0.5 * found["ece"] and found["brier_scaled"] < found["brier"]
    area = np.mean(said[labels == 1, 1][:, None] > said[labels == 0, 1][None])
    assert found["auroc_low"] < area < found["auroc_high"] < found["auroc_low"] + 0.06


def test_without_validation_images_or_with_more_classes_nothing_is_made_up(tmp_path):
    write(tmp_path / "test", 0, 1.0, ("a", "b", "c"))
    found = calibration_of(tmp_path / "test", tmp_path / "val")
    assert found["temperature"] is found["ece_scaled"] is found["auroc_low"] is None and found["ece"] < 0.05


def test_without_a_best_temperature_nothing_is_scaled(tmp_path):
    write(tmp_path / "test", 0, 1.0)
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "predictions.csv").write_text("image,class_name,prob_a,prob_b\n1,a,0.9,0.1\n2,b,0.2,0.8\n")
    found = calibration_of(tmp_path / "test", tmp_path / "val")
    assert found["temperature"] is found["ece_scaled"] is found["brier_scaled"] is None and found["brier"] > 0


def test_an_arm_is_compared_with_its_own_classifier_alone(tmp_path):
    rng = np.random.default_rng(0)
    arms = {("a", "none"): 0.5, ("a", "synthetic"): 0.9, ("b", "none"): 0.95, ("c", "synthetic"): 0.5}
    for (classifier, mixing), skill in arms.items():
        folder = tmp_path / "classifier" / f"{classifier}_{mixing}" / "evaluation"
        folder.mkdir(parents=True)
        truth = np.arange(200) % 2
        said = np.where(rng.random(200) < skill, truth, 1 - truth)
        with open(folder / "predictions.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "group", "class_name", "predicted", "prob_x", "prob_y"])
            writer.writerows(
                [index, index, "xy"[label], "xy"[answer], 1 - answer, answer]
                for index, (label, answer) in enumerate(zip(truth, said))
            )
        numbers = {"accuracy": skill, "majority_share": 0.5}
        write_json(folder / "metrics.json", {"classifier": classifier, "mixing": mixing, **numbers})
    rows = comparison_of(tmp_path)
    assert [(row["arm"], row["reference"]) for row in rows] == [("a_synthetic", "a_none")]
    assert rows[0]["words"].startswith("Better by +0.")
