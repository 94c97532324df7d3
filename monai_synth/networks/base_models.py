"""Base models by name: the embedded one, a folder, or a hub id."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

EMBEDDED = {"nano": Path(__file__).resolve().parents[1] / "assets" / "nano"}
WEIGHTED_PARTS = ("unet", "vae", "text_encoder")
# Only the parts that are used: hubs also keep single-file checkpoints of several gigabytes at the top of a repository.
READ = ["model_index.json", "scheduler/*.json", "tokenizer/*.json", "tokenizer/*.txt"]
READ += [f"{part}/*{ending}" for part in WEIGHTED_PARTS for ending in (".json", ".safetensors")]
VARIANTS = ["*.fp16.*", "*.bf16.*", "*.non_ema.*", "*.ema.*"]


def resolve_base_model(name: str) -> Path:
    """The folder of a base model in diffusers' format.

    Args:
        name: "nano" for the embedded model, a folder, or a hub id, with "@revision" when one is pinned.

    Returns:
        A folder with a `model_index.json` and safetensors weights.

    Raises:
        FileNotFoundError: when the folder is no pipeline or has no safetensors weights.
        RuntimeError: when a hub id is neither in the local cache nor to be reached.
    """
    if name in EMBEDDED:
        return _checked(EMBEDDED[name], name)
    if Path(name).is_dir():
        return _checked(Path(name), name)
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise FileNotFoundError(
            f"There is no base model {name!r}: it is neither one of {sorted(EMBEDDED)}, nor a folder, nor a hub id "
            "such as 'owner/model'."
        )
    return _checked(_from_hub(name), name)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of one part that are read: those of full precision or, where there are none, of fp16."""
    files = sorted(folder.glob("*.safetensors"))
    plain = [path for path in files if not any(path.match(pattern) for pattern in VARIANTS)]
    return plain or [path for path in files if ".fp16." in path.name]


def _checked(folder: Path, name: str) -> Path:
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"The base model {name!r} in {folder} has no model_index.json: it is no pipeline in diffusers' format."
        )
    for part in WEIGHTED_PARTS:
        if not weight_files(folder / part):
            raise FileNotFoundError(
                f"The base model {name!r} has no safetensors weights in {folder / part}. Pickled weights (.bin, .ckpt) "
                "are never read; save the pipeline with safe_serialization=True first."
            )
    return folder


def _from_hub(name: str) -> Path:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    from huggingface_hub import snapshot_download

    repo, _, revision = name.partition("@")
    options: dict[str, Any] = {"revision": revision or None, "allow_patterns": READ}
    try:
        return _checked(Path(snapshot_download(repo, local_files_only=True, **options)), name)
    except Exception:  # not in the cache, or only a part of it: ask the hub, once
        options |= {"etag_timeout": 5, "max_workers": 2}
        try:
            folder = Path(snapshot_download(repo, ignore_patterns=VARIANTS, **options))
            if not all(weight_files(folder / part) for part in WEIGHTED_PARTS):
                folder = Path(snapshot_download(repo, **options))  # some keep half precision alone
            return folder
        except Exception as error:
            raise RuntimeError(
                f"The base model {name!r} is not on this machine and the hub could not give it "
                f"({type(error).__name__}). Download it where there is a network, and name its folder."
            ) from error


def fingerprint(folder: Path) -> str:
    """The SHA-256 of a base model's weights, the same wherever the folder lies, 64 hexadecimal digits."""
    files = sorted(path for part in WEIGHTED_PARTS for path in weight_files(folder / part))
    return _fingerprint(tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files))


@lru_cache(maxsize=16)
def _fingerprint(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in files:
        with open(name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
