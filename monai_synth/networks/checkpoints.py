"""Initial weights of classifiers: where they are found, and whether they fit."""

from __future__ import annotations

import contextlib
import logging
import os
import re
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from ..utils.io import read_json

logger = logging.getLogger(__name__)

# What open_clip and timm call the weights in their folders and hub repositories, the first that is there is read.
FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
TIMM_CONFIG, OPEN_CLIP_CONFIG = "config.json", "open_clip_config.json"  # beside them, with the colors of the training

ASSETS = Path(__file__).resolve().parents[1] / "assets"
NANO_CLIP = "nano-clip"  # also the name of its architecture in open_clip
EMBEDDED = {"nano": ASSETS / "nano_encoder", NANO_CLIP: ASSETS / "nano_clip"}  # trained on phantoms alone
AUTO, RANDOM = "auto", "random"
BEGINNINGS = {"regnetx_002": "nano", NANO_CLIP: NANO_CLIP}  # the embedded weights of a network by its name


def initial_weights(name: str, checkpoint: str | None) -> str | None:
    """The checkpoint that a setting means for a network, None for random weights.

    Args:
        name: of the network.
        checkpoint: what `find_weights` takes; "auto", the embedded weights where the network has some, else none;
            "random" or None.
    """
    if checkpoint == RANDOM:
        return None
    return BEGINNINGS.get(name) if checkpoint == AUTO else checkpoint


def find_weights(name: str | Path) -> Path:
    """The safetensors file that a checkpoint setting means.

    Args:
        name: a safetensors file, a folder as open_clip and timm write them (their `local-dir:`), a hub id
            "owner/model", with "@revision" when one is pinned, or the name of embedded weights: "nano" for
            regnetx_002, "nano-clip" for the CLIP of that name.

    Raises:
        FileNotFoundError: when there is no such file, or none in the folder.
        ValueError: for a file of another format, or a folder of several.
        RuntimeError: when a hub id is neither in the local cache nor to be reached.
    """
    path = EMBEDDED.get(str(name), Path(name))
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        if path.suffix != ".safetensors":
            raise ValueError(f"{path} is not a safetensors file. Only safetensors are read; convert it first.")
        return path
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", str(name)) and path.suffix not in (".safetensors", ".pt"):
        return _from_hub(str(name))
    raise FileNotFoundError(
        f"There is no checkpoint {path}. Name a safetensors file, a folder that holds one, a hub id "
        "'owner/model', one of the embedded weights, nano (regnetx_002) or nano-clip, or random."
    )


def _in_folder(folder: Path) -> Path:
    for file in FILES:
        if (folder / file).is_file():
            return folder / file
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{folder} holds {len(found)} safetensors files. Name one of them: {[p.name for p in found]}.")
    raise FileNotFoundError(
        f"The folder {folder} holds no safetensors file. Pickled weights (.bin, .pt) are never read."
    )


def _from_hub(name: str) -> Path:
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    for file in FILES:
        try:
            weights = Path(hf_hub_download(repo, file, revision=revision or None, etag_timeout=5))
            beside = OPEN_CLIP_CONFIG if file.startswith("open_clip") else TIMM_CONFIG
            with contextlib.suppress(EntryNotFoundError):
                hf_hub_download(repo, beside, revision=revision or None, etag_timeout=5)
            return weights
        except LocalEntryNotFoundError as error:
            cause: Exception = error
        except EntryNotFoundError:
            continue
        except Exception as error:
            cause = error
        raise RuntimeError(
            f"The checkpoint {name!r} is no file or folder here, and the hub could not give it "
            f"({type(cause).__name__}). Download it where there is a network, and name its folder."
        ) from cause
    raise FileNotFoundError(f"The hub's {repo} has none of {', '.join(FILES)}. Only safetensors are read.")


def published_colors(checkpoint: str | None) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of the colors that a checkpoint was trained with, as the config beside it says.

    Weights of one architecture are published with different ones, and a network that starts from them must see images
    as they did.

    Args:
        checkpoint: see `find_weights`; None is random weights.

    Returns:
        None where there is no checkpoint, or no config of timm or open_clip beside it that tells.
    """
    if checkpoint is None:
        return None
    path = find_weights(checkpoint)
    of_open_clip = path.name.startswith("open_clip")
    config = path.with_name(OPEN_CLIP_CONFIG if of_open_clip else TIMM_CONFIG)
    known = read_json(config) if config.is_file() else {}
    colors = known.get("preprocess_cfg" if of_open_clip else "pretrained_cfg") or {}
    if {"mean", "std"} <= set(colors):
        return tuple(colors["mean"]), tuple(colors["std"])
    logger.info("No %s beside %s tells its colors; those of the architecture are taken.", config.name, path)
    return None


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        ValueError: when the file is damaged.
    """
    try:
        return load_file(path, device="cpu")
    except Exception as error:  # the library has its own classes of errors
        raise ValueError(f"{path} cannot be read as safetensors: {error}. Fetch it anew.") from error


def fit_weights(
    module: nn.Module, weights: dict[str, Tensor], path: Path, what: str, new: tuple[str, ...] = ()
) -> None:
    """Loads weights into a module, all of them but a head of another number of classes.

    Args:
        module: what is filled.
        weights: by the module's own names.
        path: where they come from, for the messages.
        what: what the module is, for the messages.
        new: beginnings of names that may be missing or have another shape; these tensors stay as they are.

    Raises:
        ValueError: when other tensors are missing or have another shape; names the first of them.
    """
    own = module.state_dict()
    fitting = {key: weights[key] for key in own if key in weights and weights[key].shape == own[key].shape}
    left = [key for key in own if key not in fitting]
    unfit = [key for key in left if not (new and key.startswith(new))]
    if unfit:
        unfit.sort(key=lambda key: key not in weights)  # another shape says more than a missing name
        first = ", ".join(f"{key} ({_shapes(key, weights, own)})" for key in unfit[:3])
        raise ValueError(
            f"{path} does not fit {what}: {len(unfit)} of {len(own)} tensors are missing or have another shape: {first}"
            f"{', ...' if len(unfit) > 3 else ''}. Name a checkpoint of this network, or this checkpoint's network."
        )
    module.load_state_dict(fitting, strict=False)
    dropped = [key for key in left if key in weights]
    if dropped:
        logger.info("%s: its head is left out, %s.", path.name, _shapes(dropped[0], weights, own))
    logger.info("%s starts from %s; its head is %s.", what, path, "new" if left else "loaded")


def _shapes(key: str, weights: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    if key not in weights:
        return "missing"
    return f"{tuple(weights[key].shape)} in the file, {tuple(own[key].shape)} in the network"
