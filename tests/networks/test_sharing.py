import gc
import shutil
import weakref

import pytest
import torch
from monai.engines import SupervisedEvaluator

from monai_synth.networks import (
    Denoiser,
    LoRADenoiser,
    load_adapter,
    release_diffusion,
    remove_adapter,
    save_adapter,
    shared_diffusion,
)
from monai_synth.utils import read_json, write_json


@pytest.fixture(autouse=True)
def _nothing_is_loaded():
    release_diffusion()
    yield
    release_diffusion()


def test_a_base_is_loaded_once_and_handed_out_without_an_adapter(miniature, tmp_path):
    first = shared_diffusion(str(miniature()))
    before = first.denoiser.state_dict()["conv_in.weight"].clone()
    keys = set(first.denoiser.state_dict())
    network = LoRADenoiser(first, rank=2)
    for parameter in network.trainable_parameters():
        torch.nn.init.normal_(parameter)
    save_adapter(network, tmp_path, {})
    second = shared_diffusion(str(miniature()))
    assert second is first and set(second.denoiser.state_dict()) == keys
    with pytest.raises(RuntimeError, match="has another adapter now"):
        network(torch.zeros(1, 4, 8, 8), torch.tensor([1]), first.encode_prompts(["x"]))
    load_adapter(second, tmp_path)
    third = shared_diffusion(str(miniature()))
    assert third is first and torch.equal(third.denoiser.state_dict()["conv_in.weight"], before)


def test_another_base_or_precision_takes_the_place_of_the_first(miniature):
    first = shared_diffusion(str(miniature()))
    other = shared_diffusion(str(miniature("epsilon", 5)))
    half = shared_diffusion(str(miniature("epsilon", 5)), amp="bfloat16")
    assert len({id(first), id(other), id(half)}) == 3
    assert half.denoiser.dtype == torch.bfloat16 and half.autoencoder.dtype == torch.float32
    assert shared_diffusion(str(miniature("epsilon", 5)), amp="bfloat16") is half
    with pytest.raises(ValueError, match="amp is 'half'. It can be null, 'bfloat16' or 'float16'"):
        shared_diffusion(str(miniature()), amp="half")


def test_a_released_base_is_gone_although_an_engine_that_drew_with_it_refers_to_itself(miniature):
    diffusion = shared_diffusion(str(miniature()))
    engine = SupervisedEvaluator(torch.device("cpu"), [], network=Denoiser(diffusion), epoch_length=1)
    base, drew = weakref.ref(diffusion), weakref.ref(engine)
    gc.disable()  # it could come by chance
    try:
        del diffusion, engine
        assert drew() is not None
        release_diffusion()
        assert drew() is None and base() is None
    finally:
        gc.enable()


def test_a_base_of_the_same_weights_that_predicts_something_else_is_another_one(miniature, tmp_path):
    shutil.copytree(miniature(), tmp_path / "base")
    path = tmp_path / "base" / "scheduler" / "scheduler_config.json"
    first = shared_diffusion(str(miniature()))
    assert shared_diffusion(str(tmp_path / "base")) is first
    write_json(path, {**read_json(path), "prediction_type": "v_prediction"})
    assert shared_diffusion(str(tmp_path / "base")).prediction_type == "v_prediction"


def test_removing_nothing_changes_nothing(miniature):
    diffusion = shared_diffusion(str(miniature()))
    number = diffusion.adapter_number
    remove_adapter(diffusion)
    assert diffusion.adapter_number == number


def test_drawing_is_compiled_once_for_all_adapters_and_training_is_not(miniature, tmp_path, monkeypatch):
    compiled, called = [], []

    def compile(module):
        compiled.append(module)
        return lambda *args, **kwargs: called.append(1) or module(*args, **kwargs)

    monkeypatch.setattr(torch, "compile", compile)
    diffusion = shared_diffusion(str(miniature()))
    inputs = (torch.ones(1, 4, 8, 8), torch.tensor([1]), diffusion.encode_prompts(["x"]))
    for seed in range(2):
        network = LoRADenoiser(shared_diffusion(str(miniature())), rank=2)
        for parameter in network.trainable_parameters():
            torch.nn.init.normal_(parameter)
        network(*inputs)
        assert len(called) == seed
        save_adapter(network, tmp_path / str(seed), {})
        load_adapter(shared_diffusion(str(miniature())), tmp_path / str(seed), compile=True)(*inputs)
    assert compiled == [diffusion.denoiser] and len(called) == 2  # nor the decoder, on a CPU


@pytest.mark.slow
def test_a_compiled_denoiser_predicts_the_same_with_one_adapter_after_another(miniature, tmp_path):
    diffusion = shared_diffusion(str(miniature()))
    inputs = (torch.randn(2, 4, 8, 8), torch.tensor([1, 500]), diffusion.encode_prompts(["x", "y"]))
    seen = []
    with torch.no_grad():
        for seed in range(2):
            network = LoRADenoiser(shared_diffusion(str(miniature())), rank=2)
            for parameter in network.trainable_parameters():
                torch.nn.init.normal_(parameter, std=0.1)
            save_adapter(network, tmp_path / str(seed), {})
            expected = load_adapter(shared_diffusion(str(miniature())), tmp_path / str(seed))(*inputs)
            seen.append(load_adapter(shared_diffusion(str(miniature())), tmp_path / str(seed), compile=True)(*inputs))
            torch.testing.assert_close(seen[-1], expected, atol=1e-4, rtol=1e-3)
    assert (seen[0] - seen[1]).abs().max() > 0.01


@pytest.mark.parametrize(("amp", "capable", "told"), [(None, True, 1), ("bfloat16", True, 0), (None, False, 0)])
def test_bfloat16_is_recommended_once_where_the_processor_has_it(miniature, monkeypatch, caplog, amp, capable, told):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": capable}, raising=False)
    with caplog.at_level("INFO"):
        for _ in range(2):
            shared_diffusion(str(miniature()), amp=amp)
    assert caplog.text.count("--amp bfloat16 fine-tunes and draws faster") == told
