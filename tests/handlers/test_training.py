"""Handlers around a training, on a network of a few numbers."""

import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import IterationEvents, SupervisedTrainer
from monai.transforms import Compose, RandGaussianNoised
from torch import nn

from monai_synth.handlers import (
    EpochSeed,
    GradientClipping,
    Progress,
    StepSchedule,
    StopOnNonFiniteLoss,
    TrainingState,
    non_finite_loss,
    training_state,
)
from monai_synth.utils import read_json
from monai_synth.utils.stopping import stop_request


class SquaredError(nn.Module):
    """With noise of the process's generator, as the noise of a diffusion is drawn."""

    def forward(self, prediction, target):
        prediction = prediction + 0.1 * torch.randn_like(prediction)
        return (prediction - target).square().mean()


@pytest.fixture(autouse=True)
def listening():
    before = signal.getsignal(signal.SIGTERM)
    yield
    stop_request.listen()  # forgets what was asked
    signal.signal(signal.SIGTERM, before)


def kept_losses(trainer):
    losses = []
    trainer.add_event_handler(
        IterationEvents.LOSS_COMPLETED, lambda engine: losses.append(engine.state.output["loss"].item())
    )
    return losses


def make_trainer(folder=None, epochs=4, learning_rate=0.1, extra=(), accumulation=1, scale=1.0, workers=0):
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    records = [{"image": torch.randn(2) * scale, "label": torch.randn(1)} for _ in range(8)]
    data = Dataset(records, Compose([RandGaussianNoised("image", prob=1.0)]))
    sampler = torch.utils.data.RandomSampler(data, replacement=True, num_samples=6)
    handlers = [EpochSeed(7), *extra]
    if folder is not None:
        handlers.append(TrainingState(folder, network, optimizer, scheduler))
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        epoch_length=3,
        train_data_loader=DataLoader(data, batch_size=2, sampler=sampler, num_workers=workers),
        network=network,
        optimizer=optimizer,
        loss_function=SquaredError(),
        train_handlers=handlers,
        accumulation_steps=accumulation,
        decollate=False,
    )
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: scheduler.step())
    return trainer, network, optimizer


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    whole, expected, whole_optimizer = make_trainer(tmp_path / "whole", epochs=6)
    whole.run()
    make_trainer(tmp_path / "parts", epochs=2)[0].run()
    resumed, network, optimizer = make_trainer(tmp_path / "parts", epochs=6)
    resumed.run()
    for key, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[key], value)
    assert optimizer.param_groups[0]["lr"] == whole_optimizer.param_groups[0]["lr"]
    assert resumed.state.iteration == whole.state.iteration == 18


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("step", [1, 5, 6, 10])  # of 12, three in an epoch
def test_a_training_asked_to_stop_saves_the_step_and_ends_with_the_same_bits(tmp_path, caplog, step, workers):
    whole, expected, _ = make_trainer(tmp_path / "whole", workers=workers)
    losses = kept_losses(whole)
    whole.run()
    stopped, _, _ = make_trainer(tmp_path / "parts", workers=workers)
    first = kept_losses(stopped)
    stopped.add_event_handler(Events.ITERATION_STARTED(once=step), lambda engine: signal.raise_signal(signal.SIGTERM))
    stop_request.listen()
    with pytest.raises(SystemExit) as left:
        stopped.run()
    assert left.value.code == 128 + signal.SIGTERM and len(first) == step
    resumed, network, _ = make_trainer(tmp_path / "parts", workers=workers)
    rest = kept_losses(resumed)
    torch.manual_seed(99)  # another process begins with other random numbers
    with caplog.at_level(logging.INFO):
        resumed.run()
    assert f"Going on after epoch {step // 3}{f' and {step % 3} steps' if step % 3 else ''}, from" in caplog.text
    assert first + rest == losses
    assert torch.equal(network.weight, expected.weight)


def test_a_step_that_gathers_gradients_is_not_saved(tmp_path):
    trainer, _, _ = make_trainer(tmp_path, accumulation=2)
    trainer.add_event_handler(Events.ITERATION_STARTED(once=4), lambda engine: signal.raise_signal(signal.SIGTERM))
    stop_request.listen()
    with pytest.raises(SystemExit):
        trainer.run()
    assert read_json(tmp_path / "state_0.json")["iteration"] == 5  # where the optimizer steps
    assert read_json(tmp_path / "state_1.json")["iteration"] == 3


def test_a_request_that_comes_twice_is_one_and_a_second_does_not_wait(tmp_path, monkeypatch):
    trainer, _, _ = make_trainer(tmp_path)

    def ask_twice(engine):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # from the group
        assert stop_request.wanted
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 6)
        signal.raise_signal(signal.SIGTERM)

    trainer.add_event_handler(Events.ITERATION_STARTED(once=2), ask_twice)
    stop_request.listen()
    with pytest.raises(SystemExit):
        trainer.run()
    assert not stop_request.wanted and not list(tmp_path.iterdir())


def test_a_request_that_comes_while_all_is_being_written_is_granted_then(tmp_path):
    stop_request.listen()
    stop_request.hold()
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        stop_request.release()
    stop_request.release()


def test_a_request_between_epochs_is_granted_at_once(tmp_path):
    trainer, _, _ = make_trainer(tmp_path)
    stop_request.listen()
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit):
        trainer.run()
    assert read_json(tmp_path / "state_1.json")["iteration"] == 3


def test_a_finished_training_is_not_trained_again(tmp_path):
    first, network, _ = make_trainer(tmp_path)
    first.run()
    again, other, _ = make_trainer(tmp_path)
    again.run()
    assert torch.equal(network.weight, other.weight) and again.state.iteration == 12


def test_a_damaged_state_is_recognized_and_the_one_before_is_used(tmp_path, caplog):
    make_trainer(tmp_path, epochs=3)[0].run()
    newest = tmp_path / "state_1.safetensors"  # epoch 3
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(bytes(content))
    whole, expected, _ = make_trainer(epochs=4)
    whole.run()
    with caplog.at_level(logging.INFO):
        resumed, network, _ = make_trainer(tmp_path, epochs=4)
        resumed.run()
    assert (
        "state_1.safetensors, or what is noted of it, is damaged" in caplog.text
        and "Going on after epoch 2" in caplog.text
    )
    assert torch.equal(network.weight, expected.weight)


@pytest.mark.parametrize("name", ["state_1.json", "state_1.safetensors"])
def test_a_truncated_file_of_a_state_is_recognized(tmp_path, caplog, name):
    make_trainer(tmp_path, epochs=3)[0].run()
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    with caplog.at_level(logging.INFO):
        resumed = make_trainer(tmp_path, epochs=4)[0]
        resumed.run()
    assert "state_1.safetensors, or what is noted of it, is damaged" in caplog.text
    assert "Going on after epoch 2" in caplog.text and resumed.state.iteration == 12


def test_processes_that_find_different_states_do_not_go_on(tmp_path, monkeypatch):
    make_trainer(tmp_path, epochs=3)[0].run()
    for own, other in ((9, 9), (9, 6)):
        monkeypatch.setattr(training_state, "gathered", lambda value: [value, other])
        trainer = make_trainer(tmp_path, epochs=4)[0]
        if own == other:
            trainer.run()
            assert trainer.state.iteration == 12
            (tmp_path / "state_0.json").unlink()  # epoch 4
        else:
            with pytest.raises(RuntimeError, match=r"found different states in .*, after \[9, 6\] steps.*Run the same"):
                trainer.run()


def test_without_a_sound_state_a_training_begins_anew_and_says_so(tmp_path, caplog):
    make_trainer(tmp_path, epochs=3)[0].run()
    for path in tmp_path.glob("state_?.safetensors"):
        path.write_bytes(b"")
    whole, expected, _ = make_trainer(epochs=4)
    whole.run()
    resumed, network, _ = make_trainer(tmp_path, epochs=4)
    resumed.run()
    assert "No sound state is left" in caplog.text and torch.equal(network.weight, expected.weight)


def test_a_full_disk_leaves_the_last_good_state(tmp_path, monkeypatch):
    make_trainer(tmp_path, epochs=2)[0].run()
    whole, expected, _ = make_trainer(epochs=4)
    whole.run()

    def full(self, content):
        with open(self, "wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(Path, "write_bytes", full)
        make_trainer(tmp_path, epochs=4)[0].run()
    resumed, network, _ = make_trainer(tmp_path, epochs=4)
    resumed.run()
    assert torch.equal(network.weight, expected.weight) and not list(tmp_path.glob(".*"))


def test_random_numbers_follow_from_seed_and_epoch():
    seen = {}
    for epochs in (1, 3):
        trainer, _, _ = make_trainer(epochs=epochs)
        seen[epochs] = kept_losses(trainer)
        trainer.run()
    assert seen[1] == seen[3][:3]
    assert len(set(seen[3])) == 9


def test_the_gradient_is_limited_only_when_the_optimizer_steps():
    norms = []

    class Watch:
        def attach(self, engine):
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

        def __call__(self, engine):
            norms.append(torch.cat([p.grad.flatten() for p in engine.network.parameters()]).norm().item())

    trainer, network, _ = make_trainer(epochs=1, accumulation=2, scale=100.0, learning_rate=1e-6)
    GradientClipping(network.parameters(), 0.5).attach(trainer)
    Watch().attach(trainer)
    trainer.run()
    assert norms[0] > 0.5  # gathering
    assert norms[1] == pytest.approx(0.5, rel=1e-4)  # steps
    assert norms[2] == pytest.approx(0.5, rel=1e-4)  # the last iteration steps as well


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_the_schedule_follows_the_steps_of_the_optimizer(accumulation, recwarn):
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    rates = []
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=2,
        epoch_length=2 * accumulation,
        train_data_loader=DataLoader([{"image": torch.randn(2), "label": torch.randn(1)}] * 20, batch_size=1),
        network=network,
        optimizer=optimizer,
        loss_function=SquaredError(),
        train_handlers=[StepSchedule(schedule)],
        accumulation_steps=accumulation,
        decollate=False,
    )
    optimizer.register_step_post_hook(lambda *args: rates.append(optimizer.param_groups[0]["lr"]))
    trainer.run()
    assert rates == [1.0, 0.5, 0.25, 0.125]
    assert not [warning for warning in recwarn if "lr_scheduler.step" in str(warning.message)]


def test_a_gradient_that_is_no_number_stops_before_the_weights_change(tmp_path):
    class RootOfZero(SquaredError):  # its value is finite, its slope is not
        def forward(self, prediction, target):
            return super().forward(prediction, target) + (prediction.sum() * 0).sqrt()

    trainer, network, _ = make_trainer(epochs=1)
    GradientClipping(network.parameters()).attach(trainer)
    trainer.loss_function = RootOfZero()
    before = network.weight.clone()
    with pytest.raises(RuntimeError, match="norm of the gradient is nan at step 1.*last good state is on the disk"):
        trainer.run()
    assert torch.equal(network.weight, before)


def test_a_loss_that_is_no_number_stops_before_the_weights_change(tmp_path):
    trainer, network, _ = make_trainer(tmp_path, epochs=2, extra=[StopOnNonFiniteLoss("Lower --rate.")])
    trainer.run()
    kept = network.weight.clone()
    broken, network, _ = make_trainer(
        tmp_path, epochs=4, extra=[StopOnNonFiniteLoss("Lower --rate.")], scale=float("nan")
    )
    with pytest.raises(RuntimeError, match="The loss is nan at step 7. .*last good state.* Lower --rate."):
        broken.run()
    assert torch.equal(network.weight, kept)


@pytest.mark.parametrize("step, epochs", [(4, 1), (6, 1), (7, 2)])
def test_what_would_be_waited_for_is_looked_at_before_the_next_state(tmp_path, monkeypatch, step, epochs):
    """As on a GPU: the weights are spoiled by then, and the states are not."""
    monkeypatch.setattr(non_finite_loss, "is_waited_for", lambda tensor: True)
    trainer, network, _ = make_trainer(tmp_path, extra=[StopOnNonFiniteLoss("Lower --rate.")])

    def spoil(engine):
        engine.state.batch["image"] *= float("nan")

    trainer.add_event_handler(Events.ITERATION_STARTED(once=step), spoil)
    with pytest.raises(RuntimeError, match=f"loss was not finite at a step up to {3 * epochs + 3}.* Lower --rate."):
        trainer.run()
    assert not network.weight.isfinite().all()
    resumed, network, _ = make_trainer(tmp_path)
    resumed.run()
    whole, expected, _ = make_trainer()
    whole.run()
    assert torch.equal(network.weight, expected.weight)


def test_what_would_be_waited_for_is_looked_at_before_a_training_stops_within_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(non_finite_loss, "is_waited_for", lambda tensor: True)
    trainer, _, _ = make_trainer(tmp_path, extra=[StopOnNonFiniteLoss()], scale=float("nan"))
    trainer.add_event_handler(Events.ITERATION_STARTED(once=2), lambda engine: signal.raise_signal(signal.SIGTERM))
    stop_request.listen()
    with pytest.raises(RuntimeError, match="loss was not finite at a step up to 2"):
        trainer.run()
    assert not list(tmp_path.iterdir())


def test_a_request_is_granted_in_time_whatever_is_at_work(tmp_path):
    code = """
import signal, time
from monai_synth.utils import stopping
stopping.PATIENCE = 0.3
stopping.stop_request.listen()
stopping.stop_request.hold()
signal.raise_signal(signal.SIGTERM)
time.sleep(60)
"""
    result = subprocess.run([sys.executable, "-c", code], timeout=50, capture_output=True, text=True)
    assert result.returncode == 143 and "takes too long to be saved" in result.stderr


def test_the_bar_counts_all_steps_and_begins_where_the_run_does(tmp_path, capsys):
    make_trainer(tmp_path, epochs=2)[0].run()
    trainer, _, _ = make_trainer(tmp_path, epochs=4)
    bar = Progress("training")
    bar.attach(trainer)
    seen = []
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: seen.append((bar.bar.n, bar.bar.total)))
    trainer.run()
    assert seen[0] == (7, 12) and seen[-1] == (12, 12)
    assert "training" in capsys.readouterr().err
