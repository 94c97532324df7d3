"""Base models by name: the embedded one, a folder, or a hub id."""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..utils.io import read_json

EMBEDDED = {"nano": Path(__file__).resolve().parents[1] / "assets" / "nano"}
WEIGHTED_PARTS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2")
# Only the parts that are used: hubs also keep single-file checkpoints of several gigabytes at the top of a repository,
# and the T5 of Stable Diffusion 3, see `StableDiffusion3`.
READ = ["model_index.json", "scheduler/*.json"]
READ += [f"{part}/*{ending}" for part in ("tokenizer", "tokenizer_2") for ending in (".json", ".txt")]
READ += [f"{part}/*{ending}" for part in WEIGHTED_PARTS for ending in (".json", ".safetensors")]
SHARD = re.compile(r"(.*-)(\d{5})(-of-(\d{5}).*)")  # a file of weights that are divided, of "-00001-of-00002"
# What of a scheduler's config decides how a base learns and draws, with what diffusers takes where it is not written.
SCHEDULE = {
    **{"prediction_type": "epsilon", "num_train_timesteps": 1000, "trained_betas": None, "beta_schedule": "linear"},
    **{"beta_start": 0.0001, "beta_end": 0.02, "rescale_betas_zero_snr": False, "set_alpha_to_one": True},
    **{"steps_offset": 0, "shift": 1.0},
}
VARIANTS = ["*.fp16.*", "*.bf16.*", "*.non_ema.*", "*.ema.*"]


def resolve_base_model(name: str, variant: str | None = None) -> Path:
    """The folder of a base model in diffusers' format.

    Args:
        name: "nano" for the embedded model, a folder, or a hub id, with "@revision" when one is pinned.
        variant: "fp16" for the files of half precision; None for those of full precision, where the base has them.

    Returns:
        A folder with a `model_index.json` and safetensors weights.

    Raises:
        FileNotFoundError: when the folder is no pipeline or has no safetensors weights, or not all files of them.
        ValueError: for a checkpoint in a single file, with how to convert it.
        RuntimeError: when a hub id is neither in the local cache nor to be reached.
    """
    if name in EMBEDDED:
        return _checked(EMBEDDED[name], name, variant)
    if Path(name).is_dir():
        return _checked(Path(name), name, variant)
    if Path(name).is_file():
        raise ValueError(
            f"The base model {name!r} is a single file, which is not read. Convert it once with diffusers, "
            f"StableDiffusionPipeline.from_single_file({name!r}).save_pretrained('DIR'), or with the class of its "
            "family such as StableDiffusionXLPipeline, and name that folder: --base_model DIR."
        )
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise FileNotFoundError(
            f"There is no base model {name!r}: it is neither one of {sorted(EMBEDDED)}, nor a folder, nor a hub id "
            "such as 'owner/model'."
        )
    return _checked(_from_hub(name, variant), name, variant)


def pipeline_class(folder: Path) -> str:
    """Name of diffusers' class for the pipeline in a folder."""
    return str(read_json(folder / "model_index.json").get("_class_name"))


def weighted_parts(folder: Path) -> list[str]:
    """The parts of a base whose weights are used."""
    index = read_json(folder / "model_index.json")
    return [part for part in WEIGHTED_PARTS if index.get(part, [None])[0] is not None]


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors files of one part that are read.

    Args:
        folder: of the part.
        variant: "fp16" for those of half precision; None for those of full precision. Where there are only others, they
            are read instead.
    """
    files = sorted(folder.glob("*.safetensors"))
    plain = [path for path in files if not any(path.match(pattern) for pattern in VARIANTS)]
    half = [path for path in files if ".fp16." in path.name]
    return half or plain if variant == "fp16" else plain or half


def missing_shards(files: list[Path]) -> list[str]:
    """Names of the files that weights which are divided into several lack."""
    wanted = set()
    for shard in filter(None, (SHARD.fullmatch(path.name) for path in files)):
        start, _, end, count = shard.groups()
        wanted |= {f"{start}{number:05d}{end}" for number in range(1, int(count) + 1)}
    return sorted(wanted - {path.name for path in files})


def _checked(folder: Path, name: str, variant: str | None) -> Path:
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(
            f"The base model {name!r} in {folder} has no model_index.json: it is no pipeline in diffusers' format."
        )
    for part in weighted_parts(folder):
        files = weight_files(folder / part, variant)
        if not files:
            raise FileNotFoundError(
                f"The base model {name!r} has no safetensors weights in {folder / part}. Pickled weights (.bin, .ckpt) "
                "are never read; save the pipeline with safe_serialization=True first."
            )
        if missing := missing_shards(files):
            raise FileNotFoundError(
                f"The base model {name!r} lacks {', '.join(missing)} in {folder / part}: its weights are divided into "
                "several files and all of them are needed. Copy or download them to its folder."
            )
        if variant == "fp16" and ".fp16." not in files[0].name:
            raise FileNotFoundError(
                f"The base model {name!r} has no weights of the variant fp16 in {folder / part}. Leave --variant out; "
                "--amp float16 or bfloat16 loads the others in half precision too."
            )
    return folder


def _from_hub(name: str, variant: str | None) -> Path:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    from huggingface_hub import snapshot_download

    repo, _, revision = name.partition("@")
    wanted = [path.replace(".safetensors", f".{variant}.safetensors") if variant else path for path in READ]
    options: dict[str, Any] = {"revision": revision or None, "allow_patterns": wanted}
    try:
        return _checked(Path(snapshot_download(repo, local_files_only=True, **options)), name, variant)
    except Exception:  # not in the cache, or only a part of it: ask the hub, once
        options |= {"etag_timeout": 5, "max_workers": 2}
        try:
            unread = [path for path in VARIANTS if f".{variant}." not in path]
            folder = Path(snapshot_download(repo, ignore_patterns=unread, **options))
            if not all(weight_files(folder / part) for part in weighted_parts(folder)) and not variant:
                folder = Path(snapshot_download(repo, **options))  # some keep half precision alone
            return folder
        except Exception as error:
            raise RuntimeError(
                f"The base model {name!r} is not on this machine and the hub could not give it "
                f"({type(error).__name__}). Download it where there is a network, and name its folder."
            ) from error


def schedule_of(folder: Path) -> dict[str, Any]:
    """What a base predicts and its noise schedule, which stand beside its weights and not in them, by name."""
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    return {key: config.get(key, default) for key, default in SCHEDULE.items()}


def fingerprint(folder: Path, variant: str | None = None) -> str:
    """The SHA-256 of the weights that are read of a base model, the same wherever its folder lies, 64 digits."""
    files = sorted(path for part in weighted_parts(folder) for path in weight_files(folder / part, variant))
    return _fingerprint(tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files))


@lru_cache(maxsize=16)
def _fingerprint(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in files:
        with open(name, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
