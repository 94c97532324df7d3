"""What the arms of a job learn from is checked before anything long begins: roles, numbers of images, the encoder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from ..data.records import JUDGES, ROLES, load_datalist
from ..networks.feature_encoder import encoder_weights
from .session import plain_settings

COUNTED = ("synthetic", "real+synthetic")  # policies that take synthetic_per_class images of each class, and no fewer


def check_arms(parser: ConfigParser) -> None:
    """Checks what the classifier of a config and its baseline would learn from, and the encoder of its images.

    Args:
        parser: of a config; of evaluate.json nothing is checked, since it trains nothing.

    Raises:
        ValueError: for roles that may not train, or more synthetic images than will be drawn.
        FileNotFoundError: when an encoder that is needed is not there.
    """
    config: Any = parser.config
    settings = plain_settings(config)
    if "test_role" in settings:
        return
    policies = {settings.get("mixing"), settings.get("baseline")} - {None, "", "none"}
    drawn = bool(policies) and "synthetic_datalist" not in settings  # images from elsewhere are filtered and counted
    if "real_roles" in settings:
        check_real_roles(settings["real_roles"])
    if drawn and policies & set(COUNTED):
        check_enough(settings, Path(parser.get_parsed_content("synthetic_datalist")))
    filtered = drawn and settings.get("filter") != "none"
    encodes = "mixing" not in settings and "@encoder" in str(config.get("network_def"))
    if "encoder" in settings and (filtered or encodes):
        encoder_weights(str(settings["encoder"]))


def check_real_roles(roles: Any) -> None:
    """Checks which real images train a classifier.

    Raises:
        ValueError: for what is no role of images that may.
    """
    allowed = [role for role in ROLES if role not in JUDGES]
    named = [roles] if isinstance(roles, str) else roles
    if not isinstance(named, (list, tuple)) or not named or any(role not in allowed for role in named):
        raise ValueError(
            f"real_roles is {roles!r}. It is a list of {' or '.join(map(repr, allowed))}, or of both. Images of "
            "other roles judge the classifier, which may not learn from them."
        )


def check_enough(settings: dict[str, Any], datalist: Path) -> None:
    """Checks that no more synthetic images are asked for than are there or will be drawn.

    Args:
        settings: of train.json.
        datalist: of the images, where some are there from an earlier run.

    Raises:
        ValueError: when there will be too few.
    """
    wanted, drawn = settings.get("synthetic_per_class"), settings.get("images_per_class")
    if wanted is None or drawn is None or wanted <= drawn:
        return
    found = Counter(record["class_name"] for record in load_datalist(datalist)) if datalist.is_file() else Counter()
    if min(found.values(), default=0) < wanted:
        raise ValueError(
            f"synthetic_per_class is {wanted}, but of each class {drawn} images would be drawn. Generate more "
            f"(--images_per_class {wanted}) or ask for fewer (--synthetic_per_class {drawn})."
        )
