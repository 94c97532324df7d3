import csv

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_synth.handlers import PredictionSaver
from monai_synth.utils import read_json


def evaluate(folder, records):
    SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Dataset(records), batch_size=2),
        network=nn.Identity(),
        prepare_batch=lambda batch, device, *args, **kwargs: (batch["image"], batch.get("label")),
        val_handlers=[PredictionSaver(folder, ["a", "b"], {"shots": 5})],
        decollate=False,
    ).run()


def test_predictions_and_metrics_are_written(tmp_path):
    rows = [([0.9, 0.1], 0), ([0.2, 0.8], 0), ([0.3, 0.7], 1)]
    common = {"origin": "real", "group": "g"}
    records = [{**common, "image": torch.tensor(p), "label": k, "image_path": f"i{n}"} for n, (p, k) in enumerate(rows)]
    evaluate(tmp_path, records)
    metrics = read_json(tmp_path / "metrics.json")
    assert metrics["balanced_accuracy"] == 0.75 and metrics["shots"] == 5
    written = list(csv.DictReader(open(tmp_path / "predictions.csv")))
    assert [row["predicted"] for row in written] == ["a", "b", "b"]
    assert written[1]["class_name"] == "a" and float(written[1]["prob_b"]) == pytest.approx(0.8)
    assert (tmp_path / "confusion.png").exists()


def test_unlabelled_images_get_probabilities_alone(tmp_path):
    evaluate(tmp_path, [{"image": torch.tensor([0.9, 0.1]), "image_path": "i"}])
    assert not (tmp_path / "metrics.json").exists()
    assert list(csv.DictReader(open(tmp_path / "predictions.csv")))[0]["class_name"] == ""


def test_a_synthetic_image_may_not_judge(tmp_path):
    with pytest.raises(ValueError, match="i is synthetic. Only real images may judge"):
        evaluate(tmp_path, [{"image": torch.tensor([0.9, 0.1]), "label": 0, "origin": "synthetic", "image_path": "i"}])
