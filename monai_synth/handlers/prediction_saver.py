"""What a classifier said of each image."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import CommonKeys as Keys

from ..metrics.classification import classification_metrics
from ..report.figures import draw_confusion
from ..utils.io import atomic_path, write_json
from ..utils.processes import is_first

logger = logging.getLogger(__name__)


class PredictionSaver:
    """Writes `predictions.csv` and, where labels are known, `metrics.json` and a picture of the confusion matrix.

    Args:
        folder: where to.
        class_names: in the order of their labels.
        provenance: plain values that `metrics.json` states beside the numbers.

    Raises:
        ValueError: when a synthetic image is among those that are judged.
    """

    def __init__(self, folder: str | Path, class_names: list[str], provenance: dict[str, Any] | None = None) -> None:
        self.folder, self.class_names = Path(folder), class_names
        self.provenance = provenance or {}
        self.rows: list[dict[str, Any]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, engine: Engine) -> None:
        """Forgets an earlier run."""
        self.rows = []

    def __call__(self, engine: Any) -> None:
        batch, probabilities = engine.state.batch, engine.state.output[Keys.PRED].float().cpu()
        for index, row in enumerate(probabilities):
            record = {key: batch[key][index] for key in ("image_path", "label", "origin", "group") if key in batch}
            if record.get("origin", "real") != "real":
                raise ValueError(f"{record['image_path']} is synthetic. Only real images may judge a classifier.")
            self.rows.append({**record, "probabilities": row})

    def write(self, engine: Engine) -> None:
        """Writes the files; of several processes, which all see the same images, the first does."""
        if not is_first():
            return
        probabilities = torch.stack([row["probabilities"] for row in self.rows]).numpy().astype(np.float64)
        known = all("label" in row for row in self.rows)
        labels = [int(row["label"]) for row in self.rows] if known else []
        target = self.folder / "predictions.csv"
        with atomic_path(target) as path, open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["image", "group", "class_name", "predicted", *(f"prob_{name}" for name in self.class_names)]
            )
            for index, row in enumerate(self.rows):
                truth = self.class_names[labels[index]] if known else ""
                predicted = self.class_names[int(probabilities[index].argmax())]
                numbers = [f"{value:.9g}" for value in probabilities[index]]
                writer.writerow([row.get("image_path", ""), row.get("group", ""), truth, predicted, *numbers])
        if not known:
            return
        metrics = classification_metrics(labels, probabilities, self.class_names)
        write_json(self.folder / "metrics.json", {**metrics, **self.provenance})
        draw_confusion(metrics["confusion_matrix"], self.class_names, self.folder / "confusion.png")
        logger.info("Balanced accuracy %.3f on %d real images.", metrics["balanced_accuracy"], len(self.rows))
