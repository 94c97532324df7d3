"""What the configs of a bundle call."""

from .comparison import class_names_of_model, compare, publish_model
from .scopes import fine_tune, generate
from .session import bundle_root
from .stages import begin, begin_inference, finish

__all__ = [
    "begin",
    "begin_inference",
    "bundle_root",
    "class_names_of_model",
    "compare",
    "fine_tune",
    "finish",
    "generate",
    "publish_model",
]
