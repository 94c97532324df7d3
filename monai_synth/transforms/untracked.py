"""Transforms without the metadata that nobody reads."""

from __future__ import annotations

from typing import Any

from monai.data import get_track_meta, set_track_meta
from monai.transforms import Compose


class UntrackedCompose(Compose):
    """A `Compose` whose transforms give plain tensors, which is faster and the same otherwise.

    MONAI's spatial transforms note in each image's metadata what they did. For small images that takes a good part of
    their time (docs/performance.md), and a training of ours reads none of it.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before = get_track_meta()
        set_track_meta(False)
        try:
            return super().__call__(*args, **kwargs)
        finally:
            set_track_meta(before)
