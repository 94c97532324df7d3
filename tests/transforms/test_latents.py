import torch
from monai.data import CacheDataset
from monai.transforms import Compose

from monai_synth.networks import LatentDiffusion
from monai_synth.transforms import EncodeLatent, EncodeLatentd, EncodePromptd, RandLatentView, RandLatentViewd
from monai_synth.transforms.latents import dihedral_views


def test_the_eight_views_are_different_and_begin_with_the_image():
    image = torch.arange(9.0).view(1, 3, 3)
    views = dihedral_views(image)
    assert torch.equal(views[0], image)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 8


def test_every_view_is_encoded(miniature):
    diffusion = LatentDiffusion(str(miniature()))
    image = torch.rand(3, 32, 32)
    posterior = EncodeLatent(diffusion)(image)
    mean, std = diffusion.encode(image.flip(-1)[None])
    torch.testing.assert_close(posterior[0, 4], mean[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(posterior[1, 4], std[0], atol=1e-5, rtol=1e-4)


def test_views_that_do_not_fit_at_once_are_encoded_in_halves_and_so_are_those_of_later_shots(miniature, caplog):
    diffusion, sizes = LatentDiffusion(str(miniature())), []
    shots = torch.rand(2, 3, 32, 32)
    expected = [EncodeLatent(diffusion)(shot) for shot in shots]
    whole = diffusion.encode

    def encode(images):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(images)

    diffusion.encode = encode
    transform = EncodeLatent(diffusion)
    for shot, posterior in zip(shots, expected):
        torch.testing.assert_close(transform(shot), posterior, atol=1e-5, rtol=1e-4)
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2] and "now 2 at once" in caplog.text


def test_a_fresh_latent_of_the_right_spread_at_every_call():
    posterior = torch.stack([torch.full((8, 4, 16, 16), 3.0), torch.full((8, 4, 16, 16), 0.5)])
    view = RandLatentView().set_random_state(seed=0)
    first, second = view(posterior), view(posterior)
    assert not torch.equal(first, second)
    assert abs(float(first.mean()) - 3.0) < 0.06 and abs(float(first.std()) - 0.5) < 0.05
    assert torch.equal(RandLatentView().set_random_state(seed=0)(posterior), first)


def test_the_autoencoder_runs_once_under_a_cache(miniature):
    diffusion = LatentDiffusion(str(miniature()))
    calls = []
    encode = diffusion.encode
    diffusion.encode = lambda images: calls.append(len(images)) or encode(images)
    steps = [EncodeLatentd("image", diffusion), EncodePromptd("prompt", diffusion), RandLatentViewd("image")]
    dataset = CacheDataset(
        [{"image": torch.rand(3, 32, 32), "prompt": "x"}], Compose(steps), progress=False, num_workers=1
    )
    first, second = dataset[0], dataset[0]
    assert calls == [8]
    assert not torch.equal(first["image"], second["image"])
    assert torch.equal(first["prompt"]["features"], diffusion.encode_prompts(["x"])["features"][0])
    ids = EncodePromptd("prompt", diffusion, token_ids=True)({"prompt": "x"})["prompt"]
    assert torch.equal(ids["token_ids"], diffusion.token_ids(["x"])["token_ids"][0])
