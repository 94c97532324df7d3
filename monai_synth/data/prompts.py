"""Prompts for classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ..utils.seeds import derived_seed
from .phantom.catalog import CLASS_PHRASES

logger = logging.getLogger(__name__)

KNOWN = {
    **CLASS_PHRASES,
    "ig": "immature granulocyte",
    "benign": "benign colon tissue",
    "malignant": "colon adenocarcinoma",
}


def prompts_of(
    class_names: Sequence[str], phrases: Mapping[str, str] | None = None, template: str | Mapping[str, str] = "{phrase}"
) -> dict[str, str]:
    """A prompt for each class.

    Args:
        class_names: the classes.
        phrases: what to call a class; a class that is missing here is called by a known phrase, or by its own name.
        template: text around the phrase, with the field {phrase}; one for all classes, or one for each.

    Raises:
        ValueError: when a template has no field {phrase}, a class has no template, or two classes get the same prompt.
    """
    templates = {name: template for name in class_names} if isinstance(template, str) else template
    missing = [name for name in class_names if name not in templates]
    if missing:
        raise ValueError(f"prompt_template has no text for {missing}. It is one text for all classes or one for each.")
    for text in templates.values():
        if "{phrase}" not in text:
            raise ValueError(f"prompt_template is {text!r}; it must hold the field {{phrase}}.")
    named = {name: (phrases or {}).get(name) or phrase_of(name) for name in class_names}
    prompts = {name: templates[name].format(phrase=phrase) for name, phrase in named.items()}
    if len(set(prompts.values())) < len(prompts):
        raise ValueError(f"Two classes have the same prompt, so the generator cannot tell them apart: {prompts}.")
    return prompts


def check_attributes(attributes: Any) -> None:
    """Checks what an image may have beside its class.

    Raises:
        ValueError: when it is not a list of texts for each name.
    """
    good = isinstance(attributes, Mapping) and all(
        isinstance(phrases, Sequence) and not isinstance(phrases, str) and phrases and all(map(_is_text, phrases))
        for phrases in attributes.values()
    )
    if not good:
        raise ValueError(
            f"attributes is {attributes!r}. It must give a list of phrases for each name, such as "
            "{'stain': ['pale stain', 'strong stain']}; {} is none."
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def with_attributes(prompt: str, attributes: Mapping[str, Sequence[str]] | None, seed: int) -> str:
    """A prompt with one phrase of each attribute, drawn by the seed of its image.

    An attribute is what varies between images of any class (stain, magnification, background). Each is drawn on its
    own, so that adding one does not change the others.

    Args:
        prompt: of the class.
        attributes: phrases by name.
        seed: of the image.
    """
    drawn = [
        phrases[derived_seed(seed, "attribute", name) % len(phrases)] for name, phrases in (attributes or {}).items()
    ]
    return ", ".join([prompt, *drawn])


def phrase_of(class_name: str) -> str:
    """What a class is called in a prompt when nobody has said."""
    return KNOWN.get(class_name, class_name.replace("_", " ").replace("-", " "))
