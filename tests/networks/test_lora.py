import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from safetensors import safe_open

from monai_synth.engines import LatentDiffusionPrepareBatch, SamplingPrepareBatch, noise_of_seeds
from monai_synth.inferers import SamplingInferer
from monai_synth.losses import DenoisingLoss
from monai_synth.networks import (
    LatentDiffusion,
    LoRADenoiser,
    load_adapter,
    read_adapter_metadata,
    save_adapter,
)
from monai_synth.networks.lora import ADAPTER_FILE


def trained(base, train_text_encoder=False, steps=3, rank=4):
    """A diffusion and an adapter after a few large steps of the stock trainer."""
    torch.manual_seed(0)
    diffusion = LatentDiffusion(str(base))
    network = LoRADenoiser(diffusion, rank=rank, train_text_encoder=train_text_encoder)
    prompt = diffusion.token_ids(["a cell"])[0] if train_text_encoder else diffusion.encode_prompts(["a cell"])[0]
    records = [{"image": torch.randn(4, 8, 8), "prompt": prompt} for _ in range(4)]
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        epoch_length=steps,
        train_data_loader=DataLoader(records, batch_size=2),
        network=network,
        optimizer=torch.optim.AdamW(network.trainable_parameters(), lr=0.05),
        loss_function=DenoisingLoss(),
        prepare_batch=LatentDiffusionPrepareBatch(diffusion, prompt_dropout=0.0),
        decollate=False,
    )
    trainer.run()
    return diffusion, network


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("with_text", [False, True])
def test_the_stock_trainer_changes_the_adapter_and_nothing_else(miniature, kind, with_text):
    diffusion, network = trained(miniature(kind), with_text)
    before = LatentDiffusion(str(miniature(kind)))
    for part in ("unet", "text_encoder"):
        own = {key.replace(".base_layer", ""): value for key, value in getattr(diffusion, part).state_dict().items()}
        for key, value in getattr(before, part).state_dict().items():
            assert torch.equal(own[key], value), key
    moved = [key for key, value in network.state_dict().items() if "lora_B" in key and value.abs().max() > 0]
    assert any(key.startswith("unet") for key in moved)
    assert any(key.startswith("text_encoder") for key in moved) is with_text


def test_the_state_holds_the_adapter_alone_and_loads_strictly(miniature):
    _, network = trained(miniature())
    state = network.state_dict()
    assert state and all("lora_" in key for key in state)
    fresh = LoRADenoiser(LatentDiffusion(str(miniature())), rank=4)
    fresh.load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in fresh.state_dict().items())
    incomplete = dict(list(state.items())[1:])
    with pytest.raises(RuntimeError, match="Missing key.*lora_"):
        fresh.load_state_dict(incomplete)
    with pytest.raises(RuntimeError, match="Unexpected key.*stranger"):
        fresh.load_state_dict({**state, "stranger": torch.zeros(1)})


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("with_text", [False, True])
def test_plain_diffusers_draws_the_same_pixels(miniature, tmp_path, kind, with_text):
    diffusion, network = trained(miniature(kind), with_text)
    save_adapter(network, tmp_path, {"base_fingerprint": diffusion.fingerprint})
    ours = LatentDiffusion(str(miniature(kind)))
    denoiser = load_adapter(ours, tmp_path)
    inferer = SamplingInferer(ours, num_inference_steps=4, guidance_scale=3.0, scheduler="ddim")
    batch = {"seed": [1, 2], "prompt": ["a cell", "another"]}
    noise, _, _, features = SamplingPrepareBatch(ours, 32)(batch)
    images = inferer(noise, denoiser, **features)

    pipeline = StableDiffusionPipeline.from_pretrained(miniature(kind), safety_checker=None)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", clip_sample=False
    )
    pipeline.set_progress_bar_config(disable=True)
    plain = pipeline(batch["prompt"], latents=noise, num_inference_steps=4, guidance_scale=3.0, output_type="pt").images
    pipeline.load_lora_weights(tmp_path)
    adapted = pipeline(
        batch["prompt"], latents=noise, num_inference_steps=4, guidance_scale=3.0, output_type="pt"
    ).images
    torch.testing.assert_close(images, adapted.float(), atol=2e-5, rtol=0)
    assert (plain - adapted).abs().max() > 1e-3  # the adapter does something


def test_the_header_tells_the_origin(miniature, tmp_path):
    _, network = trained(miniature())
    path = save_adapter(network, tmp_path, {"rank": 4, "prompts": {"a": "an a"}, "seed": 7})
    assert path == tmp_path / ADAPTER_FILE
    assert read_adapter_metadata(tmp_path) == {"rank": 4, "prompts": {"a": "an a"}, "seed": 7}
    with safe_open(path, framework="pt") as file:
        assert all("lora" in key for key in file.keys())
    with pytest.raises(FileNotFoundError, match="There is no adapter .*Run train_diffusion.json first"):
        read_adapter_metadata(tmp_path / "gone")


def test_an_adapter_of_another_base_is_refused(miniature, tmp_path):
    diffusion, network = trained(miniature())
    save_adapter(network, tmp_path, {"base_fingerprint": diffusion.fingerprint, "base_model": "first"})
    other = LatentDiffusion(str(miniature("epsilon", seed=5)))
    with pytest.raises(
        ValueError, match=f"belongs to the base 'first' .{diffusion.fingerprint[:12]}.*{other.fingerprint[:12]}"
    ):
        load_adapter(other, tmp_path)


def test_without_an_adapter_the_base_draws(miniature):
    diffusion = LatentDiffusion(str(miniature()))
    network = load_adapter(diffusion, None)
    noise, context = noise_of_seeds([1], (4, 8, 8)), diffusion.encode_prompts(["x"])
    expected = diffusion.unet(noise, torch.tensor([10]), context).sample
    torch.testing.assert_close(network(noise, torch.tensor([10]), context), expected)


@pytest.mark.parametrize("with_text", [False, True])
@pytest.mark.parametrize("alpha", [1, 16])
def test_the_file_keeps_what_was_trained_whatever_its_scale(miniature, tmp_path, with_text, alpha):
    torch.manual_seed(0)
    diffusion = LatentDiffusion(str(miniature()))
    network = LoRADenoiser(diffusion, rank=4, alpha=alpha, train_text_encoder=with_text)
    for parameter in network.trainable_parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    save_adapter(network, tmp_path, {})
    loaded = load_adapter(LatentDiffusion(str(miniature())), tmp_path)
    x, timesteps, ids = torch.randn(2, 4, 8, 8), torch.tensor([10, 500]), diffusion.token_ids(["a", "b"])
    with torch.no_grad():
        torch.testing.assert_close(loaded(x, timesteps, ids), network.eval()(x, timesteps, ids), atol=1e-5, rtol=0)


def test_a_diverged_adapter_is_not_written_over_a_good_one(miniature, tmp_path):
    _, network = trained(miniature())
    before = save_adapter(network, tmp_path, {"steps": 3}).read_bytes()
    torch.nn.init.constant_(next(network.trainable_parameters()), float("nan"))
    with pytest.raises(RuntimeError, match="1 tensors of the adapter are not finite.*last good adapter.* stays"):
        save_adapter(network, tmp_path, {"steps": 6})
    assert (tmp_path / ADAPTER_FILE).read_bytes() == before


def test_what_cannot_be_adapted_is_refused(miniature):
    with pytest.raises(ValueError, match="Target modules .*nope.* not found"):
        LoRADenoiser(LatentDiffusion(str(miniature())), target_modules=["nope"])
    diffusion = LatentDiffusion(str(miniature()))
    LoRADenoiser(diffusion)
    with pytest.raises(ValueError, match="default already exists"):
        LoRADenoiser(diffusion)
