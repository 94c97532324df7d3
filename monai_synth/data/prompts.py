"""Prompts for classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from .phantom.catalog import CLASS_PHRASES

logger = logging.getLogger(__name__)

KNOWN = {
    **CLASS_PHRASES,
    "ig": "immature granulocyte",
    "benign": "benign colon tissue",
    "malignant": "colon adenocarcinoma",
}


def prompts_of(
    class_names: Sequence[str], phrases: Mapping[str, str] | None = None, template: str = "{phrase}"
) -> dict[str, str]:
    """A prompt for each class.

    Args:
        class_names: the classes.
        phrases: what to call a class; a class that is missing here is called by a known phrase, or by its own name.
        template: text around the phrase, with the field {phrase}.

    Raises:
        ValueError: when the template has no field {phrase}, or two classes get the same prompt.
    """
    if "{phrase}" not in template:
        raise ValueError(f"prompt_template is {template!r}; it must hold the field {{phrase}}.")
    named = {name: (phrases or {}).get(name) or phrase_of(name) for name in class_names}
    prompts = {name: template.format(phrase=phrase) for name, phrase in named.items()}
    if len(set(prompts.values())) < len(prompts):
        raise ValueError(f"Two classes have the same prompt, so the generator cannot tell them apart: {prompts}.")
    return prompts


def phrase_of(class_name: str) -> str:
    """What a class is called in a prompt when nobody has said."""
    return KNOWN.get(class_name, class_name.replace("_", " ").replace("-", " "))
