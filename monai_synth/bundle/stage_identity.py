"""What a stage is made of: its folder, its settings, and the stages before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from ..networks.adapter_files import adapter_sha256
from ..networks.base_models import fingerprint, resolve_base_model, schedule_of
from ..networks.feature_encoder import encoder_fingerprint
from ..utils.io import read_json, sha256_of
from .nesting import CONFIGS, forwarded
from .session import changed_parts, digest, overlaid, plain_settings
from .stage_record import Stage

FOLDERS = {"prior": "prior", "train_diffusion": "adapter", "generate": "synthetic", "filter": "filter_{filter}"}
OF_SAMPLES = ("guidance_scale", "guidance_interval", "num_inference_steps", "scheduler", "few_step_adapter")
OF_FINE_TUNING = (
    *("rank", "lora_targets", "lora_alpha", "lora_dropout", "lora_init", "use_dora", "use_rslora"),
    *("train_text_encoder", "max_steps", "adapter_batch_size", "adapter_learning_rate", "accumulate_steps"),
    *("gradient_checkpointing", "ema_decay", "noise_offset", "min_snr_gamma", "prompt_dropout", "sample_every"),
    *("prior_images", "prior_weight"),
)
OF_GENERATION = (  # all that decides synthetic images, which a classifier of real ones alone never sees
    *OF_SAMPLES,
    *OF_FINE_TUNING,
    *("images_per_class", "prompts", "prompt_template", "attributes", "adapter_scope", "start_sigma", "amp"),
    *("cache_interval", "compile", "image_format", "filter", "filter_quantile"),
)


def stage_of(workflow: ConfigWorkflow, name: str, folder: Path) -> Stage:
    """The stage of a workflow, its upstream identities read from the stages' records."""
    config = workflow.parser.config
    output_dir = Path(workflow.parser.get_parsed_content("output_dir"))
    settings = plain_settings(config)
    left_out: tuple[str, ...] = ()
    if name in CONFIGS:
        own = ConfigParser.load_config_file(workflow.config_root_path / f"{name}.json")
        settings = forwarded(config, own)
        parts = {key: changed_parts(value, own.get(key)) for key, value in overlaid(config, own).items()}
        parts.pop("device", None)
        settings |= {key: digest(value) for key, value in parts.items()}
    if name == "train_diffusion":  # they draw its sample grids and leave the adapter as it is
        settings = {key: value for key, value in settings.items() if key not in OF_SAMPLES}
    if name == "generate" and settings["adapter_scope"] == "none":  # nothing is fine-tuned for it
        settings = {key: value for key, value in settings.items() if key not in OF_FINE_TUNING}
    if name in ("train", "evaluate"):
        settings.pop("filter_quantile", None)  # the identity of the filter stage says it
        if settings.get("mixing") != "none" and "synthetic_datalist" in settings:  # images from elsewhere
            settings["synthetic_sha256"] = datalist_sha256(settings["synthetic_datalist"])
        if settings.get("mixing") == "none":  # records of earlier versions hold them
            left_out = OF_GENERATION
        if settings.get("synthetic_per_class") is not None:
            settings.pop("images_per_class", None)  # the first ones are used, however many there are
    if name in ("filter", "privacy"):
        settings["encoder_fingerprint"] = encoder_fingerprint(settings["encoder"])
    if "base_model" in settings and needs_base(name, settings):
        settings["base_fingerprint"] = base_fingerprint(settings)
        noted = read_json(folder / "run.json")["settings"] if (folder / "run.json").exists() else None
        if noted is None or "base_schedule" in noted:  # versions before did not note it, and theirs is not known
            settings["base_schedule"] = schedule_of(resolve_base_model(settings["base_model"], settings.get("variant")))
    if name == "generate" and settings.get("few_step_adapter"):
        settings["few_step_sha256"] = adapter_sha256(settings["few_step_adapter"])
    upstream = {}
    if name != "split":
        record = output_dir / "datalist.json"
        upstream["split"] = read_json(record)["identity"] if record.exists() else ""
    for parent in upstream_of(name, settings):
        record = output_dir / folder_of(parent, settings) / "run.json"
        upstream[parent] = read_json(record)["identity"] if record.exists() else ""
    return Stage(name, folder, settings, upstream, config, left_out)


def folder_of(name: str, settings: dict[str, Any]) -> str:
    """The folder of a stage within `output_dir`, or the absolute path that `filter_dir` names for the filter."""
    if name == "filter" and "filter_dir" in settings:
        return str(Path(settings["filter_dir"]).resolve())
    return FOLDERS[name].format(**settings)


def upstream_of(name: str, settings: dict[str, Any]) -> list[str]:
    """The stages that must be complete before one can begin."""
    if name == "train_diffusion":
        return ["prior"] if settings.get("prior_images") else []
    if name == "generate":
        return [] if settings["adapter_scope"] == "none" else ["train_diffusion"]
    if name in ("assess", "filter", "privacy"):
        return ["generate"]
    if name == "train" and settings["mixing"] != "none" and "synthetic_datalist" not in settings:
        return ["generate" if settings.get("filter", "none") == "none" else "filter"]
    return []


def datalist_sha256(path: str) -> str:
    """The SHA-256 of a datalist of synthetic images.

    Raises:
        FileNotFoundError: when there is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"There is no synthetic_datalist {path}. It is the datalist.json of an imported package."
        )
    return sha256_of(path)


def base_fingerprint(settings: dict[str, Any]) -> str:
    """SHA-256 of the weights that a config's base model has."""
    variant = settings.get("variant")
    return fingerprint(resolve_base_model(settings["base_model"], variant), variant)


def needs_base(name: str, settings: dict[str, Any]) -> bool:
    """Whether a stage's outputs depend on the base model."""
    return name in FOLDERS or settings.get("mixing") != "none"
