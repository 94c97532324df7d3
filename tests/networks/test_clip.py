import copy

import open_clip
import pytest
import torch
from torch import nn

from monai_synth.networks import CLIPLoRAClassifier, zero_shot_clip
from monai_synth.networks.attention import SplitAttention, join_attention, split_attention

PROMPTS = ["a benign cell", "a malignant cell", "a drawing"]


def test_split_attention_computes_what_torch_computes_and_joins_again():
    torch.manual_seed(0)
    attention = nn.Sequential(nn.MultiheadAttention(16, 4, batch_first=True))
    nn.init.normal_(attention[0].in_proj_bias)
    split = copy.deepcopy(attention)
    assert split_attention(split) == 1
    x, mask = torch.randn(2, 5, 16), torch.full((5, 5), float("-inf")).triu(1)
    for given in (None, mask):
        expected = attention[0](x, x, x, need_weights=False, attn_mask=given)[0]
        torch.testing.assert_close(split[0](x, x, x, need_weights=False, attn_mask=given)[0], expected)
    joined = join_attention(split)[0]
    assert all(torch.equal(value, joined.state_dict()[key]) for key, value in attention[0].state_dict().items())
    for odd in (nn.MultiheadAttention(16, 4), nn.MultiheadAttention(16, 4, kdim=8, batch_first=True)):
        with pytest.raises(ValueError, match="Only attention with one size"):
            SplitAttention(odd)


def test_zero_shot_is_open_clips_own_answer(tiny_clip):
    name, folder = tiny_clip
    network, images = zero_shot_clip(name, PROMPTS, checkpoint=str(folder)), torch.rand(2, 3, 32, 32)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    text = open_clip.get_tokenizer(name)(PROMPTS)
    expected, _ = model.get_logits((images - network.encoder.mean) / network.encoder.std, text)
    torch.testing.assert_close(network(images), expected)
    assert network.encoder.mean.flatten().tolist() == [0.5, 0.25, 0.125]  # as the config beside the weights says
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_adapters_begin_as_zero_shot_learn_alone_and_deploy_to_equal_numbers(tiny_clip):
    name, folder = tiny_clip
    torch.manual_seed(1)
    network, images = CLIPLoRAClassifier(name, PROMPTS, rank=2, checkpoint=str(folder)), torch.rand(6, 3, 32, 32)
    torch.testing.assert_close(network(images), zero_shot_clip(name, PROMPTS, checkpoint=str(folder))(images))
    before = {key: value.clone() for key, value in nn.Module.named_parameters(network)}
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), torch.arange(6) % 3).backward()
        optimizer.step()
    moved = {key for key, value in network.named_parameters() if not torch.equal(value, before[key])}
    assert moved == {key for key in before if "lora_" in key or key == "clip.logit_scale"}
    assert {"clip.visual", "clip.transformer"} == {".".join(key.split(".")[:2]) for key in moved if "lora_" in key}

    saved = network.state_dict()
    assert set(saved) == moved
    again = CLIPLoRAClassifier(name, PROMPTS, rank=2, checkpoint=str(folder))
    again.load_state_dict(saved)
    logits = network.eval()(images)
    assert torch.equal(again.eval()(images), logits)
    deployed = network.deployed()
    torch.testing.assert_close(deployed(images), logits)
    torch.testing.assert_close(torch.jit.script(deployed)(images), logits)
    assert torch.equal(network(images), logits)  # itself unchanged
    with pytest.raises(RuntimeError, match="Missing key.*lora_"):
        again.load_state_dict({"clip.logit_scale": saved["clip.logit_scale"]})


def test_a_random_base_is_the_same_in_every_run(tiny_clip):
    first = CLIPLoRAClassifier(tiny_clip[0], PROMPTS, rank=2).clip.visual.conv1.weight
    torch.rand(7)
    assert torch.equal(CLIPLoRAClassifier(tiny_clip[0], PROMPTS, rank=2).clip.visual.conv1.weight, first)


def test_prompts_are_checked_and_cut_ones_told(tiny_clip, caplog):
    with pytest.raises(ValueError, match="prompts is 'one'. It must be a list of texts"):
        zero_shot_clip(tiny_clip[0], "one")
    zero_shot_clip(tiny_clip[0], ["a", "cell " * 90])
    assert "CLIP sees 77 of the 92 tokens" in caplog.text


def test_towers_without_torchs_attention_are_refused(tiny_clip, monkeypatch):
    monkeypatch.setattr("monai_synth.networks.clip.split_attention", lambda module: 0)
    with pytest.raises(ValueError, match="has no attention that takes adapters. Take ViT-B-16"):
        CLIPLoRAClassifier(tiny_clip[0], PROMPTS)
