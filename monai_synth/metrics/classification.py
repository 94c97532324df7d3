"""How well a classifier does, from its probabilities."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, recall_score, roc_auc_score

logger = logging.getLogger(__name__)


def classification_metrics(
    labels: Sequence[int] | np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
) -> dict[str, object]:
    """Balanced accuracy, macro F1, AUROC, recall per class and the confusion matrix.

    Classes weigh the same however many images they have, as befits clinical sets.

    Args:
        labels: true class of each image, shape (N,), 0 to K - 1.
        probabilities: predicted probability of each class, shape (N, K), rows sum to 1.
        class_names: names of the K classes.

    Returns:
        A dictionary of plain numbers and lists. `auroc` is the mean over the classes of one against the rest, None
        when a class has no image. `majority_share` is the accuracy of always answering the most frequent class.

    Raises:
        ValueError: when shapes or numbers do not fit, or probabilities are not finite.
    """
    labels, probabilities = np.asarray(labels, dtype=np.int64), np.asarray(probabilities, dtype=np.float64)
    num_classes = len(class_names)
    if probabilities.shape != (len(labels), num_classes) or len(labels) == 0:
        raise ValueError(
            f"Expected probabilities of shape ({len(labels)}, {num_classes}) for {len(labels)} labels and "
            f"{num_classes} classes, found {probabilities.shape}."
        )
    if not np.isfinite(probabilities).all():
        raise ValueError("Some probabilities are not finite; the classifier has diverged.")
    predicted = probabilities.argmax(axis=1)
    present = sorted(set(labels.tolist()))
    recall = recall_score(labels, predicted, labels=range(num_classes), average=None, zero_division=np.nan)
    return {
        "num_images": len(labels),
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, labels=present, average="macro", zero_division=0.0)),
        "auroc": area_under_roc(labels, probabilities) if len(present) == num_classes else None,
        "accuracy": float((labels == predicted).mean()),
        "majority_share": float(np.bincount(labels).max() / len(labels)),
        "recall": {
            name: (float(value) if label in present else None)
            for label, (name, value) in enumerate(zip(class_names, recall))
        },
        "confusion_matrix": confusion_matrix(labels, predicted, labels=range(num_classes)).tolist(),
    }


def area_under_roc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve, the mean over the classes of one against the rest.

    Args:
        labels: true classes, shape (N,); every class must occur.
        probabilities: shape (N, K).
    """
    one_hot = np.eye(probabilities.shape[1])[labels]
    return float(np.mean([roc_auc_score(one_hot[:, k], probabilities[:, k]) for k in range(probabilities.shape[1])]))
