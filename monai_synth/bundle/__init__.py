"""What the configs of a bundle call."""

from .comparison import class_names_of_model, compare, publish_model
from .session import bundle_root
from .stages import begin, begin_inference, finish, run_pending

__all__ = ["begin", "begin_inference", "bundle_root", "class_names_of_model", "compare", "finish", "publish_model", "run_pending"]
