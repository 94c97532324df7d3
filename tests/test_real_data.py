"""The code on the real images beside the project, where they are."""

from pathlib import Path

import pytest
import torch

from monai_synth.data import assign_roles, check, check_wall, read_image, scan, select
from monai_synth.networks import LatentDiffusion
from monai_synth.transforms import ResizeCrop
from monai_synth.transforms.macenko import FILL

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"the real images are not in {DATA}"),
]


@pytest.mark.parametrize(("name", "num_folds"), [("colon_glas", 3), ("wbc_bccd", 5), ("wbc_jiangxi", 4)])
def test_real_folders_are_scanned_and_split(name, num_folds):
    records, names = scan(DATA / name)
    assert not [finding for finding in check(DATA / name, shots=5) if finding.level == "error"]
    split = assign_roles(records, shots=5, num_folds=num_folds)
    check_wall(split)
    for role in ("shots", "val", "test"):
        assert {record["class_name"] for record in select(split, role)} == set(names)


@pytest.mark.parametrize("name", ["wbc_pbc", "wbc_bccd", "wbc_jiangxi", "lung_lc25000", "colon_lc25000", "colon_glas"])
def test_the_embedded_autoencoder_keeps_real_images(name):
    diffusion = LatentDiffusion("nano")
    paths = sorted(path for ending in ("jp*g", "png") for path in (DATA / name).rglob(f"*.{ending}"))
    paths = paths[:: len(paths) // 20]
    images = torch.stack([ResizeCrop(128)(torch.from_numpy(read_image(path))) for path in paths])
    error = (diffusion.decode(diffusion.encode(images)[0]) - images).square().mean(dim=(1, 2, 3))
    assert float(-10 * error.log10().mean()) > 26


@pytest.mark.parametrize("name", ["lung_lc25000", "colon_lc25000", "colon_glas"])
def test_real_tissue_is_not_as_dark_as_what_was_not_scanned(name):
    paths = sorted(path for ending in ("jp*g", "png") for path in (DATA / name).rglob(f"*.{ending}"))[::10]
    assert paths
    assert max(float((read_image(path).max(axis=0) <= FILL).mean()) for path in paths) < 1e-4
