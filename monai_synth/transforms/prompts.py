"""Records get their prompts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms import MapTransform, Transform


class PromptFromClass(Transform):
    """The prompt of a class.

    Args:
        prompts: prompt of each class.

    Example:
        >>> PromptFromClass({"neutrophil": "a neutrophil"})("neutrophil")
        'a neutrophil'
    """

    def __init__(self, prompts: Mapping[str, str]) -> None:
        self.prompts = dict(prompts)

    def __call__(self, class_name: str) -> str:
        """
        Raises:
            KeyError: for a class without a prompt; names those that have one.
        """
        if class_name not in self.prompts:
            raise KeyError(f"The class {class_name!r} has no prompt. Prompts are known for {sorted(self.prompts)}.")
        return self.prompts[class_name]


class PromptFromClassd(MapTransform):
    """Dictionary version of `PromptFromClass`: reads the class name under a key and adds "prompt".

    Args:
        keys: key of the class name.
        prompts: prompt of each class.
        prompt_key: where the prompt goes.
        allow_missing_keys: pass over records without the key.
    """

    def __init__(
        self,
        keys: str,
        prompts: Mapping[str, str],
        prompt_key: str = "prompt",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.prompt, self.prompt_key = PromptFromClass(prompts), prompt_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[self.prompt_key] = self.prompt(result[key])
        return result
