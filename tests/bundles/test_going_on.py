"""Runs that are killed or asked to stop, and go on, as a user starts them."""

import csv
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import monai_synth
from monai_synth.networks.adapter_files import ADAPTER_FILE
from monai_synth.utils import read_json, sha256_of, write_json
from tests.bundles.running import CONFIGS, command, finished, run, stopped_when

STAGES = ("adapter", "synthetic", "classifier")  # folders of the fine-tuning, the generation and the classifiers


def after(folder, pattern, seconds):
    """A condition: some seconds have passed since a run that starts now wrote a file of a pattern."""
    began, seen = time.time(), []

    def holds():
        if not seen and any(path.stat().st_mtime > began for path in folder.glob(pattern)):
            seen.append(time.time())
        return bool(seen) and time.time() > seen[0] + seconds

    return holds


def newest(folder):
    """Which part of an output folder was written last."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_mtime_ns).relative_to(folder).parts[0]


def is_complete(folder):
    records = list(folder.rglob("run.json"))
    return bool(records) and all(read_json(path)["complete"] for path in records)


def contents(folder, *patterns):
    """The SHA-256 of the files of some patterns, each of which finds some."""
    found = {pattern: list(folder.glob(pattern)) for pattern in patterns}
    assert all(found.values())
    return {str(path.relative_to(folder)): sha256_of(path) for paths in found.values() for path in paths}


def last_state(folder):
    """The SHA-256 of a training's last state: weights, optimizer, schedule and best metric."""
    states = [read_json(path) for path in folder.glob("state_?.json")]
    return max((state["epoch"], state["iteration"], state["sha256"]) for state in states)


def torn(folder):
    """What a killed run left lying about: files that were being written."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*.part*")]


def test_a_stopped_fine_tuning_ends_with_the_same_adapter(settings, tmp_path):
    settings = {**settings, "max_steps": 75, "sample_every": 0}
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


def told(folder):
    """Content hash and time of writing of every file below a folder."""
    return {path: (sha256_of(path), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("scope", ["dataset", "class"])
def test_a_complete_adapter_is_passed_over_without_its_states_and_without_the_base(settings, monkeypatch, scope):
    folder = Path(settings["output_dir"]) / "adapter"
    run("train_diffusion", settings, adapter_scope=scope)
    for state in folder.rglob("state_*"):
        state.unlink()
    before = told(folder)
    with monkeypatch.context() as patch:
        patch.setattr(monai_synth.networks, "shared_diffusion", lambda *args, **kwargs: pytest.fail("base is loaded"))
        run("train_diffusion", settings, adapter_scope=scope)
    weights = {path: hashes for path, hashes in told(folder).items() if path.suffix == ".safetensors"}
    assert len(weights) == (1 if scope == "dataset" else 2) and weights.items() <= before.items()
    if scope == "class":  # stopped in its second class
        write_json(folder / "run.json", {**read_json(folder / "run.json"), "complete": False})
        shutil.rmtree(folder / "malignant")
        run("train_diffusion", settings, adapter_scope=scope)
        again = told(folder)
        benign, malignant = (folder / name / ADAPTER_FILE for name in ("benign", "malignant"))
        assert again[benign] == before[benign] and again[malignant][0] == before[malignant][0]


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
@pytest.mark.parametrize(("number", "wanted"), [(signal.SIGKILL, 21), (signal.SIGTERM, 9)], ids=["SIGKILL", "SIGTERM"])
def test_the_main_job_stopped_again_and_again_ends_with_the_same_files(settings, tmp_path, number, wanted):
    settings = {**settings, "max_steps": 100, "images_per_class": 16, "classifier_steps": 50}
    settings |= {"generation_batch_size": 1}  # an image drawn again has other neighbours, see docs/determinism.md
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finished(command("train", settings, whole))
    seconds = {stage: read_json(next(whole.glob(f"{stage}/**/run.json")))["wall_time_s"] for stage in STAGES}
    rng, words, stopped = np.random.default_rng(0), command("train", settings, parts), []
    for stage in rng.permutation(STAGES * (wanted // 3)):
        code = 0
        while code == 0:  # it came through before its time
            if is_complete(parts / stage):
                for later in STAGES[STAGES.index(stage) :]:
                    shutil.rmtree(parts / later, ignore_errors=True)
            moment = after(parts, f"{stage}/**/run.json", rng.uniform(0, seconds[stage]))
            code, output = stopped_when(words, moment, number)
        assert moment() and code == {signal.SIGKILL: -number, signal.SIGTERM: 128 + number}[number], output
        stopped.append(newest(parts))
    assert len(stopped) == wanted and min(Counter(stopped)[stage] for stage in STAGES) >= wanted // 7, Counter(stopped)
    finished(words)
    made = ("adapter/*lora*", "synthetic/*/*.png", "classifier/*/model.pt", "classifier/*/evaluation/*.csv")
    for training in ("adapter", *(f"classifier/{path.name}" for path in (whole / "classifier").iterdir())):
        assert last_state(parts / training) == last_state(whole / training)
    assert contents(parts, *made) == contents(whole, *made) and not torn(parts)


def killed(words, folder, seconds, times, forget):
    """Kills a command some times at random moments at its work; what came through before its time is forgotten."""
    rng = np.random.default_rng(0)
    while times:
        moment = after(folder, ".lock.json", rng.uniform(0, seconds))
        code, output = stopped_when(words, moment, signal.SIGKILL)
        if code == 0:
            forget()
            continue
        assert moment() and code == -signal.SIGKILL, output
        times -= 1
    finished(words)


def seconds_of(folder, last):
    """How long the run that made a folder worked, until it wrote its last file."""
    return (folder / last).stat().st_mtime - (folder / ".lock.json").stat().st_mtime


@pytest.mark.slow
def test_a_study_killed_again_and_again_ends_with_the_same_tables(settings, tmp_path, encoder):
    settings |= {"grid": {"seed": [0, 1], "synthetic_per_class": [0, 6], "classifier": ["test_resnet"]}}
    settings |= {"max_steps": 50, "classifier_steps": 50, "generation_batch_size": 1, "encoder_batch_size": 1}
    settings |= {"judge_images": True, "encoder": str(encoder), "bootstrap_samples": 10}
    write_json(tmp_path / "small.json", settings)
    configs = str([str(CONFIGS / "study.json"), str(tmp_path / "small.json")])
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", configs, "--output_dir"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finished([*words, str(whole)])
    seconds = seconds_of(whole, "report.json")
    killed([*words, str(parts)], parts, seconds, 6, lambda: shutil.rmtree(parts / "seed1"))
    made = ("comparison.csv", "distances.csv", "*/synthetic/*/*.png", "*/classifier/*/model.pt")
    made += ("*/classifier/*/evaluation*/predictions.csv",)
    assert contents(parts, *made) == contents(whole, *made) and not torn(parts)
    rows = [list(csv.DictReader(open(folder / "results.csv", newline=""))) for folder in (whole, parts)]
    assert len(rows[0]) == 6
    for row in [*rows[0], *rows[1]]:
        row.pop("seconds")  # of the clock
    assert rows[0] == rows[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "made"),
    [
        ("assess", ("assess/quality.json", "assess/map.csv", "assess/neighbors.csv")),
        ("privacy", ("privacy/privacy.json",)),
    ],
)
def test_a_judging_killed_again_and_again_ends_with_the_same_numbers(settings, tmp_path, encoder, config, made):
    settings |= {"encoder": str(encoder), "encoder_batch_size": 1, "bootstrap_samples": 300}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run("generate", settings, output_dir=str(parts), images_per_class=8)
    finished(command(config, settings, parts))
    shutil.copytree(parts, whole)
    seconds = seconds_of(parts, made[0])

    def forget():
        shutil.rmtree(parts / config)
        shutil.rmtree(parts / "features")

    forget()
    killed(command(config, settings, parts), parts, seconds, 6, forget)
    assert contents(parts, *made, "features/*/*") == contents(whole, *made, "features/*/*") and not torn(parts)
