"""What bfloat16 changes: rounding, and nothing else."""

import pytest
import torch

from monai_synth.networks import LatentDiffusion, LoRADenoiser
from monai_synth.networks.diffusion.cpu_attention import CPUAttention
from monai_synth.networks.lora_state import lora_layers


def processors(diffusion):
    return {type(processor) for processor in diffusion.denoiser.attn_processors.values()}


@pytest.fixture
def half(miniature):
    return LatentDiffusion(str(miniature()), dtype=torch.bfloat16)


def test_images_are_decoded_in_bfloat16_up_to_rounding(half):
    whole = LatentDiffusion(str(half.folder))
    latents = torch.randn(4, *half.latent_shape(32), generator=torch.Generator().manual_seed(0))
    calls = []
    half.autoencoder.decoder.conv_out.register_forward_hook(lambda *call: calls.append(call[-1].dtype))
    images, expected = half.decode(latents), whole.decode(latents)
    assert calls == [torch.bfloat16] and images.dtype == torch.float32
    assert 0 < (images - expected).square().mean().sqrt() < 1 / 255


def test_only_bfloat16_has_an_attention_of_its_own(half, miniature):
    assert processors(half) == {CPUAttention}
    assert CPUAttention not in processors(LatentDiffusion(str(miniature())))


def test_long_sequences_keep_the_fused_attention():
    called, attention = [], CPUAttention()
    attention.plain, attention.fused = (lambda *_, name=name: called.append(name) for name in ("plain", "fused"))
    for length in (256, 1024, 4096):
        attention(None, torch.zeros(1, length, 8))
    with torch.no_grad():
        attention(None, torch.zeros(1, 256, 8))
    assert called == ["plain", "plain", "fused", "fused"]


def test_the_plain_attention_of_a_training_is_the_fused_one(half):
    network = LoRADenoiser(half, rank=4)
    for parameter in network.trainable_parameters():  # a fresh adapter changes nothing, and has hardly a gradient
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    x, times = torch.randn(2, *half.latent_shape(32)), torch.tensor([10, 600])
    context = half.encode_prompts(["a neutrophil", "a monocyte"])

    def gradients():
        network.zero_grad()
        output = network(x, times, context)
        output.square().mean().backward()
        return output.detach(), torch.cat([p.grad.flatten() for p in network.trainable_parameters()])

    plain, found = gradients()
    with torch.no_grad():
        torch.testing.assert_close(network(x, times, context), plain, atol=0.03, rtol=0.03)
    half.denoiser.set_attn_processor(CPUAttention().fused)
    fused, expected = gradients()
    torch.testing.assert_close(fused, plain, atol=0.03, rtol=0.03)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=0) > 0.999
    assert found.norm() == pytest.approx(float(expected.norm()), rel=0.02)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_under_autocast_no_input_of_the_adapter_is_copied_to_float32_and_nothing_else_changes(half, checkpointing):
    network = LoRADenoiser(half, rank=4, train_text_encoder=True, gradient_checkpointing=checkpointing).train()
    for parameter in network.trainable_parameters():
        torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(0))
    x, times = torch.randn(2, *half.latent_shape(32)), torch.tensor([10, 600])
    layers, seen = [layer for part in half.adaptable.values() for _, layer in lora_layers(part)], set()
    for layer in layers:
        layer.lora_A["default"].register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].dtype))

    def gradients():
        network.zero_grad()
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16):
            network(x, times, half.token_ids(["a neutrophil", "a monocyte"])).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in network.trainable_parameters()])

    found = gradients()
    assert seen == {torch.bfloat16} and found.abs().max() > 0
    network(x, times, half.token_ids(["a neutrophil", "a monocyte"]))  # without autocast peft does copy
    assert torch.float32 in seen
    for layer in layers:
        layer._forward_pre_hooks.clear()  # peft's own way
        layer.cast_input_dtype_enabled = True
    assert torch.equal(gradients(), found) and torch.float32 in seen
