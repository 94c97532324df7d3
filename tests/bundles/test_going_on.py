"""Runs that are killed or asked to stop, and go on, as a user starts them."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from monai_synth.utils import read_json, sha256_of
from tests.bundles.running import CONFIGS, known_settings


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
    deadline = time.time() + 120
    while not condition() and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    if group and process.poll() is None:
        os.killpg(process.pid, number)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)  # what batch systems give
    return process.returncode, output


def finished(words):
    subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)


def test_a_stopped_fine_tuning_ends_with_the_same_adapter(settings, tmp_path):
    settings = {**settings, "max_steps": 200}
    name = "adapter/pytorch_lora_weights.safetensors"
    finished(command("train_diffusion", settings, tmp_path / "whole"))
    for number, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 128 + signal.SIGTERM)):
        folder = tmp_path / number.name
        words = command("train_diffusion", settings, folder)
        state = folder / "adapter" / "state_1.json"
        code, output = stopped_when(words, state.exists, number)
        assert state.exists() and not read_json(folder / "adapter" / "run.json")["complete"]
        assert code == status and ("run the same command to go on" in output) == (number == signal.SIGTERM)
        finished(words)
        assert sha256_of(folder / name) == sha256_of(tmp_path / "whole" / name)


@pytest.mark.slow
def test_a_classifier_whose_group_is_asked_to_stop_keeps_its_readers_until_it_has_saved(settings, tmp_path):
    settings = {**settings, "mixing": "none", "baseline": "", "classifier_steps": 200, "num_workers": 2}
    finished(command("train", settings, tmp_path / "whole"))
    words, arm = command("train", settings, tmp_path / "parts"), "classifier/test_resnet_none"
    state = tmp_path / "parts" / arm / "state_1.json"
    code, output = stopped_when(words, state.exists, signal.SIGTERM, group=True)
    assert code == 128 + signal.SIGTERM and "is killed by signal" not in output, output
    finished(words)
    assert sha256_of(tmp_path / "parts" / arm / "model.pt") == sha256_of(tmp_path / "whole" / arm / "model.pt")


@pytest.mark.slow
@pytest.mark.parametrize("number, wanted", [(signal.SIGKILL, 20), (signal.SIGTERM, 8)])
def test_the_main_job_stopped_again_and_again_ends_with_the_same_files(settings, tmp_path, number, wanted):
    settings = {**settings, "max_steps": 100, "images_per_class": 8, "classifier_steps": 50}
    finished(command("train", settings, tmp_path / "whole"))
    rng, words, kills = np.random.default_rng(0), command("train", settings, tmp_path / "parts"), 0
    while kills < wanted:
        end = time.time() + rng.uniform(4, 14)
        code, _ = stopped_when(words, lambda: time.time() > end, number)
        if code == 0:  # it came through; the next kills meet a run with its last stage gone
            shutil.rmtree(tmp_path / "parts" / rng.choice(["classifier", "synthetic", "adapter"]))
            shutil.rmtree(tmp_path / "parts" / "classifier", ignore_errors=True)
        else:
            kills += 1
    finished(words)
    for pattern in ("adapter/*lora*", "synthetic/*/*.png", "classifier/*/model.pt", "classifier/*/evaluation/*.csv"):
        whole = {path.relative_to(tmp_path / "whole"): sha256_of(path) for path in (tmp_path / "whole").glob(pattern)}
        parts = {path.relative_to(tmp_path / "parts"): sha256_of(path) for path in (tmp_path / "parts").glob(pattern)}
        assert whole and parts == whole
    assert not list((tmp_path / "parts").rglob("*.part*"))
