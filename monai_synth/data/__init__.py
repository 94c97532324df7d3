"""Images, records, splits, mixtures and phantoms."""

from .images import list_images, read_image, to_rgb
from .mixing import MIXING, RealSyntheticDataset, load_synthetic
from .prompts import prompts_of
from .records import ORIGINS, ROLES, check_wall, class_names_of, load_datalist, save_datalist, select
from .requests import pending_requests, plan_requests
from .scan import Finding, check, scan
from .splits import assign_roles
from .synthetic_png import is_marked_synthetic, write_synthetic_png

__all__ = [
    "Finding",
    "MIXING",
    "ORIGINS",
    "ROLES",
    "RealSyntheticDataset",
    "assign_roles",
    "check",
    "check_wall",
    "class_names_of",
    "is_marked_synthetic",
    "list_images",
    "load_datalist",
    "load_synthetic",
    "pending_requests",
    "plan_requests",
    "prompts_of",
    "read_image",
    "save_datalist",
    "scan",
    "select",
    "to_rgb",
    "write_synthetic_png",
]
