"""What the tests of whole configs share: where the configs are, settings small enough for a test, and running them."""

from pathlib import Path

from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle

from monai_synth.utils import release_folder, sha256_of

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "bundles" / "colon" / "configs"
SMALL = {
    "image_size": 32,
    "classifier_size": 32,
    "shots": 3,
    "rank": 2,
    "max_steps": 2,
    "adapter_batch_size": 2,
    "images_per_class": 3,
    "num_inference_steps": 2,
    "classifier": "test_resnet",
    "classifier_steps": 2,
    "batch_size": 4,
    "device": "cpu",
}


def known_settings(settings, *names):
    """Those of some settings that one of the named configs has."""
    known = set().union(*(ConfigParser.load_config_file(CONFIGS / f"{name}.json") for name in names))
    return {key: value for key, value in settings.items() if key in known}


def run(config, settings, **more):
    """Runs one config, or several over each other; settings that they lack are for the stages that they bring about."""
    names = config if isinstance(config, list) else [config]
    try:
        run_bundle(config_file=[str(CONFIGS / f"{name}.json") for name in names], **{**settings, **more})
    finally:
        release_folder(settings["output_dir"])


def root_message(error):
    """What the first of a chain of errors says."""
    cause = error.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return str(cause)


def files_of(folder):
    """The SHA-256 of every PNG below a folder by its relative path."""
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(Path(folder).rglob("*.png"))}
