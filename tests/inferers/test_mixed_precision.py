"""A classifier that computes in half precision."""

import pytest
import torch
from torch import nn

from monai_synth.inferers import MixedPrecisionInferer


class Noting(nn.Linear):
    """A layer that notes the precision it computes in."""

    def forward(self, x):
        result = super().forward(x)
        self.seen = result.dtype
        return result


@pytest.mark.parametrize(("dtype", "inside"), [(None, torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_network_computes_in_half_precision_and_weights_and_results_do_not(dtype, inside):
    torch.manual_seed(0)
    network, images = Noting(8, 3), torch.randn(4, 8)
    logits = MixedPrecisionInferer(dtype)(images, network)
    assert network.seen is inside and logits.dtype is torch.float32
    torch.testing.assert_close(logits, network(images), atol=0.0 if dtype is None else 0.02, rtol=0)
    logits.sum().backward()
    expected = images.sum(dim=0).expand(3, 8)
    assert network.weight.grad.dtype is torch.float32
    torch.testing.assert_close(network.weight.grad, expected, atol=0.03, rtol=0.01)


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="precision is 'float16'. It can be 'bfloat16', or null"):
        MixedPrecisionInferer("float16")
