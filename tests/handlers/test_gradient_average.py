from types import SimpleNamespace

import pytest
import torch

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
