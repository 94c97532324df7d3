"""Graphs as torch records them, played by a CPU; what a GPU makes of them is in `test_cuda_graph_gpu.py`."""

import pytest
import torch
from torch import nn

from monai_synth.inferers import CUDAGraph


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 1)
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x, scale, context):
        return self.second(self.first(x).tanh()) * scale + context["shift"] * self.frozen


def record(module, values, allow_unused_input):
    """As torch's graphs, results and gradients lie in memory that every run overwrites."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    result, kept = torch.empty_like(module(*values)), [torch.empty_like(parameter) for parameter in parameters]

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values, *parameters):
            with torch.enable_grad():
                ctx.made = module(*values)
            return result.copy_(ctx.made.detach()).detach()

        @staticmethod
        def backward(ctx, gradient):
            for memory, found in zip(kept, torch.autograd.grad(ctx.made, parameters, gradient)):
                memory.copy_(found)
            return None, *(memory.detach() for memory in kept)

    return lambda *values: Replay.apply(values, *parameters)


def batches(sizes):
    torch.manual_seed(1)
    return [(torch.rand(n, 4), {"scale": torch.rand(n, 1), "context": {"shift": torch.rand(n, 1)}}) for n in sizes]


@pytest.mark.parametrize("set_to_none", [False, True])
@pytest.mark.parametrize("every", [1, 2])
def test_gradients_are_those_without_a_graph(every, set_to_none, monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda *a, **k: made.append(record(*a, **k)) or made[-1])

    def learned(run):
        network = Small()
        optimizer = torch.optim.SGD([parameter for parameter in network.parameters() if parameter.requires_grad], 0.5)
        for number, (x, options) in enumerate(batches([3, 3, 2, 3, 3, 3]), 1):
            run(x, network, **options).square().mean().backward()
            if number % every == 0:
                optimizer.step()
                optimizer.zero_grad(set_to_none=set_to_none)
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])

    expected = learned(lambda x, network, **options: network(x, **options))
    assert not made
    torch.testing.assert_close(learned(CUDAGraph()), expected)
    assert len(made) == 1 and not torch.equal(expected, torch.cat([p.detach().flatten() for p in Small().parameters()]))
