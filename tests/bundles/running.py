"""What the tests of whole configs share: where the configs are, settings small enough for a test, and running them."""

import os
import subprocess
import sys
import time
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
        release_folder({**settings, **more}["output_dir"])


def command(config, settings, output_dir):
    """The words of a run of one config as a user types them."""
    given = known_settings({**settings, "output_dir": str(output_dir)}, config)
    pairs = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    return [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(CONFIGS / f"{config}.json"), *pairs]


def stopped_when(words, condition, number, group=False):
    """Starts a command, sends it (or its group) a signal as soon as a condition holds, and gives status and output."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(words, env=environment, start_new_session=True, **streams)
    deadline = time.time() + 300  # the machine may be busy
    while not condition() and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    if group and process.poll() is None:
        os.killpg(process.pid, number)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)  # what batch systems give
    return process.returncode, output


def finished(words):
    """Runs a command to its end."""
    subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)


def root_message(error):
    """What the first of a chain of errors says."""
    cause = error.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return str(cause)


def files_of(folder):
    """The SHA-256 of every PNG below a folder by its relative path."""
    return {str(path.relative_to(folder)): sha256_of(path) for path in sorted(Path(folder).rglob("*.png"))}
