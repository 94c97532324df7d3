import pytest
import timm
import torch
from safetensors.torch import save_file

from monai_synth.networks import ImageClassifier

NAME = "test_resnet.r160_in1k"


def test_images_in_0_1_are_normalized_inside():
    network = ImageClassifier(NAME, 3).eval()
    images = torch.rand(2, 3, 32, 32)
    normalized = (images - network.mean) / network.std
    torch.testing.assert_close(network(images), network.backbone(normalized))
    assert tuple(network.std.flatten()) != (1, 1, 1)


def test_it_scripts_and_traces_to_the_same_numbers():
    network, images = ImageClassifier(NAME, 3).eval(), torch.rand(2, 3, 64, 64)
    for export in (torch.jit.script(network), torch.jit.trace(network, images)):
        torch.testing.assert_close(export(images), network(images))


def test_a_checkpoint_gives_all_but_a_head_of_another_size(tmp_path):
    source = timm.create_model(NAME.split(".")[0], num_classes=5)
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    same = ImageClassifier(NAME, 5, checkpoint=str(tmp_path / "weights.safetensors"))
    other = ImageClassifier(NAME, 2, checkpoint=str(tmp_path / "weights.safetensors"))
    for key, value in source.state_dict().items():
        assert torch.equal(same.backbone.state_dict()[key], value)
        if not key.startswith("fc"):
            assert torch.equal(other.backbone.state_dict()[key], value)
    assert other.backbone.fc.weight.shape[0] == 2


def test_what_does_not_fit_is_refused(tmp_path):
    save_file({"stem": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    (tmp_path / "pickle.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="timm has no model 'resnet1'"):
        ImageClassifier("resnet1", 2)
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        ImageClassifier(NAME, 2, checkpoint=str(tmp_path / "gone.safetensors"))
    with pytest.raises(ValueError, match="Only safetensors are read"):
        ImageClassifier(NAME, 2, checkpoint=str(tmp_path / "pickle.pt"))
    with pytest.raises(ValueError, match="wrong.safetensors does not fit"):
        ImageClassifier(NAME, 2, checkpoint=str(tmp_path / "wrong.safetensors"))
