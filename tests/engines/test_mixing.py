import pytest
import torch

from monai_synth.engines import MixingPrepareBatch
from monai_synth.engines.mixing import pasted
from monai_synth.losses import WeightedCrossEntropy


def batch():
    image = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 8, 8).clone()
    origin = ["real", "synthetic", "real", "synthetic", "synthetic", "real"]
    weight = torch.tensor([3.0, 1.0, 3.0, 1.0, 1.0, 3.0])
    return {"image": image, "label": torch.tensor([0, 1, 2, 0, 1, 2]), "weight": weight, "origin": origin}


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_each_kind_is_mixed_within_itself_and_shares_follow_the_pixels(method):
    torch.manual_seed(1)
    image, target = MixingPrepareBatch(method, num_classes=3, alpha=1.0)(batch(), "cpu")
    partners = {0: 5, 2: 0, 5: 2, 1: 4, 3: 1, 4: 3}
    labels = [0, 1, 2, 0, 1, 2]
    changed = 0
    for own, other in partners.items():
        share = (image[own].mean() - other) / (own - other)  # of the own image, by its pixels
        expected = torch.zeros(3)
        expected[labels[own]] += share
        expected[labels[other]] += 1 - share
        torch.testing.assert_close(target["label"][own], expected, atol=1e-5, rtol=0)
        assert target["weight"][own] == pytest.approx(3.0 if own in (0, 2, 5) else 1.0)
        changed += 0.01 < share < 0.99
    assert changed == 6


def test_across_keeps_each_parts_weight():
    torch.manual_seed(2)
    image, target = MixingPrepareBatch("mixup", num_classes=3, alpha=1.0, across=True)(batch(), "cpu")
    share = float((image[1].mean() - 0) / (1 - 0))  # image 1 (synthetic, weight 1) with image 0 (real, weight 3)
    assert target["weight"][1] == pytest.approx(share * 1 + (1 - share) * 3, abs=1e-4)
    assert target["label"][1, 1] == pytest.approx(share / float(target["weight"][1]), abs=1e-4)


def test_the_loss_of_shares_is_the_mean_of_the_losses():
    logits, weight = torch.randn(4, 3), torch.rand(4)
    loss, first, second = WeightedCrossEntropy(0.1), torch.tensor([0, 1, 2, 0]), torch.tensor([2, 2, 1, 1])
    soft = 0.3 * torch.nn.functional.one_hot(first, 3) + 0.7 * torch.nn.functional.one_hot(second, 3)
    expected = 0.3 * loss(logits, {"label": first, "weight": weight})
    expected = expected + 0.7 * loss(logits, {"label": second, "weight": weight})
    torch.testing.assert_close(loss(logits, {"label": soft, "weight": weight}), expected)


def test_a_rectangle_covers_what_is_said():
    for seed in range(20):
        torch.manual_seed(seed)
        mixed, share = pasted(torch.zeros(2, 3, 16, 24), torch.ones(2, 3, 16, 24), 0.6)
        assert float(1 - mixed.mean()) == pytest.approx(share, abs=1e-6)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="method is 'blend'. It can be 'mixup' or 'cutmix'"):
        MixingPrepareBatch("blend", 2)
    with pytest.raises(ValueError, match="alpha is 0; it must be above 0"):
        MixingPrepareBatch("mixup", 2, alpha=0)
