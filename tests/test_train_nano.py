"""Every stage of the training of the embedded models runs, and what it writes is what the package reads."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from sklearn.decomposition import PCA

from monai_synth.networks import LatentDiffusion, load_adapter

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "train_nano.py"
sys.path.insert(0, str(SCRIPT.parent))


def train(work_dir, output_dir, steps):
    counts = [f"--{name}_steps={steps}" for name in ("linear", "vae", "unet", "encoder", "clip", "few_step")]
    few = ["--num_shards=1", "--images_per_shard=2", "--batch_size=4", "--threads=1", *counts]
    folders = ["--work_dir", str(work_dir), "--output_dir", str(output_dir)]
    subprocess.run([sys.executable, str(SCRIPT), *folders, *few], check=True, capture_output=True)


@pytest.mark.parametrize("stop", [199, 200, 330])
def test_a_training_that_was_killed_ends_with_the_same_bytes(tmp_path, stop):
    from nano_training.loop import train as train_stage

    def run(folder, last):
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 1)

        def loss_of(step):
            if step == last:
                raise KeyboardInterrupt
            generator = torch.Generator().manual_seed(step)
            return {"loss": network(torch.randn(4, 3, generator=generator)).square().mean()}

        train_stage(folder, "stage", {"network": network}, loss_of, 400, 1e-2, 0.99)
        return (folder / "stage.safetensors").read_bytes()

    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", stop)
    assert run(tmp_path / "parts", None) == run(tmp_path / "whole", None)


def test_parameters_learn_at_their_own_rates(tmp_path):
    from nano_training.loop import train as train_stage

    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}

    def loss_of(step):
        return {"loss": network(torch.ones(1, 2)).square().mean()}

    factors = {"weight": 1.0, "bias": 0.1}
    train_stage(tmp_path, "stage", {"network": network}, loss_of, 1, 1e-2, 0.9, factors.__getitem__)
    moved = {name: (value - before[name]).abs().mean().item() for name, value in network.named_parameters()}
    assert moved["weight"] == pytest.approx(10 * moved["bias"], rel=0.05)  # of AdamW: the sign of the gradient


@pytest.fixture(scope="module")
def windows():
    noise = torch.rand(24, 3, 68, 68, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.avg_pool2d(noise, 5, 1) * 4 - 1.5).clamp(0, 1)


def build_linear(windows):
    from nano_training.diffusion import build_autoencoder
    from nano_training.linear_code import fit_code, set_decoder, set_encoder

    autoencoder, code = build_autoencoder().requires_grad_(False), fit_code(windows, 48)
    set_encoder(autoencoder, code)
    set_decoder(autoencoder)
    return autoencoder, code


def test_the_code_is_that_of_principal_components(windows):
    from nano_training.linear_code import encode, fit_code

    code = fit_code(windows, 48)
    blocks = torch.nn.functional.pixel_unshuffle(windows, 8).movedim(1, -1).flatten(0, 2).numpy() * 2 - 1
    theirs = PCA(48, svd_solver="full").fit_transform(blocks)
    numbers = encode(code, windows).movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close((numbers / code["scale"]).abs(), torch.from_numpy(theirs).abs(), atol=2e-3, rtol=1e-3)
    assert numbers.square().mean().item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-2), (torch.float16, 2e-2), (torch.bfloat16, 1.5e-1)], ids=str
)
def test_the_encoder_is_the_code_in_every_precision(windows, dtype, bound):
    from nano_training.linear_code import encode

    autoencoder, code = build_linear(windows)
    images = torch.cat([windows[:4], torch.ones(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)])
    encoded = autoencoder.to(dtype).encode((images * 2 - 1).to(dtype)).latent_dist
    assert (encoded.mean.float() - encode(code, images)).abs().max().item() < bound
    assert encoded.std.max().item() < 0.01


def test_the_decoder_begins_linear_and_its_layers_are_those_that_are_fitted(windows):
    from nano_training.linear_code import decode_linearly, encode, is_residual

    autoencoder, code = build_linear(windows)
    numbers = encode(code, windows[:4])
    decoded = autoencoder.decode(numbers).sample
    torch.testing.assert_close(decoded, decode_linearly(autoencoder, numbers), atol=1e-3, rtol=1e-3)
    half_way = autoencoder.decode((numbers + encode(code, windows[4:8])) / 2).sample
    mean = (decoded + autoencoder.decode(encode(code, windows[4:8])).sample) / 2
    torch.testing.assert_close(half_way, mean, atol=1e-3, rtol=1e-3)
    assert decoded.std().item() > 0.1
    silent = [name for name, _ in autoencoder.decoder.named_parameters() if is_residual(name)]
    for name in silent:
        if ".conv1." in name:
            autoencoder.decoder.get_parameter(name).normal_()
    torch.testing.assert_close(autoencoder.decode(numbers).sample, decoded)


def test_more_numbers_than_fit_are_refused(windows):
    from nano_training.diffusion import build_autoencoder
    from nano_training.linear_code import fit_code, set_encoder

    with pytest.raises(ValueError, match="57 numbers do not fit 8 groups of 16 channels"):
        set_encoder(build_autoencoder(), fit_code(windows, 57))


def test_a_denoiser_that_begins_from_another_says_the_same_in_the_new_latents():
    from nano_training.diffusion import begin_denoiser, build_unet

    torch.manual_seed(0)
    ours = build_unet().eval()
    config = {name: value for name, value in ours.config.items() if not name.startswith("_")}
    theirs = UNet2DConditionModel(**{**config, "in_channels": 8, "out_channels": 8}).eval()
    into = torch.linalg.qr(torch.randn(48, 8)).Q.T  # their latents, turned into eight of our 48 directions
    latents = torch.randn(400, 8, 16, 16)

    def turned(values):
        return torch.einsum("bihw,ik->bkhw", values, into)

    class Numbered:
        """Images that only tell their number, and the autoencoder that knows their latents."""

        config = SimpleNamespace(scaling_factor=1.0)

        def __len__(self):
            return len(latents)

        def batch(self, indices):
            return torch.from_numpy(indices).view(-1, 1, 1, 1) / len(latents)

        def encode(self, images):
            indices = ((images + 1) / 2 * len(latents)).round().long().flatten()
            return SimpleNamespace(latent_dist=SimpleNamespace(mean=latents[indices]))

        def to(self, device):
            return self

    begin_denoiser(SimpleNamespace(vae=Numbered(), unet=theirs), Numbered(), turned(latents), ours)
    times, context = torch.tensor([10, 900]), torch.randn(2, 77, 96)
    with torch.no_grad():
        said, expected = ours(turned(latents[:2]), times, context).sample, theirs(latents[:2], times, context).sample
    torch.testing.assert_close(said, turned(expected), atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_all_stages_run_go_on_and_write_what_the_package_reads(tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    train(work, out, steps=1)
    train(work, out, steps=2)  # goes on
    pipeline = StableDiffusionPipeline.from_pretrained(out / "nano")
    assert pipeline.vae.config.latent_channels == pipeline.unet.config.in_channels
    assert timm.create_model(f"local-dir:{out / 'nano_encoder'}")(torch.zeros(1, 3, 128, 128)).shape == (1, 368)
    assert (out / "nano_clip" / "open_clip_model.safetensors").is_file()
    diffusion = LatentDiffusion(str(out / "nano"))
    before = diffusion.denoiser.conv_in.weight.clone()
    load_adapter(diffusion, None, out / "nano_few_step")
    assert not torch.equal(diffusion.denoiser.conv_in.weight, before)
