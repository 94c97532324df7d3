"""What a GPU alone can show; skipped where torch sees none."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism

from monai_synth.engines import LatentDiffusionPrepareBatch, SamplingPrepareBatch
from monai_synth.inferers import InPartsInferer, SamplingInferer
from monai_synth.losses import DenoisingLoss
from monai_synth.networks import (
    Denoiser,
    LatentDiffusion,
    LoRADenoiser,
    load_adapter,
    read_adapter_metadata,
)
from monai_synth.utils import processes, read_json, release_folder
from tests.bundles import test_processes
from tests.bundles.running import CONFIGS, ROOT, SMALL, command, finished, known_settings, stopped_when
from tests.inferers.drawing import draw

DEVICE = torch.device("cuda", 0)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]


@pytest.fixture
def settings(miniature, image_folder, tmp_path):
    return {
        **SMALL,
        "dataset_dir": str(image_folder({"benign": 20, "malignant": 20})),
        "output_dir": str(tmp_path / "out"),
        "model_path": str(tmp_path / "models" / "model.pt"),
        "base_model": str(miniature()),
        "device": "cuda:0",
    }


def test_a_gpu_draws_the_images_of_the_cpu():
    set_determinism(0)  # as every run does
    options = {"image_size": 128, "num_inference_steps": 10}
    expected = draw(LatentDiffusion("nano"), [1, 2], **options)
    diffusion = LatentDiffusion("nano", device=DEVICE)
    images = draw(diffusion, [1, 2], **options)
    assert images.device == DEVICE and torch.equal(draw(diffusion, [1, 2], **options), images)
    assert (expected[0] - expected[1]).abs().mean() > 20 / 255
    torch.testing.assert_close(images.cpu(), expected, atol=2 / 255, rtol=0)
    half = draw(LatentDiffusion("nano", device=DEVICE, dtype=torch.bfloat16), [1, 2], **options).cpu()
    assert half.isfinite().all() and 0 < (half - expected).abs().mean() < 1 / 255


def memory_of(function):
    """What a function gives, the most bytes of the GPU that it held, and the most that were taken for it."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return function(), torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


@contextmanager
def limited_to(num_bytes):
    """Within the block the process gets no more memory of the GPU than that."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(num_bytes / torch.cuda.get_device_properties(DEVICE).total_memory)
    try:
        yield
        assert torch.cuda.max_memory_reserved() <= num_bytes
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_drawing_that_runs_out_of_memory_goes_on_in_halves(caplog):
    diffusion, seeds = LatentDiffusion("nano", device=DEVICE), list(range(64))
    draw(diffusion, [0], 128)  # what the libraries keep for themselves is there from now on
    expected, needed, _ = memory_of(lambda: draw(diffusion, seeds, 128))
    _, _, enough = memory_of(lambda: draw(diffusion, seeds[:16], 128))
    assert enough < needed
    inferer = SamplingInferer(diffusion, num_inference_steps=4)
    torch.cuda.reset_peak_memory_stats()
    with limited_to((enough + needed) // 2):
        images = draw(diffusion, seeds, 128, inferer)
        assert inferer.most_at_once in (16, 32) and f"now {inferer.most_at_once} at once" in caplog.text
    torch.testing.assert_close(images, expected, atol=2 / 255, rtol=0)


def gradients(network, batch, inferer):
    """The gradients of one step of a trainer whose optimizer changes nothing."""
    trainer = SupervisedTrainer(
        device=DEVICE,
        max_epochs=1,
        train_data_loader=[batch],
        network=network,
        optimizer=torch.optim.SGD(network.trainable_parameters(), lr=0.0),
        loss_function=DenoisingLoss(),
        prepare_batch=LatentDiffusionPrepareBatch(network.diffusion),
        inferer=inferer,
        iteration_update=inferer.iteration,
        decollate=False,
    )
    torch.manual_seed(0)
    trainer.run()
    return torch.cat([parameter.grad.flatten() for parameter in network.trainable_parameters()])


def test_a_training_that_runs_out_of_memory_keeps_the_gradients_of_the_whole_batch(caplog):
    diffusion = LatentDiffusion("nano", device=DEVICE)
    network = LoRADenoiser(diffusion, rank=4)
    for parameter in network.trainable_parameters():  # a fresh adapter has gradients in its second half alone
        torch.nn.init.normal_(parameter, std=0.05)
    context = {name: value.cpu() for name, value in diffusion.encode_prompts(["a cell"] * 64).items()}
    batch = {"image": torch.randn(64, *diffusion.latent_shape(128)), "prompt": context}
    gradients(network, batch, InPartsInferer())
    network.zero_grad()
    expected, needed, _ = memory_of(lambda: gradients(network, batch, InPartsInferer()))
    network.zero_grad()
    quarters, inferer = InPartsInferer(), InPartsInferer()
    quarters.parts = 4
    _, _, enough = memory_of(lambda: gradients(network, batch, quarters))
    assert enough < needed
    network.zero_grad()
    torch.cuda.reset_peak_memory_stats()
    with limited_to((enough + needed) // 2):
        found = gradients(network, batch, inferer)
        assert inferer.parts in (2, 4) and f"in {inferer.parts} parts" in caplog.text
    assert (found - expected).norm() < 0.01 * expected.norm()


def test_a_fine_tuning_in_bfloat16_stops_goes_on_and_leaves_an_adapter(settings):
    settings |= {"amp": "bfloat16", "max_steps": 200}
    adapter = Path(settings["output_dir"]) / "adapter"
    words = command("train_diffusion", settings, settings["output_dir"])
    code, output = stopped_when(words, (adapter / "state_1.json").is_file, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM and "run the same command to go on" in output, output
    reached = max(read_json(path)["iteration"] for path in adapter.glob("state_?.json"))
    assert 25 <= reached < 200 and not read_json(adapter / "run.json")["complete"]
    finished(words)
    record = read_json(adapter / "run.json")
    assert record["complete"] and record["peak_memory_mb"]["gpu"] > 1
    assert record["machine"]["device"] == torch.cuda.get_device_name()
    assert read_adapter_metadata(adapter)["steps"] == 200
    base, tuned = (LatentDiffusion(settings["base_model"], device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    load_adapter(tuned, adapter)
    images = draw(tuned, [1, 2])
    assert images.isfinite().all() and not torch.equal(images, draw(base, [1, 2]))


def drawn_by_torchrun(settings, folder, count):
    """The images that some processes of torchrun draw on the GPUs, each choosing its own."""
    given = {key: value for key, value in settings.items() if key != "device"}
    code, text = test_processes.run("generate", {**given, "output_dir": str(folder)}, count)
    assert code == 0, text
    assert read_json(folder / "synthetic" / "run.json")["machine"]["device"] == torch.cuda.get_device_name()
    return test_processes.pixels(folder / "synthetic")


@pytest.mark.parametrize("count", [1, 2])
def test_processes_of_torchrun_draw_what_one_draws_without_it(settings, tmp_path, count):
    if torch.cuda.device_count() < count:
        pytest.skip(f"{count} processes need {count} GPUs")
    settings |= {"adapter_scope": "none"}
    finished(command("generate", settings, tmp_path / "plain"))
    expected = test_processes.pixels(tmp_path / "plain" / "synthetic")
    drawn = drawn_by_torchrun(settings, tmp_path / "torchrun", count)
    assert drawn.keys() == expected.keys() and len(drawn) == 6
    assert all(np.abs(drawn[name] - image).max() <= 2 for name, image in expected.items())  # of 255


def _over_nccl(process, port):
    torch.cuda.set_device(DEVICE)
    torch.distributed.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    processes.count = lambda: 2  # one process alone would say nothing
    values = torch.arange(4.0, device=DEVICE)
    assert processes.from_first(values.clone()).tolist() == [0, 1, 2, 3]
    assert processes.average(values.clone()).tolist() == [0, 0.5, 1, 1.5]  # of two, of which the other says nothing
    assert processes.agreed({"stage": 3}) == {"stage": 3} and processes.first_only(lambda: "first") == "first"
    assert not processes.any_of(False)
    processes.wait_for_all()
    processes.leave()


def test_what_processes_say_to_each_other_goes_over_nccl():
    torch.multiprocessing.spawn(_over_nccl, (29900 + os.getpid() % 90,), nprocs=1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("epsilon", {}),
        ("epsilon", {"cache_interval": 2}),
        ("epsilon", {"scheduler": "ddim", "guidance_scale": 1.0}),
        ("flow", {}),
    ],
    ids=["default", "cached", "ddim", "flow"],
)
def test_no_step_of_a_drawing_waits_for_the_gpu(miniature, kind, options):
    diffusion = LatentDiffusion(str(miniature(kind)), device=DEVICE)
    noise, _, _, features = SamplingPrepareBatch(diffusion, 32)({"seed": [1, 2], "prompt": ["a", "b"]}, DEVICE)
    steps: list[str] = []

    class Watched(SamplingInferer):
        def predict(self, *args):
            steps.append(torch.cuda.get_sync_debug_mode())
            torch.cuda.set_sync_debug_mode("error" if 2 <= len(steps) < 10 else "default")
            return super().predict(*args)

    try:
        images = Watched(diffusion, 10, **options)(noise, Denoiser(diffusion), **features)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert images.isfinite().all() and steps == [0, 0] + [2] * 8


@pytest.mark.parametrize(
    ("config", "kind", "more"),
    [
        ("train_diffusion", "epsilon", {"max_steps": 50}),
        ("train_diffusion", "epsilon", {"max_steps": 50, "amp": "bfloat16"}),
        ("train_diffusion", "xl", {"max_steps": 50}),
        ("train_diffusion", "flow", {"max_steps": 50}),
        ("train", "epsilon", {"classifier_steps": 50, "mixing": "none", "baseline": ""}),
        ("train+mixup", "epsilon", {"classifier_steps": 50, "mixing": "none", "baseline": ""}),
    ],
    ids=["fine-tuning", "bfloat16", "xl", "flow", "classifier", "mixup"],
)
def test_no_step_of_a_training_waits_for_the_gpu(settings, miniature, config, kind, more):
    config, *overlays = config.split("+")
    given = known_settings({**settings, "base_model": str(miniature(kind)), **more}, config)
    files = [CONFIGS / f"{config}.json", *(ROOT / "configs" / "augmentation" / f"{name}.yaml" for name in overlays)]
    training = ConfigWorkflow(list(map(str, files)), workflow_type="train", **given)
    watched = []

    def watch(engine):
        if engine.state.iteration == 27:  # of the second epoch, steps 26 to 50
            torch.cuda.set_sync_debug_mode("error")
            with pytest.raises(RuntimeError, match="synchronizing"):
                torch.ones(1, device=DEVICE).item()

    def end(engine):
        watched.append(torch.cuda.get_sync_debug_mode())
        if engine.state.iteration == 49:
            torch.cuda.set_sync_debug_mode("default")

    try:
        training.initialize()
        trainer = training.parser.get_parsed_content("train::trainer")
        trainer.add_event_handler(Events.ITERATION_STARTED, watch)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, end)
        trainer.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
        release_folder(settings["output_dir"])
    assert [step for step, mode in enumerate(watched, 1) if mode == 2] == list(range(27, 50))
