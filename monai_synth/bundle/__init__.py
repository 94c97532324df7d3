"""What the configs of a bundle call."""

from .comparison import compare, model_setting, publish_model
from .scopes import fine_tune, generate
from .session import bundle_root
from .stages import begin, begin_inference, finish

__all__ = [
    "begin",
    "begin_inference",
    "bundle_root",
    "compare",
    "fine_tune",
    "finish",
    "generate",
    "model_setting",
    "publish_model",
]
