import pytest
import torch
from ignite.engine import Engine

from monai_synth.handlers import AdapterSaver
from monai_synth.networks import LatentDiffusion, LoRADenoiser, read_adapter_metadata
from monai_synth.utils import sha256_of


def test_the_adapter_is_written_with_its_steps_and_survives_a_failed_write(miniature, tmp_path, monkeypatch):
    network = LoRADenoiser(LatentDiffusion(str(miniature())), rank=2)
    engine = Engine(lambda engine, batch: None)
    AdapterSaver(network, tmp_path, {"rank": 2}).attach(engine)
    engine.run([0, 1, 2], max_epochs=2)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    assert read_adapter_metadata(tmp_path) == {"rank": 2, "steps": 6}
    before = sha256_of(path)
    for parameter in network.trainable_parameters():
        torch.nn.init.ones_(parameter)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        engine.run([0, 1, 2], max_epochs=3)
    assert sha256_of(path) == before and [item.name for item in tmp_path.iterdir()] == [path.name]
