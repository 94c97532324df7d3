"""Several processes of one run, started as a user starts them: torchrun, here over gloo on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from monai_synth.data import load_datalist
from monai_synth.data.requests import journal_lines, journals_of
from monai_synth.networks import read_adapter_metadata
from monai_synth.networks.adapter_files import ADAPTER_FILE
from monai_synth.utils import processes, read_json, sha256_of
from tests.bundles import running
from tests.bundles.running import CONFIGS, SMALL, known_settings


@pytest.fixture
def settings(miniature, image_folder, tmp_path):
    return {
        **SMALL,
        "adapter_batch_size": 4,
        "dataset_dir": str(image_folder({"benign": 20, "malignant": 20})),
        "output_dir": str(tmp_path / "out"),
        "base_model": str(miniature()),
    }


def command(config, settings, count, *overlays):
    """The command line of a config under torchrun, with the settings that it knows."""
    path = json.dumps([str(path) for path in (CONFIGS / f"{config}.json", *overlays)])
    given = [word for key, value in known_settings(settings, config).items() for word in (f"--{key}", str(value))]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max_restarts=2"]
    start += ["--nproc_per_node", str(count)]
    return [*start, "-m", "monai.bundle", "run", "--config_file", str(path), *given]


def run(config, settings, count, *overlays):
    done = subprocess.run(
        command(config, settings, count, *overlays),
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout + done.stderr


def read_journal(folder):
    """The records of all images drawn so far by their relative path, whichever process drew them."""
    return {record["image"]: record for path in journals_of(folder) for _, record in journal_lines(path)}


def pixels(folder):
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)).astype(int) for path in folder.rglob("*.png")}


@pytest.mark.parametrize(
    ("count", "shares"), [(2, [3, 3]), pytest.param(4, [2, 2, 1, 1], marks=pytest.mark.slow)], ids=["2", "4"]
)
def test_several_processes_draw_what_one_draws(settings, tmp_path, count, shares):
    settings |= {"adapter_scope": "none"}
    alone, together = tmp_path / "alone" / "synthetic", tmp_path / "together" / "synthetic"
    running.run("generate", settings, output_dir=str(alone.parent))
    code, text = run("generate", {**settings, "output_dir": str(together.parent)}, count)
    assert code == 0, text
    assert len(load_datalist(together / "datalist.json")) == 6
    journals = ["journal.jsonl", *(f"journal.{process}.jsonl" for process in range(1, count))]
    assert {path.name for path in together.glob("journal*")} == set(journals)
    assert [(together / name).read_text().count("\n") for name in journals] == shares
    expected, drawn = pixels(alone), pixels(together)
    assert drawn.keys() == expected.keys()
    assert all(np.abs(drawn[name] - image).max() <= 2 for name, image in expected.items())  # of 255, other batches


def test_another_number_of_processes_goes_on_even_with_more_of_them_than_images_are_missing(settings):
    settings |= {"adapter_scope": "none", "images_per_class": 2}
    folder = Path(settings["output_dir"]) / "synthetic"
    running.run("generate", settings)
    whole = pixels(folder)
    (folder / "benign" / "benign_000001.png").unlink()
    (folder / "run.json").write_text(json.dumps({**read_json(folder / "run.json"), "complete": False}))
    code, text = run("generate", settings, 2)
    assert code == 0, text
    assert len(read_journal(folder)) == 4 and pixels(folder).keys() == whole.keys()
    assert np.abs(pixels(folder)["benign/benign_000001.png"] - whole["benign/benign_000001.png"]).max() <= 2
    assert read_json(folder / "run.json")["complete"]


@pytest.mark.slow
def test_the_whole_job_runs_in_two_processes(settings):
    code, text = run("train", settings, 2)
    assert code == 0, text
    out = Path(settings["output_dir"])
    assert text.count("Stage train_diffusion begins") == 2  # both take part
    assert "real + synthetic" in (out / "results.txt").read_text()
    assert read_json(out / "adapter" / "run.json")["complete"]
    code, text = run("filter", settings, 2)
    assert code != 0 and "filter.json runs in one process, but torchrun has started 2" in text
    code, text = run("train", {**settings, "output_dir": settings["output_dir"] + "_3"}, 3)
    assert code != 0 and "batch of 4 images cannot be divided among 3 processes" in text


@pytest.mark.parametrize("config, more", [("train_diffusion", {}), ("train", {"mixing": "none", "baseline": ""})])
def test_processes_learn_from_different_images_and_end_with_the_same_weights(settings, tmp_path, config, more):
    watch = {"_target_": "tests.bundles.watching.Watch", "folder": str(tmp_path), "network": "@network"}
    overlay = tmp_path / "watch.json"
    overlay.write_text(json.dumps({"+train::handlers": [watch]}))
    code, text = run(config, {**settings, **more, "prompt_dropout": 0.0}, 2, overlay)
    assert code == 0, text
    first, second = (read_json(tmp_path / f"process_{process}.json") for process in (0, 1))
    assert first["batch"] != second["batch"] and first["weights"] == second["weights"]


def overlay_path(name):
    return CONFIGS.parents[2] / "configs" / "multi_gpu" / f"{name}.yaml"


def beside(settings, *overlays):
    """The settings that some overlays leave open, without what would take a test too long."""
    own = set().union(*(ConfigParser.load_config_file(overlay_path(name)) for name in overlays))
    small = {key: value for key, value in settings.items() if key not in own}
    return small | {key: value for key, value in {"num_workers": 1, "compile": False}.items() if key in own}


@pytest.mark.slow
@pytest.mark.parametrize(
    "config, overlay, result",
    [
        ("train_diffusion", "fine_tuning", "adapter/pytorch_lora_weights.safetensors"),
        ("generate", "generation", "synthetic/malignant/malignant_000002.webp"),
        ("assess", "features", "report.html"),
        ("train", "classification", "classifier/test_resnet_real+synthetic/evaluation/metrics.json"),
    ],
)
def test_an_overlay_for_many_gpus_runs_in_two_processes(settings, config, overlay, result):
    code, text = run(config, beside(settings, overlay), 2, overlay_path(overlay))
    assert code == 0, text
    assert (Path(settings["output_dir"]) / result).is_file()


@pytest.mark.slow
def test_after_a_fine_tuning_in_two_processes_any_number_draws(settings):
    """As docs/many_machines.md shows it; three processes could not divide the fine-tuning's batch."""
    overlays, settings = ("fine_tuning", "generation"), {**settings, "images_per_class": 4}
    code, text = run("train_diffusion", beside(settings, *overlays), 2, overlay_path("fine_tuning"))
    assert code == 0, text
    adapter = Path(settings["output_dir"]) / "adapter" / "pytorch_lora_weights.safetensors"
    made = sha256_of(adapter)
    code, text = run("generate", beside(settings, *overlays), 3, *map(overlay_path, overlays))
    assert code == 0 and sha256_of(adapter) == made, text
    records = load_datalist(Path(settings["output_dir"]) / "synthetic" / "datalist.json")
    assert len(records) == 8 and all(Path(record["image"]).is_file() for record in records)


@pytest.mark.slow
def test_a_lost_process_is_started_again_and_nothing_is_missing(settings):
    settings |= {"adapter_scope": "none", "images_per_class": 150, "generation_batch_size": 2}
    words = command("generate", settings, 2)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LOGLEVEL": "INFO"}  # torchrun's, which tells restarts
    drawing = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    folder = Path(settings["output_dir"]) / "synthetic"
    for _ in range(30000):  # the machine may be busy
        if len(read_journal(folder)) >= 4:
            break
        time.sleep(0.01)
    workers = subprocess.run(["pgrep", "-P", str(drawing.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    assert 4 <= len(read_journal(folder)) < 300  # it was lost on the way
    _, text = drawing.communicate(timeout=300)
    assert drawing.returncode == 0, text
    assert "restart worker group" in text.lower(), text
    records = load_datalist(folder / "datalist.json")
    assert len(records) == len({record["image"] for record in records}) == 300
    assert all(Path(record["image"]).is_file() for record in records)


def begun_fine_tuning(settings, tmp_path):
    """A fine-tuning in two processes that has saved, its folder, and the hash of what it ends with undisturbed."""
    settings |= {"max_steps": 200, "sample_every": 0}
    code, text = run("train_diffusion", {**settings, "output_dir": str(tmp_path / "whole")}, 2)
    assert code == 0, text
    words, environment = command("train_diffusion", settings, 2), {**os.environ, "OMP_NUM_THREADS": "1"}
    training = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    adapter = Path(settings["output_dir"]) / "adapter"
    while not (adapter / "state_1.json").is_file() and training.poll() is None:
        time.sleep(0.02)
    return training, adapter, sha256_of(tmp_path / "whole" / "adapter" / ADAPTER_FILE)


@pytest.mark.slow
def test_a_fine_tuning_that_lost_a_process_goes_on_from_its_state(settings, tmp_path):
    training, adapter, whole = begun_fine_tuning(settings, tmp_path)
    workers = subprocess.run(["pgrep", "-P", str(training.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    text, _ = training.communicate(timeout=500)
    assert training.returncode == 0 and f"from {adapter}" in text, text
    assert sha256_of(adapter / ADAPTER_FILE) == whole


@pytest.mark.slow
def test_processes_asked_to_stop_leave_together_and_end_with_the_same_adapter(settings, tmp_path):
    training, adapter, whole = begun_fine_tuning(settings, tmp_path)
    training.send_signal(signal.SIGTERM)
    text, _ = training.communicate(timeout=30)  # what batch systems give
    assert (
        training.returncode != 0 and "Saving after this step" in text and "run the same command to go on" in text
    ), text
    reached = max(read_json(path)["iteration"] for path in adapter.glob("state_?.json"))
    assert reached < 200 and not read_json(adapter / "run.json")["complete"]
    code, text = run("train_diffusion", settings, 2)
    assert code == 0 and f"from {adapter}" in text, text
    assert sha256_of(adapter / ADAPTER_FILE) == whole


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_a_fine_tuning_stopped_in_one_process_goes_on_in_two(settings, number):
    settings |= {"max_steps": 200, "sample_every": 0}
    adapter = Path(settings["output_dir"]) / "adapter"
    words = running.command("train_diffusion", settings, settings["output_dir"])
    code, text = running.stopped_when(words, (adapter / "state_1.json").is_file, number)
    assert code != 0 and not read_json(adapter / "run.json")["complete"], text
    stopped = max((read_json(path) for path in adapter.glob("state_?.json")), key=lambda state: state["iteration"])
    assert 25 <= stopped["iteration"] < 200
    code, text = run("train_diffusion", settings, 2)
    assert code == 0, text
    assert text.count(f"Going on after epoch {stopped['epoch']}") == 2  # both
    reached = max(read_json(path)["iteration"] for path in adapter.glob("state_?.json"))
    assert reached == read_adapter_metadata(adapter)["steps"] == 200 and read_json(adapter / "run.json")["complete"]


def _average(process, port, folder):
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(process), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    processes.join("cpu")
    from types import SimpleNamespace

    from monai_synth.handlers import GradientAverage

    torch.manual_seed(process)  # different weights, which the first's replace
    network = torch.nn.Linear(3, 2)
    statistics = torch.tensor([float(process), 0.1])
    average = GradientAverage(network.parameters(), [statistics])
    average.align(None)
    average.average_buffers(None)
    assert torch.equal(statistics, torch.tensor([0.5, 0.1]))
    data = torch.arange(12.0).view(4, 3)
    network(data[2 * process : 2 * process + 2]).square().mean().backward()
    average(SimpleNamespace(state=SimpleNamespace(iteration=1, epoch_length=1), accumulation_steps=1))
    assert processes.share([1, 2, 3]) == [[1, 3], [2]][process] and processes.per_process(6) == 3
    assert processes.agreed(process) == 0 and processes.first_only(lambda: "first") == "first"
    try:
        processes.first_only(lambda: 1 / 0)
    except (ZeroDivisionError, RuntimeError) as error:
        assert isinstance(error, (ZeroDivisionError, RuntimeError)[process]) and "division by zero" in str(error)
    torch.save([network.weight.data, network.weight.grad], Path(folder) / f"{process}.pt")
    torch.distributed.destroy_process_group()


def test_gradients_of_two_processes_are_those_of_one_with_the_whole_batch(tmp_path):
    torch.multiprocessing.spawn(_average, (29000 + os.getpid() % 900, str(tmp_path)), nprocs=2)
    (weight, first), (other, second) = (torch.load(tmp_path / f"{process}.pt") for process in (0, 1))
    assert torch.equal(weight, other) and torch.equal(first, second)
    torch.manual_seed(0)
    network = torch.nn.Linear(3, 2)
    network(torch.arange(12.0).view(4, 3)).square().mean().backward()
    torch.testing.assert_close(first, network.weight.grad)


def test_one_process_is_not_bothered():
    assert (processes.rank(), processes.count(), processes.is_first()) == (0, 1, True)
    assert processes.share([1, 2]) == [1, 2] and processes.first_only(lambda: 3) == 3
    processes.alone("filter.json")
    processes.wait_for_all()
