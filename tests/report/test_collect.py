import csv

import numpy as np
import pytest

from monai_synth.metrics import expected_calibration_error
from monai_synth.report.collect import calibration_of


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
