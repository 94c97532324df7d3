import torch
import torch.nn.functional as F

from monai_synth.losses import DenoisingLoss, WeightedCrossEntropy


def test_denoising_loss_by_hand():
    prediction = torch.tensor([[[[1.0, 1.0]]], [[[0.0, 0.0]]]])
    target = {"target": torch.tensor([[[[0.0, 1.0]]], [[[2.0, 2.0]]]]), "weight": torch.tensor([1.0, 0.25])}
    torch.testing.assert_close(DenoisingLoss()(prediction, target), torch.tensor((1.0 * 0.5 + 0.25 * 4.0) / 2))


def test_unit_weights_give_the_plain_cross_entropy():
    torch.manual_seed(0)
    logits, label = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    target = {"label": label, "weight": torch.ones(6)}
    torch.testing.assert_close(
        WeightedCrossEntropy(0.1)(logits, target), F.cross_entropy(logits, label, label_smoothing=0.1)
    )


def test_an_image_of_weight_zero_does_not_count():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3), torch.tensor([0, 1])
    loss = WeightedCrossEntropy()(logits, {"label": label, "weight": torch.tensor([2.0, 0.0])})
    torch.testing.assert_close(loss, F.cross_entropy(logits[:1], label[:1]))
