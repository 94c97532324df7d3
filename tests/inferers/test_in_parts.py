import gc
import weakref

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn

from monai_synth.handlers import GradientClipping
from monai_synth.inferers import InPartsInferer


class Small(nn.Module):
    """A network for which a batch of more than `most` is too large, when it is run or when gradients are computed."""

    def __init__(self, most, backward=False):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        self.most, self.backward, self.largest = most, backward, 0

    def check(self, size):
        if size > self.most:
            raise torch.OutOfMemoryError(f"{size} do not fit")
        self.largest = max(self.largest, size)

    def forward(self, x, scale, context):
        found = self.layers(x) * scale + context["shift"]
        if self.backward and found.requires_grad:
            found.register_hook(lambda gradient: self.check(len(gradient)))
        elif not self.backward:
            self.check(len(x))
        return found


def prepare(batch, device=None, non_blocking=False, **kwargs):
    noise = torch.rand(len(batch["image"]), 1)  # drawn anew in every try, and the same
    return batch["image"], batch["label"], (), {"scale": noise, "context": {"shift": noise}}


def trained(network, steps=1, inferer=None, optimizer=None, handlers=(), scaler=None):
    torch.manual_seed(1)
    batches = [{"image": torch.rand(6, 4), "label": torch.rand(6, 1)} for _ in range(4)]
    inferer = inferer or InPartsInferer()
    optimizer = optimizer or torch.optim.SGD(network.parameters(), lr=0.5)
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=batches,
        network=network,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        prepare_batch=prepare,
        inferer=inferer,
        iteration_update=inferer.iteration,
        accumulation_steps=steps,
        train_handlers=list(handlers),
        decollate=False,
    )
    trainer.amp = scaler is not None
    if scaler is not None:  # in place of MONAI's, which knows GPUs alone
        trainer.add_event_handler(Events.STARTED, lambda engine: setattr(engine, "scaler", scaler))
    torch.manual_seed(2)
    trainer.run()
    return inferer, torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_batch_that_does_not_fit_is_learned_in_parts_alike(backward, steps, caplog):
    _, whole = trained(Small(6), steps)
    inferer, parts = trained(Small(2, backward), steps)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=1e-5)
    assert inferer.parts == 4 and "in 4 parts" in caplog.text
    assert len([record for record in caplog.records if "parts" in record.message]) == 2  # and never again


def test_a_graph_that_does_not_fit_is_given_up():
    def graph(inputs, network, **kwargs):
        raise torch.OutOfMemoryError("the graph does not fit")

    inferer = InPartsInferer(cuda_graph=True)
    inferer.graph = graph
    _, expected = trained(Small(6))
    _, found = trained(Small(6), inferer=inferer)
    assert inferer.graph is None and inferer.parts == 2
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


class Circle:
    """As torch's graph, part of a circle of references, and without room for its first batch."""

    def __init__(self):
        self.own = self

    def __call__(self, inputs, network, **kwargs):
        raise torch.OutOfMemoryError("the graph does not fit")


def test_the_memory_of_a_graph_is_free_before_the_next_try(monkeypatch):
    inferer = InPartsInferer(cuda_graph=True)
    inferer.graph = Circle()
    graph, alive = weakref.ref(inferer.graph), []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(graph() is not None))
    gc.disable()
    try:
        trained(Small(6), inferer=inferer)
    finally:
        gc.enable()
    assert alive == [False]


class FullAdamW(torch.optim.AdamW):
    """Runs out of memory in its first step, with the state of the first parameter begun."""

    tries = 0

    def step(self, closure=None):
        self.tries += 1
        if self.tries == 1:
            self.state[self.param_groups[0]["params"][0]]["step"] = torch.tensor(0.0)
            raise torch.OutOfMemoryError("the state does not fit")
        return super().step(closure)


def test_a_state_of_the_optimizer_that_was_begun_is_begun_anew():
    whole, parts = Small(6), Small(6)
    _, expected = trained(whole, optimizer=torch.optim.AdamW(whole.parameters()))
    inferer, found = trained(parts, optimizer=FullAdamW(parts.parameters()))
    assert inferer.parts == 2
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clipped", [False, True])
def test_gradients_that_were_unscaled_before_the_memory_ran_out_are_unscaled_anew(fused, clipped):
    """As under amp float16: the scaler knows the gradients of one step as unscaled once."""
    found = []
    for kind in (torch.optim.AdamW, FullAdamW):
        network, scaler = Small(6), torch.amp.GradScaler("cpu", init_scale=2.0**10)
        handlers = [GradientClipping(network.parameters(), 0.1)] if clipped else []
        optimizer = kind(network.parameters(), eps=1e-2, fused=fused)  # which a gradient of another scale moves further
        found.append(trained(network, optimizer=optimizer, handlers=handlers, scaler=scaler)[1])
        assert scaler.get_scale() == 2.0**10
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-5)


def test_a_step_that_has_begun_to_change_the_weights_is_not_repeated():
    class Torn(torch.optim.SGD):
        def step(self, closure=None):
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1)
            raise torch.OutOfMemoryError("half a step")

    network = Small(6)
    with pytest.raises(RuntimeError, match="ran out within the optimizer's step.*cannot be repeated.*Run the same"):
        trained(network, optimizer=Torn(network.parameters(), lr=0.5))


def test_a_graph_is_left_out_on_a_cpu_unless_it_is_asked_for():
    x, options = torch.rand(2, 4), {"scale": torch.ones(2, 1), "context": {"shift": torch.zeros(2, 1)}}
    network, inferer = Small(2), InPartsInferer(cuda_graph=None)
    assert torch.equal(inferer(x, network, **options), network(x, **options))
    with pytest.raises(ValueError, match="cuda_graph is true, but the training does not run on a GPU"):
        InPartsInferer(cuda_graph=True)(x, network, **options)


def test_one_image_that_does_not_fit_is_an_error():
    with pytest.raises(torch.OutOfMemoryError, match="1 do not fit"):
        trained(Small(0))
