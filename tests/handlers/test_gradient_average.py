from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.engines import IterationEvents

from monai_synth.handlers import GradientAverage, gradient_average


def test_gradients_that_were_averaged_are_not_averaged_again(monkeypatch):
    """A step that runs out of memory after that is repeated by this process alone."""
    messages = []
    monkeypatch.setattr(gradient_average, "count", lambda: 2)
    monkeypatch.setattr(gradient_average, "average", lambda values: messages.append(values) or values / 2)
    weight = torch.nn.Parameter(torch.ones(3))
    engine = SimpleNamespace(accumulation_steps=1, state=SimpleNamespace(iteration=1, epoch_length=5))
    average = GradientAverage([weight])
    for step in (1, 2):
        engine.state.iteration, weight.grad = step, torch.ones(3)
        average(engine)
        assert weight.grad.tolist() == [0.5, 0.5, 0.5]
    with pytest.raises(
        RuntimeError, match="process 0 ran out after the gradients of step 2 had been averaged.*Run the"
    ):
        average(engine)
    assert len(messages) == 2
    monkeypatch.setattr(gradient_average, "from_first", lambda values: values)
    average.align(engine)  # a run that begins may come to the same step
    average(engine)


def test_frozen_weights_are_not_changed_by_weight_decay(monkeypatch):
    monkeypatch.setattr(gradient_average, "count", lambda: 2)
    monkeypatch.setattr(gradient_average, "average", lambda values: values)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 1))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, weight_decay=0.5)
    network(torch.ones(1, 2)).sum().backward()
    engine = SimpleNamespace(accumulation_steps=1, state=SimpleNamespace(iteration=1, epoch_length=5))
    GradientAverage(network.parameters())(engine)
    optimizer.step()
    same = [torch.equal(parameter, old) for parameter, old in zip(network.parameters(), before)]
    assert same == [True, True, False, False]


def test_running_statistics_are_averaged_before_the_validation(monkeypatch):
    monkeypatch.setattr(gradient_average, "count", lambda: 3)
    monkeypatch.setattr(gradient_average, "from_first", lambda values: values)
    others = 2 * torch.tensor([0.1, 6.0]).double()  # of a constant, and of a mean, in the two other processes
    monkeypatch.setattr(gradient_average, "average", lambda values: (values + others) / 3)
    constant, mean, batches = torch.tensor([0.1]), torch.tensor([3.0]), torch.tensor(7)
    seen = []
    engine = Engine(lambda engine, batch: None)
    engine.register_events(*IterationEvents)
    GradientAverage([], [constant, mean, batches]).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: seen.append(mean.item()))
    engine.run([0], max_epochs=1)
    assert seen == [5.0] and torch.equal(constant, torch.tensor([0.1])) and batches == 7


@pytest.mark.parametrize("name", ["colon", "lung", "wbc"])
def test_the_job_averages_before_it_validates_and_saves(name):
    path = Path(__file__).resolve().parents[2] / "bundles" / name / "configs" / "train.json"
    handlers = ConfigParser.load_config_file(path)["train"]["handlers"]
    names = [handler["_target_"].split(".")[-1] for handler in handlers]
    average = names.index("GradientAverage")
    assert handlers[average]["buffers"] == "$list(@network.buffers())"
    assert average < names.index("ValidationHandler") < names.index("TrainingState")
