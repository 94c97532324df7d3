"""What the configs of a bundle call."""

from .assessment import assess
from .comparison import chosen_arm, compare, model_setting, publish_model
from .filtering import filter_images
from .privacy import audit, audited_records
from .scopes import adapter_of, fine_tune, generate
from .session import bundle_root
from .stages import begin, begin_inference, finish, run_pending
from .study import study

__all__ = [
    "adapter_of",
    "assess",
    "audit",
    "audited_records",
    "begin",
    "begin_inference",
    "bundle_root",
    "chosen_arm",
    "compare",
    "filter_images",
    "fine_tune",
    "finish",
    "generate",
    "model_setting",
    "publish_model",
    "run_pending",
    "study",
]
