"""What is copied beside the computation is pinned first, and nothing else; no GPU is needed to see that."""

import pytest
import torch

from monai_synth.utils.tensors import moved


@pytest.mark.parametrize(
    ("device", "non_blocking", "pinned"),
    [("cuda", True, 1), (torch.device("cuda:1"), True, 1), ("cuda", False, 0), ("cpu", True, 0), (None, True, 0)],
)
def test_memory_is_pinned_for_a_copy_that_does_not_wait(monkeypatch, device, non_blocking, pinned):
    calls, targets = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append(self) or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, **options: targets.append(options) or self)
    moved(torch.zeros(2), device, non_blocking, dtype=torch.bfloat16)
    assert len(calls) == pinned
    assert targets == [{"device": device, "non_blocking": non_blocking, "dtype": torch.bfloat16}]
