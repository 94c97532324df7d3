"""One loaded base for all stages and classes of a run."""

from __future__ import annotations

import gc
import logging

import torch

from .base_models import fingerprint, resolve_base_model, schedule_of
from .diffusion import LatentDiffusion
from .lora import remove_adapter

logger = logging.getLogger(__name__)

PRECISIONS = {None: torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_loaded: dict[tuple[str, str, str, str], LatentDiffusion] = {}


def shared_diffusion(
    base_model: str, device: str | torch.device = "cpu", amp: str | None = None, variant: str | None = None
) -> LatentDiffusion:
    """A base model without an adapter, loaded once in a process however often it is asked for.

    Whoever asks takes the base over: an adapter that it has is taken out, and denoisers that used it refuse to go on.
    Only the last base is kept.

    Args:
        base_model: name, folder or hub id, see `resolve_base_model`.
        device: where it lies.
        amp: "bfloat16" or "float16" for half precision, None for float32.
        variant: "fp16" reads the files of half precision.

    Raises:
        ValueError: for an unknown precision.
    """
    if amp not in PRECISIONS:
        raise ValueError(f"amp is {amp!r}. It can be null, 'bfloat16' or 'float16'.")
    dtype = PRECISIONS[amp]
    folder = resolve_base_model(base_model, variant)
    key = (fingerprint(folder, variant), str(schedule_of(folder)), str(torch.device(device)), str(dtype))
    if key not in _loaded:
        release_diffusion()  # before the next is loaded, so that two need never fit
        if amp is None and torch.device(device).type == "cpu" and _has_fast_bfloat16():
            logger.info(
                "This processor multiplies bfloat16 by itself: --amp bfloat16 fine-tunes and draws faster. Its images "
                "are not float32's to the bit (docs/determinism.md)."
            )
        _loaded[key] = LatentDiffusion(  # type: ignore[abstract]  # gives the class of the base's family
            base_model, device=device, dtype=dtype, variant=variant
        )
    diffusion = _loaded[key]
    diffusion.base_model = base_model  # one base may have several names
    remove_adapter(diffusion)
    return diffusion


def release_diffusion() -> None:
    """Forgets the loaded base, so that its memory is free for other things."""
    if _loaded:
        _loaded.clear()
        gc.collect()  # MONAI's engine refers to itself and holds the base until cycles are looked for
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _has_fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 by itself (AVX512-BF16 or AMX); False where torch cannot tell."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
