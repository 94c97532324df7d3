"""Handlers around a training, on a network of a few numbers."""

import signal

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import IterationEvents, SupervisedTrainer
from torch import nn

from monai_synth.handlers import (
    GradientClipping,
    Progress,
    StepSchedule,
    StopOnNonFiniteLoss,
    non_finite_loss,
)
from monai_synth.utils.stopping import stop_request
from tests.handlers.training import SquaredError, kept_losses, make_trainer


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
