"""Every setting of a config checked before anything is built: numbers in their ranges, names among the known ones."""

from __future__ import annotations

from typing import Any

from monai.bundle import ConfigWorkflow

from ..data.mixing import MIXING, check_order, check_shares
from ..data.prompts import check_attributes
from ..data.sampling import realized_first
from ..data.synthetic_image import FORMATS
from ..inferers.sampling import check_start
from ..metrics.filters import FILTERS
from ..transforms.macenko import METHODS
from .arms_check import check_arms
from .classifier_check import check_classifier
from .machine_check import check_compile, check_cuda_graph, check_device, check_threads
from .session import check_kept, plain_settings

# name: (type, smallest, largest)
NUMBERS: dict[str, tuple[type, float, float]] = {
    "seed": (int, 0, 2**31 - 1),
    "fold": (int, 0, 1000),
    "num_folds": (int, 3, 1000),
    "shots": (int, 1, 10**6),
    "image_size": (int, 32, 2048),
    "classifier_size": (int, 32, 2048),
    "rank": (int, 1, 1024),
    "lora_alpha": (float, 1e-3, 1e6),
    "lora_dropout": (float, 0.0, 0.99),
    "ema_decay": (float, 0.0, 0.999999),
    "noise_offset": (float, 0.0, 1.0),
    "accumulate_steps": (int, 1, 4096),
    "max_steps": (int, 1, 10**7),
    "adapter_batch_size": (int, 1, 4096),
    "adapter_learning_rate": (float, 1e-8, 1.0),
    "sample_every": (int, 0, 10**6),
    "prompt_dropout": (float, 0.0, 1.0),
    "min_snr_gamma": (float, 1e-3, 1e6),
    "prior_images": (int, 0, 10**6),
    "prior_weight": (float, 0.0, 100.0),
    "images_per_class": (int, 1, 10**7),
    "synthetic_per_class": (int, 1, 10**7),
    "guidance_scale": (float, 0.0, 50.0),
    "num_inference_steps": (int, 1, 1000),
    "start_sigma": (float, 0.05, 1000.0),
    "generation_batch_size": (int, 1, 4096),
    "classifier_steps": (int, 1, 10**7),
    "batch_size": (int, 1, 4096),
    "learning_rate": (float, 1e-8, 1.0),
    "real_weight": (float, 0.0, 1.0),
    "real_share": (float, 0.0, 1.0),
    "synthetic_first": (float, 0.0, 1.0),
    "filter_quantile": (float, 0.0, 0.5),
    "cache_interval": (int, 1, 1000),
    "num_workers": (int, 0, 1024),
    "encoder_batch_size": (int, 1, 4096),
    "bootstrap_samples": (int, 10, 10**6),
    "phantoms_per_class": (int, 1, 10**6),
    "phantom_patients": (int, 1, 10**6),
}
OPTIONAL = (  # may be null
    *("lora_alpha", "ema_decay", "min_snr_gamma", "synthetic_per_class", "real_weight", "real_share", "start_sigma"),
)
NONE_USED = ("synthetic_per_class", 0)  # what an arm without synthetic images may say, as in a study's grid
CHOICES: dict[str, tuple[Any, ...]] = {
    "adapter_scope": ("dataset", "class", "none"),
    "classifier_amp": (None, "bfloat16"),
    "mixing": MIXING,
    "baseline": ("", None, *MIXING),  # none is compared with where it is empty
    "filter": tuple(FILTERS),
    "normalize_stain": METHODS,
    "scheduler": ("dpmsolver++", "dpmsolver++_trailing", "unipc", "ddim", "lcm", "pndm", "euler"),
    "image_format": FORMATS,
    "amp": (None, "bfloat16", "float16"),
    "variant": (None, "fp16"),
    "cuda_graph": (None, False, True),
    "lora_init": ("gaussian", "kaiming", "pissa"),
    **{
        name: (False, True)
        for name in (
            "use_dora",
            "use_rslora",
            "gradient_checkpointing",
            "train_text_encoder",
            "find_duplicates",
            "match_colors",
            "compile",
            "include_real_images",
            "controls",
            "judge_images",
        )
    },
}


def check_settings(workflow: ConfigWorkflow) -> None:
    """Checks every setting of a config before anything is built.

    Raises:
        TypeError: for a text where a number belongs.
        ValueError: for a value out of its range, naming the range, or an unknown name, naming the nearest.
    """
    check_values(workflow)
    settings = plain_settings(workflow.parser.config)
    if settings.get("fold", 0) >= settings.get("num_folds", 1000):
        raise ValueError(f"fold is {settings['fold']}, but there are {settings['num_folds']} folds, counted from 0.")
    check_start(settings.get("scheduler"), settings.get("start_sigma"))
    check_order(settings.get("mixing"), settings.get("synthetic_first", 0.0))
    check_shares(settings.get("real_weight"), settings.get("real_share"), settings.get("synthetic_first", 0.0))
    if settings.get("mixing") in ("real+synthetic", "fill-up") and not workflow.parser.get("train::dataset::seen_once"):
        realized_first(settings["synthetic_first"], workflow.parser.get_parsed_content("num_epochs"))
    check_attributes(settings.get("attributes", {}))
    check_interval(settings.get("guidance_interval"))
    if (
        "classifier" in settings and workflow.parser.get("arm_dir") is not None
    ):  # elsewhere network_def is another network
        check_classifier(workflow.parser.config)
    check_arms(workflow.parser)
    check_threads(settings.get("num_threads"))
    check_device(workflow.parser.get_parsed_content("device"))
    check_compile(settings, workflow.parser)
    check_cuda_graph(settings, workflow.parser)
    if "base_model" in settings:
        from ..networks.base_models import resolve_base_model

        resolve_base_model(settings["base_model"], settings.get("variant"))
    if settings.get("few_step_adapter") is not None:
        check_few_step_adapter(settings["few_step_adapter"], settings["base_model"], settings.get("variant"))


def check_values(workflow: ConfigWorkflow) -> None:
    """Checks each setting of a config by itself, also of a study, whose runs have settings of their own.

    Raises:
        TypeError: for a text where a number belongs, or a value that no config file can hold.
        ValueError: for a value out of its range, naming the range, or an unknown name, naming the known ones.
    """
    check_kept(workflow)
    config: Any = workflow.parser.config
    settings = plain_settings(config)
    for name, value in settings.items():
        unused = (name, value) == NONE_USED and settings.get("mixing") == "none"
        if name in NUMBERS and not (value is None and name in OPTIONAL) and not unused:
            check_number(name, value)
        if name in CHOICES and not is_one_of(value, CHOICES[name]):
            raise ValueError(f"{name} is {value!r}. It can be {', '.join(map(repr, CHOICES[name]))}.")
    if "reference_roles" in config:  # also those of an expression: no wall is passed by one
        check_reference_roles(workflow.parser.get_parsed_content("reference_roles"))


def is_one_of(value: Any, choices: tuple[Any, ...]) -> bool:
    """Whether a value is among the choices; 0 and 1, which Python holds equal to False and True, are not."""
    return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)


def check_reference_roles(roles: Any) -> None:
    """Checks which real images judge synthetic ones.

    Raises:
        ValueError: when they are not a list of roles of images that may.
    """
    if not isinstance(roles, (list, tuple)) or not roles or any(role not in ("train", "val") for role in roles):
        raise ValueError(
            f"reference_roles is {roles!r}. It is a list of 'train', 'val' or both: test and external images judge the "
            "classifier at the end and nothing before, and the shots guided the generator, so they cannot judge its "
            "images."
        )


def check_few_step_adapter(adapter: str, base_model: str, variant: str | None) -> None:
    """Checks that an adapter for drawing in a few steps is there, and that it belongs to the base when it says so.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: when it belongs to another base.
    """
    from ..networks.adapter_files import adapter_path, read_adapter_metadata
    from ..networks.base_models import fingerprint, resolve_base_model

    if not adapter_path(adapter).is_file():
        raise FileNotFoundError(
            f"few_step_adapter is {adapter!r}, but there is no {adapter_path(adapter)}. Name a .safetensors file or "
            "the folder of a pytorch_lora_weights.safetensors, such as a copy of latent-consistency/lcm-lora-sdv1-5; "
            "nano_few_step is the embedded one of the nano base."
        )
    metadata = read_adapter_metadata(adapter)
    own = fingerprint(resolve_base_model(base_model, variant), variant)
    if metadata.get("base_fingerprint", own) != own:
        raise ValueError(
            f"few_step_adapter is {adapter!r}, which belongs to the base {metadata.get('base_model')!r}, but "
            f"base_model is {base_model!r}. Name an adapter of this base, or leave it out (null)."
        )


def check_interval(interval: Any) -> None:
    """Checks the noise levels at which guidance acts.

    Raises:
        ValueError: when they are not a low and a high number.
    """
    if interval is None:
        return
    numbers = isinstance(interval, (list, tuple)) and len(interval) == 2
    if not numbers or not all(isinstance(x, (int, float)) for x in interval) or not 0 <= interval[0] < interval[1]:
        raise ValueError(
            f"guidance_interval is {interval!r}. It is the lowest and the highest sigma with guidance, such as "
            "[0.28, 5.42]; null is guidance throughout."
        )


def check_number(name: str, value: Any) -> None:
    """Checks one number against its type and range in `NUMBERS`."""
    kind, low, high = NUMBERS[name]
    allowed = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed):
        word = "a whole number" if kind is int else "a number"
        raise TypeError(f"{name} is {value!r}. It must be {word} from {low:g} to {high:g}.")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value!r}. It must lie between {low:g} and {high:g}.")
