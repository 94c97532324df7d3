"""The benchmark runs through on small numbers, and its random bases have the sizes of the published ones."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open

from monai_synth.networks import FeatureEncoder, load_adapter
from monai_synth.networks.adapter_files import ADAPTER_FILE, adapter_path, read_adapter_metadata
from monai_synth.networks.base_models import resolve_base_model

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "bundles" / "colon" / "configs"
PROMPTS = {
    "colon_aca": "H&E histopathology, colon adenocarcinoma",
    "colon_n": "H&E histopathology, benign colon tissue",
}
CPU = torch.device("cpu")
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture
def shots(image_folder):
    """Paths and prompts of two images of each class."""
    folder = image_folder(dict.fromkeys(PROMPTS, 2))
    return [(path, PROMPTS[path.parent.name]) for path in sorted(folder.rglob("*.png"))]


@pytest.fixture
def setting(miniature, shots, tmp_path):
    """A miniature with an adapter."""
    from benchmarks.generation import Setting
    from benchmarks.shipped import train_as_shipped

    base = miniature()
    train_as_shipped(base, CPU, shots, 32, tmp_path / "adapter", max_steps=1)
    return Setting(base, tmp_path / "adapter", PROMPTS, 32, CPU, tmp_path / "drawn")


@pytest.mark.parametrize(("shape", "millions"), [("sd15", 859.5), ("sd21", 865.9)])
def test_a_random_base_has_as_many_weights_as_the_published_one(shape, millions):
    from benchmarks.shapes import build_unet

    with torch.device("meta"):
        assert sum(p.numel() for p in build_unet(shape).parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_the_arithmetic_is_that_of_the_published_shapes():
    from benchmarks.arithmetic import count_arithmetic

    lines = [line.strip("| ").split(" | ") for line in count_arithmetic(790, (0.28, 5.42)).splitlines()]
    calls = {line[0]: line[1:] for line in lines if len(line) == 4}
    # Stable Diffusion 2.1 at 512 pixels: 804 GFLOP a call and 2.5 TFLOP to decode, as counted by others
    assert float(calls["sd21"][0]) == pytest.approx(804.3, abs=1)
    assert float(calls["sd21"][2]) == pytest.approx(2514, abs=5)
    assert float(calls["sd15"][1]) < float(calls["nano"][1]) < 1
    ways = {line[1].split(":")[0]: line[2:] for line in lines if len(line) == 5 and line[0] == "sd21"}
    assert ways["20 steps, guided in the interval (ours)"] == ["26.6", "3.17x", "29.7"]  # 30 calls
    assert float(ways["8 few steps, no guidance"][0]) == pytest.approx(8.9, abs=0.1)
    assert ways["ours"][0] == "1.61"  # twice a call
    assert float(ways["the works' way"][0]) == pytest.approx(1.61 + 1.117 + 0.045, abs=0.02)  # encoder and text too
    works = [line for line in lines if line[0] == "sd21" and line[1:2] == ["the works' way: 51 calls of PNDM, guided"]]
    assert float(works[0][2]) == pytest.approx(84.6, abs=0.1)


def test_ways_are_timed_in_turns():
    from benchmarks.timing import in_turns, markdown, speeds

    order = []
    seconds = in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3)
    assert order == ["a", "b"] * 3 and set(seconds) == {"a", "b"}
    assert all(len(values) == 3 and min(values) >= 0 for values in seconds.values())
    # the machine was five times as slow in the last round, which says nothing about either way
    columns = speeds({"a": [4.0, 8.0, 20.0], "b": [2.0, 2.0, 10.0], "c": [1.0, 1.0, 5.0]})
    assert columns["a"] == ["1.00x", "1.00 to 1.00", "1.00x"]
    assert columns["b"] == ["2.00x", "2.00 to 4.00", "2.00x"] and columns["c"] == ["4.00x", "4.00 to 8.00", "2.00x"]
    columns = speeds({"a": [4.0], "b": [2.0], "c": [1.0], "d": [0.5]}, {"d": "b"})
    assert columns["c"][2] == "2.00x" and columns["d"][2] == "4.00x"
    assert markdown("T", ["x", "y"], [["1", "2"]]) == "**T**\n\n| x | y |\n|---|---|\n| 1 | 2 |\n"


@pytest.mark.parametrize(
    ("latents", "prompts", "expected"),
    [(False, False, ([8], [8])), (True, False, ([], [8])), (True, True, ([], []))],
    ids=["today's way", "latents cached", "both cached"],
)
def test_without_caches_both_encoders_run_once_a_step_over_the_whole_batch(
    miniature, shots, monkeypatch, latents, prompts, expected
):
    from benchmarks.fine_tuning import Stepper

    stepper, images, texts = Stepper(miniature(), CPU, shots, 32, latents, prompts), [], []
    encode = stepper.diffusion.encode
    monkeypatch.setattr(stepper.diffusion, "encode", lambda batch: images.append(len(batch)) or encode(batch))
    encoder = stepper.diffusion.text_encoders["text_encoder"]
    encoder.register_forward_pre_hook(
        lambda module, args, kwargs: texts.append(len(args[0] if args else kwargs["input_ids"])), with_kwargs=True
    )
    assert stepper.step().isfinite() and (images, texts) == expected


def test_the_works_adapter_holds_the_text_encoder_and_is_read_back(miniature, shots, tmp_path):
    from benchmarks.fine_tuning import Stepper

    stepper = Stepper(miniature(), CPU, shots, 32, False, False, learn_text=True)
    stepper.step()
    stepper.save(tmp_path / "adapter")
    with safe_open(adapter_path(tmp_path / "adapter"), framework="pt") as file:
        parts = {key.split(".")[0] for key in file.keys()}
        learned = [file.get_tensor(key) for key in file.keys() if key.startswith("text_encoder") and "lora_B" in key]
    assert parts == {"unet", "text_encoder"} and all(value.abs().max() > 0 for value in learned)
    load_adapter(stepper.diffusion, tmp_path / "adapter")


def test_the_shipped_training_is_that_of_the_config(miniature, shots, tmp_path):
    from benchmarks.shipped import shipped_training, train_as_shipped

    seconds = train_as_shipped(miniature(), CPU, shots, 32, tmp_path / "adapter", max_steps=2)
    assert seconds > 0 and read_adapter_metadata(tmp_path / "adapter")["steps"] == 2
    assert read_adapter_metadata(tmp_path / "adapter")["prompts"] == PROMPTS
    parser = shipped_training(miniature(), CPU, shots, 32, tmp_path / "other")
    changed = {"datalist_path", "adapter_dir", "base_model", "device", "image_size", "sample_every"}
    config = json.loads((CONFIGS / "train_diffusion.json").read_text())
    assert {key for key, value in config.items() if parser[key] != value} == changed


def test_the_profile_is_of_steps_of_the_shipped_trainer(setting, shots, monkeypatch):
    from benchmarks import hot_loop

    tables = []
    monkeypatch.setattr(hot_loop, "STEPS", 2)
    monkeypatch.setattr(hot_loop, "operations", lambda title, found, *rest: tables.append(found) or title)
    assert hot_loop.profile_training(setting, shots) == "A step of train_diffusion.json's trainer"
    calls = {row.key: row.count for row in tables[0].key_averages()}
    assert calls["Optimizer.step#AdamW.step"] == hot_loop.STEPS
    assert calls["enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"] == hot_loop.STEPS


def test_the_figures_of_a_profile_are_for_one_time():
    from benchmarks.hot_loop import operations, profiler

    with profiler(CPU) as found:
        for _ in range(4):
            torch.ones(64, 64) @ torch.ones(64, 64)
    table = operations("products", found, 4, CPU, num_rows=100)
    assert "| `aten::mm` | 1 | " in table and "| `aten::ones` | 2 | " in table


def test_the_works_scheduler_is_named_for_what_it_is(miniature, setting):
    from benchmarks.generation import Plain, knows_pndm

    assert knows_pndm(miniature()) and not knows_pndm(resolve_base_model("nano"))
    assert type(Plain(setting).pipeline.scheduler).__name__ == "PNDMScheduler"
    assert type(Plain(setting, 20, "dpmsolver++").pipeline.scheduler).__name__ == "DPMSolverMultistepScheduler"


def test_both_ways_draw_all_images_and_their_peaks_are_told(setting):
    from benchmarks.memory import WAYS, peaks_of

    now = psutil.Process().memory_info().rss
    for number, way in enumerate(WAYS):
        host, gpu = peaks_of(way, setting, 2, (0.28, 5.42))
        assert host >= 0.99 * now and gpu == 0
        assert len(list((setting.folder / f"memory_{number}_2").rglob("*.png"))) == 2 * len(PROMPTS)


def test_the_memory_of_both_fine_tunings_is_told(setting, shots):
    from benchmarks.memory import TUNING, tuning_peaks

    now = psutil.Process().memory_info().rss
    for way in TUNING:
        host, gpu = tuning_peaks(way, setting, shots)
        assert host >= 0.99 * now and gpu == 0
    assert read_adapter_metadata(setting.folder / "tuned")["steps"] == 2


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(setting):
    from benchmarks.memory import MIB, WAYS, in_own_process, peaks_of

    setting = replace(setting, size=128)
    few, many = (in_own_process(peaks_of, WAYS[1], setting, number, (0.28, 5.42))[0] for number in (10, 400))
    assert many - few < 32 * MIB  # 780 images more; the pixels of all are 146 MiB as float32 tensors, 37 as bytes


def test_steps_of_the_shipped_trainer_are_taken_some_at_a_time(miniature, shots, tmp_path):
    from benchmarks.fine_tuning import ShippedStepper

    stepper = ShippedStepper(2, 3, miniature(), CPU, shots, 32, tmp_path, lora_targets="all")
    weights = []
    for number in range(1, 4):
        losses = stepper()
        weights.append(sum(float(p.detach().abs().sum()) for p in stepper.trainer.network.trainable_parameters()))
        assert len(losses) == 2 and stepper.trainer.state.iteration == 2 * number
        assert all(loss.isfinite() for loss in losses)
    assert len(set(weights)) == 3 and not list(tmp_path.glob("*.safetensors"))
    stepper.end()
    assert read_adapter_metadata(tmp_path)["steps"] == 6


def test_lost_variety_lowers_the_recall(image_folder, encoder):
    from benchmarks.quality import features_of, judge

    network = FeatureEncoder(str(encoder))
    real = image_folder({"a": 12}, name="real")
    features = {"a": features_of(sorted((real / "a").glob("*.png")), network)}
    whole = judge(features, real, network)
    assert whole.recall == 1 and whole.kid <= 0  # unbiased: below 0 for the same images
    poor = real.parent / "poor" / "a"
    poor.mkdir(parents=True)
    pixels = np.asarray(Image.open(real / "a" / "a_000.png"))
    for number in range(12):
        Image.fromarray(pixels + number % 2).save(poor / f"{number}.png")
    lost = judge(features, poor.parent, network)
    assert lost.recall < whole.recall and lost.vendi < whole.vendi and lost.kid > whole.kid


def test_every_augmentation_of_the_classifier_has_one_of_torchvision():
    from benchmarks.reading import torchvision_transforms

    entries = json.loads((CONFIGS / "train.json").read_text())["train"]["random_transforms"]
    assert [entry["_target_"] for entry in entries[4:]] == ["EnsureTyped"]
    still = torchvision_transforms([{**entry, "prob": 0.0} for entry in entries], 32)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(still(Image.fromarray(pixels)).mul(255).round().numpy(), pixels.transpose(2, 0, 1))
    moving = torchvision_transforms([{**entry, "prob": 1.0} for entry in entries], 32)
    image = moving(Image.fromarray(pixels))
    assert image.shape == (3, 32, 32) and not np.array_equal(image.mul(255).round().numpy(), pixels.transpose(2, 0, 1))


def test_a_step_of_the_classifier_moves_its_weights(monkeypatch):
    from benchmarks import reading

    made = []
    build = reading.ImageClassifier
    monkeypatch.setattr(
        reading, "ImageClassifier", lambda *args, **kwargs: made.append(build(*args, **kwargs)) or made[-1]
    )
    step = reading.training_step("test_resnet", 32, CPU, channels_last=True)
    before = [parameter.detach().clone() for parameter in made[0].parameters()]
    step(torch.rand(4, 3, 32, 32))
    assert all(parameter.grad is None for parameter in made[0].parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, made[0].parameters()))


def test_the_images_after_each_way_of_a_step_are_judged(setting, image_folder):
    from benchmarks.fine_tuning import SHIPPED, ladder
    from benchmarks.quality import features_of
    from benchmarks.tuning_quality import benchmark_tuning_quality

    folder = image_folder(dict.fromkeys(PROMPTS, 12), name="others")
    paths = sorted(folder.rglob("*.png"))
    images, nano = [(path, PROMPTS[path.parent.name]) for path in paths], FeatureEncoder("nano")
    real = {name: features_of([path for path in paths if path.parent.name == name], nano) for name in PROMPTS}
    table = benchmark_tuning_quality(setting, images[:2] + images[-2:], 2, 3, (0.28, 5.42), real)
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if "+-" in line]
    ways = [*ladder(setting.base, CPU, images, 32), *(f"train_diffusion.json{name}" for name in SHIPPED)]
    assert [row[0] for row in rows] == ["the base alone", *ways]
    adapters = {path.parent.name: path.read_bytes() for path in setting.folder.glob("*/" + ADAPTER_FILE)}
    assert adapters.pop("way_2") == adapters["way_3"]  # prompts are the same, encoded once or at every step
    assert len(set(adapters.values())) == len(adapters) == len(ways) - 1


def test_options_are_completed_from_what_is_shipped(monkeypatch, tmp_path):
    import benchmark

    steps = json.loads((CONFIGS / "train_diffusion.json").read_text())["max_steps"]
    assert benchmark.parse([]).adapter_steps == steps and benchmark.parse(["--adapter_steps", "7"]).adapter_steps == 7
    monkeypatch.setattr(benchmark, "adapter_path", lambda name: tmp_path / name)
    assert benchmark.parse([]).few_step_adapter is None
    (tmp_path / "nano_few_step").touch()
    parsed = benchmark.parse([])
    assert (parsed.few_step_adapter, parsed.few_step_scheduler) == ("nano_few_step", "ddim")
    assert parsed.classifier == ["regnetx_002"]
    random = benchmark.parse(["--shape", "sd21"])
    assert random.few_step_adapter is None and set(random.classifier) <= set(timm.list_models())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--images_per_class", "2"], "3 are the fewest that can be judged"),
        (["--checkpoints", "0", "5"], "each must be 1 step or more"),
        (["--few_step_adapter", "nowhere"], "there is no nowhere"),
        (["--device", "cuda"], "torch sees no GPU here"),
    ],
)
def test_options_that_cannot_be_are_refused(capsys, monkeypatch, arguments, words):
    import benchmark

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        benchmark.parse(arguments)
    assert words in capsys.readouterr().err


def test_the_whole_job_loads_the_works_pipelines_and_no_other():
    from benchmark import whole_job

    rates = {"works": 1.0, "diffusers called plainly": 2.0, "ours": 10.0}
    rows = whole_job(100.0, 60.0, rates, steps=50, images=100, loading=20.0).splitlines()[4:]
    assert rows == ["| works | 100 | 120 | 1.00x |", "| ours | 60 | 10 | 3.14x |"]
