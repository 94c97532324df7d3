import pytest
import torch
from monai.data import DataLoader
from monai.engines import SupervisedTrainer
from safetensors import safe_open

from monai_synth.engines import LatentDiffusionPrepareBatch, SamplingPrepareBatch, noise_of_seeds
from monai_synth.inferers import SamplingInferer
from monai_synth.inferers.sampling import step_noise
from monai_synth.losses import DenoisingLoss
from monai_synth.networks import (
    LatentDiffusion,
    LoRADenoiser,
    load_adapter,
    read_adapter_metadata,
    remove_adapter,
    save_adapter,
)
from monai_synth.networks.adapter_files import ADAPTER_FILE
from monai_synth.transforms import EncodePromptd

KINDS = ("epsilon", "v_prediction", "xl", "flow")


def trained(base, train_text_encoder=False, steps=3, rank=4, **options):
    """A diffusion and an adapter after a few large steps of the stock trainer."""
    torch.manual_seed(0)
    diffusion = LatentDiffusion(str(base))
    network = LoRADenoiser(diffusion, rank=rank, train_text_encoder=train_text_encoder, **options)
    prompt = EncodePromptd("prompt", diffusion, token_ids=train_text_encoder)({"prompt": "a cell"})["prompt"]
    records = [{"image": torch.randn(diffusion.latent_shape(32)), "prompt": prompt} for _ in range(4)]
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_text", [False, True])
def test_the_stock_trainer_changes_the_adapter_and_nothing_else(miniature, kind, with_text):
    diffusion, network = trained(miniature(kind), with_text)
    before = LatentDiffusion(str(miniature(kind)))
    for name, part in before.adaptable.items():
        own = {key.replace(".base_layer", ""): value for key, value in diffusion.adaptable[name].state_dict().items()}
        for key, value in part.state_dict().items():
            assert torch.equal(own[key], value), key
    moved = [key for key, value in network.state_dict().items() if "lora_B" in key and value.abs().max() > 0]
    assert any(key.startswith(diffusion.denoiser_name) for key in moved)
    for name in diffusion.text_encoders:
        assert any(key.startswith(f"{name}.") for key in moved) is with_text


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


def draw_both(plain_pipeline, base, folder, scheduler="dpmsolver++", prompts=("a cell", "another")):
    """Images of ours, of plain diffusers with the adapter and of plain diffusers without, from the same noise."""
    ours = LatentDiffusion(str(base))
    denoiser = load_adapter(ours, folder)
    inferer = SamplingInferer(ours, num_inference_steps=4, guidance_scale=3.0, scheduler=scheduler)
    noise, _, _, features = SamplingPrepareBatch(ours, 32)({"seed": [1, 2], "prompt": list(prompts)})
    images = inferer(noise, denoiser, **features)
    pipeline = plain_pipeline(base)
    kind, options = ours.solver_options(scheduler)
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **options)
    spaced = ours.solver_timesteps(scheduler, 4)
    steps: dict = {"num_inference_steps": 4} if spaced is None else {"timesteps": spaced}
    call = {**steps, "guidance_scale": 3.0, "output_type": "pt", "height": 32, "width": 32}
    noises = iter([step_noise([1, 2]), step_noise([1, 2])])  # which "lcm" alone asks for
    plain = pipeline(list(prompts), latents=noise, generator=next(noises), **call).images
    pipeline.load_lora_weights(folder)
    adapted = pipeline(list(prompts), latents=noise, generator=next(noises), **call).images
    return images, adapted.float(), plain.float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_text", [False, True])
def test_plain_diffusers_draws_the_same_pixels(miniature, plain_pipeline, tmp_path, kind, with_text):
    diffusion, network = trained(miniature(kind), with_text)
    save_adapter(network, tmp_path, {"base_fingerprint": diffusion.fingerprint})
    for scheduler in diffusion.solvers():
        ours, adapted, plain = draw_both(plain_pipeline, miniature(kind), tmp_path, scheduler)
        torch.testing.assert_close(ours, adapted, atol=2e-5, rtol=0)
        assert (plain - adapted).abs().max() > 1e-3  # the adapter does something
    noise, _, _, features = SamplingPrepareBatch(diffusion, 32)({"seed": [1, 2], "prompt": ["a cell", "another"]})
    learned = SamplingInferer(diffusion, 4, guidance_scale=3.0, scheduler=scheduler)(noise, network.eval(), **features)
    torch.testing.assert_close(ours, learned, atol=2e-5, rtol=0)  # and is what was trained


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"use_dora": True, "use_rslora": True},
        {"use_rslora": True, "train_text_encoder": True},
        {"init": "pissa", "train_text_encoder": True},
        {"init": "pissa", "use_rslora": True},
        {"alpha": 1.5, "train_text_encoder": True},
        {"init": "kaiming", "target_modules": ["to_k", "ff.net.2"]},
        {"gradient_checkpointing": True, "train_text_encoder": True},
        {"target_modules": "all"},
        {"target_modules": "all", "train_text_encoder": True, "alpha": 1.5},
        {"target_modules": "all", "use_dora": True},
    ],
    ids=str,
)
def test_every_kind_of_adapter_is_drawn_by_plain_diffusers(miniature, plain_pipeline, tmp_path, options):
    diffusion, network = trained(miniature(), **options)
    save_adapter(network, tmp_path, {"base_fingerprint": diffusion.fingerprint})
    ours, adapted, plain = draw_both(plain_pipeline, miniature(), tmp_path)
    torch.testing.assert_close(ours, adapted, atol=5e-5, rtol=0)
    assert (plain - adapted).abs().max() > 1e-3
    noise, _, _, features = SamplingPrepareBatch(diffusion, 32)({"seed": [1, 2], "prompt": ["a cell", "another"]})
    learned = SamplingInferer(diffusion, 4, guidance_scale=3.0)(noise, network.eval(), **features)
    torch.testing.assert_close(ours, learned, atol=5e-5, rtol=0)  # and is what was trained


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


def test_an_adapter_that_names_no_base_is_taken_with_a_warning(miniature, tmp_path, caplog):
    diffusion, network = trained(miniature())
    save_adapter(network, tmp_path, {"base_fingerprint": diffusion.fingerprint})
    load_adapter(LatentDiffusion(str(miniature())), tmp_path)
    assert "does not say" not in caplog.text
    save_adapter(network, tmp_path, {})
    load_adapter(LatentDiffusion(str(miniature())), tmp_path)
    assert "does not say which base it was trained on" in caplog.text


def test_without_an_adapter_the_base_draws(miniature):
    diffusion = LatentDiffusion(str(miniature()))
    network = load_adapter(diffusion, None)
    noise, context = noise_of_seeds([1], (4, 8, 8)), diffusion.encode_prompts(["x"])
    expected = diffusion.denoiser(noise, torch.tensor([10]), context["features"]).sample
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
    with pytest.raises(ValueError, match=r"already has an adapter. remove_adapter\(diffusion\) takes it out"):
        LoRADenoiser(diffusion)
    remove_adapter(diffusion)
    with pytest.raises(ValueError, match="lora_init is 'olora'. It can be 'gaussian', 'kaiming', 'pissa'"):
        LoRADenoiser(diffusion, init="olora")
    with pytest.raises(ValueError, match="use_dora and train_text_encoder cannot go together"):
        LoRADenoiser(diffusion, use_dora=True, train_text_encoder=True)
    with pytest.raises(ValueError, match="'pissa' and use_dora cannot go together"):
        LoRADenoiser(diffusion, init="pissa", use_dora=True)
    with pytest.raises(ValueError, match="'pissa' is defined for linear layers, .* Use --lora_targets attention"):
        LoRADenoiser(diffusion, init="pissa", target_modules="all")
    with pytest.raises(ValueError, match="lora_targets is 'every'. It can be 'attention', 'all' or a list"):
        LoRADenoiser(diffusion, target_modules="every")
    with pytest.raises(ValueError, match="needs them in float32; leave --amp out"):
        LoRADenoiser(LatentDiffusion(str(miniature()), dtype=torch.bfloat16), init="pissa")
    with pytest.raises(ValueError, match="A denoiser needs timesteps and context"):
        LoRADenoiser(diffusion)(torch.zeros(1, 4, 8, 8))


def weights_of(diffusion):
    return {
        (name, key): value.clone()
        for name, part in diffusion.adaptable.items()
        for key, value in part.state_dict().items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["epsilon", "xl", "flow"])
def test_one_base_serves_one_adapter_after_another_and_is_itself_again(miniature, tmp_path, kind, dtype):
    first = trained(miniature(kind), True, steps=2)[1]
    second = trained(miniature(kind), False, steps=2, use_dora=True)[1]
    folders = [save_adapter(network, tmp_path / str(index), {}).parent for index, network in enumerate((first, second))]
    diffusion = LatentDiffusion(str(miniature(kind)), dtype=dtype)
    before = weights_of(diffusion)

    def alone(folder):
        return weights_of(load_adapter(LatentDiffusion(str(miniature(kind)), dtype=dtype), folder).diffusion)

    for folder in (*folders, None, folders[0]):
        network = load_adapter(diffusion, folder)
        expected = before if folder is None else alone(folder)
        for key, value in weights_of(diffusion).items():
            assert torch.equal(value, expected[key]) and value.dtype == dtype, key
    remove_adapter(diffusion)
    with pytest.raises(RuntimeError, match="The base model has another adapter now"):
        network(torch.zeros(1, *diffusion.latent_shape(32)), torch.tensor([1]), diffusion.encode_prompts(["x"]))
    for options in ({"train_text_encoder": True}, {"gradient_checkpointing": True}):
        LoRADenoiser(diffusion, rank=2, **options).train()
        remove_adapter(diffusion)
    if dtype == torch.float32:
        LoRADenoiser(diffusion, rank=2, init="pissa")
        remove_adapter(diffusion)
    after = weights_of(diffusion)
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)
    assert not any(part.training for part in diffusion.adaptable.values())
    assert not any(p.requires_grad for part in diffusion.adaptable.values() for p in part.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_for_few_steps_is_added_to_the_own_one(miniature, tmp_path, kind):
    own = save_adapter(trained(miniature(kind))[1], tmp_path / "own", {})
    few_step = save_adapter(trained(miniature(kind), steps=2, rank=2)[1], tmp_path / "few", {})
    diffusion, before = LatentDiffusion(str(miniature(kind))), LatentDiffusion(str(miniature(kind)))
    plain, changes = weights_of(before), []
    for folder in (own.parent, few_step.parent):
        with_one = weights_of(load_adapter(LatentDiffusion(str(miniature(kind))), folder).diffusion)
        changes.append({key: value - plain[key] for key, value in with_one.items()})
    load_adapter(diffusion, own.parent, few_step)  # by its folder, and by its file
    for key, value in weights_of(diffusion).items():
        torch.testing.assert_close(value, plain[key] + changes[0][key] + changes[1][key], atol=1e-6, rtol=1e-5)
    assert all(any(change[key].abs().max() > 0 for key in plain) for change in changes)
    remove_adapter(diffusion)
    assert all(torch.equal(value, plain[key]) for key, value in weights_of(diffusion).items())
    load_adapter(diffusion, None, few_step)
    assert any(not torch.equal(value, plain[key]) for key, value in weights_of(diffusion).items())
