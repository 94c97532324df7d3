from .feature_store import FeatureStore, own_missing
from .findings import Finding
from .images import list_images, read_image, to_rgb
from .mixing import MIXING, RealSyntheticDataset, load_synthetic
from .prompts import prompts_of
from .records import (
    ORIGINS,
    ROLES,
    assessed_records,
    check_wall,
    class_names_of,
    filtered_records,
    load_datalist,
    save_datalist,
    select,
    shots_and_prior,
    turned,
)
from .requests import own_requests, pending_requests, plan_requests
from .sampling import OriginSampler
from .scanning import check, scan
from .splits import assign_roles
from .synthetic_image import is_marked_synthetic, write_synthetic_image

__all__ = [
    "FeatureStore",
    "Finding",
    "MIXING",
    "ORIGINS",
    "OriginSampler",
    "ROLES",
    "RealSyntheticDataset",
    "assessed_records",
    "assign_roles",
    "check",
    "check_wall",
    "class_names_of",
    "filtered_records",
    "is_marked_synthetic",
    "list_images",
    "load_datalist",
    "load_synthetic",
    "own_missing",
    "own_requests",
    "pending_requests",
    "plan_requests",
    "prompts_of",
    "read_image",
    "save_datalist",
    "scan",
    "select",
    "shots_and_prior",
    "to_rgb",
    "turned",
    "write_synthetic_image",
]
