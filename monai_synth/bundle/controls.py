"""The arms that a sceptic asks for: would something simpler have done as well?"""

from __future__ import annotations

from typing import Any

# All have the same optimizer steps, shots and test images; images are drawn with replacement, so real ones are repeated
# as often as the other arms see images, and every class has as many shots, so no arm is unbalanced.
CONTROLS: dict[str, dict[str, Any]] = {
    "real": {"mixing": "none"},
    "real, weak augmentation": {"mixing": "none", "overlay": "configs/augmentation/flips.yaml"},
    "real, strong augmentation": {"mixing": "none", "overlay": "configs/augmentation/strong.yaml"},
    "real + base without adapter": {"mixing": "real+synthetic", "adapter_scope": "none"},
    "real + synthetic": {"mixing": "real+synthetic"},
    "real + filtered synthetic": {"mixing": "real+synthetic", "filter": "standard"},
    "synthetic": {"mixing": "synthetic"},
    "linear probe": {
        "mixing": "none",
        "overlay": "configs/classifiers/linear_probe_nano.yaml",
        "classifier_checkpoint": "nano",
    },
    "all real": {"mixing": "none", "real_roles": ["shots", "train"]},
}
REFERENCE = "real, strong augmentation"


def arms_of_study(arms: dict[str, dict[str, Any]], reference: str, controls: bool) -> tuple[dict[str, Any], str]:
    """The arms of a study and the one that the others are compared with.

    Args:
        arms: of the config.
        reference: of the config.
        controls: add `CONTROLS`, and compare with real images under strong augmentation.

    Raises:
        ValueError: when the reference is none of the arms.
    """
    if controls:
        arms, reference = {**CONTROLS, **arms}, REFERENCE
    if reference not in arms:
        raise ValueError(f"reference_arm is {reference!r}, but the arms are {', '.join(map(repr, arms))}.")
    return arms, reference
