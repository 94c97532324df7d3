"""Tables and pictures made from the files of a run."""

from .figures import draw_confusion, draw_real_and_synthetic
from .page import write_report
from .tables import results_table

__all__ = ["draw_confusion", "draw_real_and_synthetic", "results_table", "write_report"]
