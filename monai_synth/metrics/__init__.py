"""Arithmetic that judges images and classifiers."""

from .classification import area_under_roc, classification_metrics

__all__ = ["area_under_roc", "classification_metrics"]
