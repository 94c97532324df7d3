import pytest
import torch

from monai_synth.networks import LatentDiffusion
from monai_synth.networks.diffusion import memory


@pytest.mark.parametrize("kind", ["epsilon", "flow"])
def test_the_size_is_told_from_the_headers(miniature, kind):
    diffusion = LatentDiffusion(str(miniature(kind)))
    parts = [*diffusion.adaptable.values(), diffusion.autoencoder]
    sizes = [sum(value.numel() for value in part.parameters()) for part in parts]
    full = memory.weight_bytes(diffusion.folder, torch.float32)
    half = memory.weight_bytes(diffusion.folder, torch.bfloat16)
    assert 4 * sum(sizes) <= full <= 4 * sum(sizes) + 16384  # files hold a few buffers as well
    assert half == pytest.approx(full / 2 + 2 * sizes[-1], abs=16384)  # the autoencoder stays in float32


@pytest.mark.parametrize(("dtype", "advice"), [(torch.float32, "--amp bfloat16"), (torch.float16, "a smaller base")])
def test_a_base_that_does_not_fit_is_refused_before_it_is_loaded(miniature, monkeypatch, dtype, advice):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    monkeypatch.setattr(LatentDiffusion, "_part", lambda *args: pytest.fail("loaded"))
    with pytest.raises(MemoryError, match=f"needs 0.0 GiB for its weights in .* but 0.0 GiB are free on cpu.*{advice}"):
        LatentDiffusion(str(miniature()), dtype=dtype)
