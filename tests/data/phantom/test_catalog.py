import csv

import numpy as np
import pytest
from scipy.ndimage import label as connected

from monai_synth.data.phantom import (
    CLASS_PHRASES,
    PHANTOM_SETS,
    catalog,
    draw_patient,
    draw_phantom,
    phantom_caption,
    render,
    write_phantoms,
)
from monai_synth.data.phantom.cells import AZURE, EOSIN, NUCLEUS, draw_cell
from monai_synth.data.phantom.optics import STAINS
from monai_synth.data.phantom.section import HEMATOXYLIN
from monai_synth.data.phantom.tissue import draw_tissue


@pytest.mark.parametrize("class_name", list(CLASS_PHRASES))
def test_equal_seeds_give_equal_images_and_other_seeds_others(class_name):
    first, again, other = (draw_phantom(class_name, seed, size=64) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 0.01
    assert first.dtype == np.float32 and 0 <= first.min() < first.max() <= 1


@pytest.mark.parametrize("size", [64, 128, 512])
@pytest.mark.parametrize("class_name", ["eosinophil", "colon_n", "lung_n"])
def test_the_same_scene_at_every_size(class_name, size):
    small, image = draw_phantom(class_name, 5, size=64), draw_phantom(class_name, 5, size=size)
    assert image.shape == (3, size, size)
    assert np.abs(image.mean(axis=(1, 2)) - small.mean(axis=(1, 2))).max() < 0.12


def mean_stain(draw, class_name, stain, count=12):
    patient = draw_patient("he" if draw is draw_tissue else "giemsa", 0, 0.0)
    images = [draw(class_name, np.random.default_rng(seed), patient, 64)[stain] for seed in range(count)]
    return float(np.mean(images))


def test_granules_tell_granulocytes_apart():
    eosin = {name: mean_stain(draw_cell, name, EOSIN) for name in ("eosinophil", "neutrophil", "basophil")}
    azure = {name: mean_stain(draw_cell, name, AZURE) for name in ("eosinophil", "neutrophil", "basophil")}
    assert eosin["eosinophil"] > 2 * max(eosin["neutrophil"], eosin["basophil"])
    assert azure["basophil"] > 2 * max(azure["neutrophil"], azure["eosinophil"])


def test_a_neutrophil_has_a_less_compact_nucleus_than_a_lymphocyte():
    def filling(class_name):
        patient, shares = draw_patient("giemsa", 0, 0.0), []
        for seed in range(10):
            nucleus = draw_cell(class_name, np.random.default_rng(seed), patient, 96)[NUCLEUS] > 0.3
            rows, columns = np.nonzero(nucleus)
            shares.append(nucleus.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1)))
        return np.mean(shares)

    assert filling("neutrophil") < filling("lymphocyte") - 0.1


def test_a_platelet_image_has_no_nucleus():
    assert mean_stain(draw_cell, "platelet", NUCLEUS) < 0.05 * mean_stain(draw_cell, "lymphocyte", NUCLEUS)


def test_cancer_holds_more_hematoxylin_and_normal_lung_is_mostly_air():
    assert mean_stain(draw_tissue, "colon_aca", HEMATOXYLIN) > 1.2 * mean_stain(draw_tissue, "colon_n", HEMATOXYLIN)
    patient = draw_patient("he", 0, 0.0)
    air = {
        name: np.mean([draw_tissue(name, np.random.default_rng(s), patient, 64).sum(axis=0) < 0.1 for s in range(8)])
        for name in ("lung_n", "lung_scc")
    }
    assert air["lung_n"] > 0.4 > air["lung_scc"] + 0.2


def test_crypts_are_separate_glands():
    patient = draw_patient("he", 0, 0.0)
    vacuoles = [draw_tissue("colon_n", np.random.default_rng(seed), patient, 96)[1] < 0.12 for seed in range(4)]
    assert np.mean([connected(mask)[1] for mask in vacuoles]) > 4


def test_beer_lambert_no_stain_shows_the_light_and_double_stain_squares_the_transmission():
    patient = draw_patient("he", 1, 0.0)
    plain = type(patient)(
        **{
            **vars(patient),
            "blur": 0.0,
            "sharpening": 0.0,
            "noise": 0.0,
            "gamma": 1.0,
            "saturation": 1.0,
            "vignetting": 0.0,
        }
    )
    rng = np.random.default_rng(0)
    empty = np.zeros((len(STAINS["he"]), 4, 4), np.float32)
    once = empty.copy()
    once[0] = 0.7
    light = plain.light[:, None, None]
    np.testing.assert_allclose(render(empty, plain, rng), np.broadcast_to(light, (3, 4, 4)), rtol=1e-5)
    transmission = render(once, plain, rng) / light
    np.testing.assert_allclose(render(2 * once, plain, rng) / light, transmission**2, rtol=1e-4)


def test_captions_name_class_and_attributes():
    patient = draw_patient("giemsa", 0)
    assert phantom_caption("neutrophil") == "Giemsa blood smear, neutrophil"
    told = phantom_caption("neutrophil", patient, ["background", "strength"])
    words = patient.attributes
    assert told == f"Giemsa blood smear, neutrophil, {words['background']} background, {words['strength']} stain"


def test_a_written_folder_has_every_patient_in_every_class(tmp_path):
    folder = write_phantoms(tmp_path / "set", PHANTOM_SETS["colon"], images_per_class=6, num_patients=3, size=64)
    rows = list(csv.DictReader(open(folder / "groups.csv")))
    assert len(rows) == 12 and all((folder / row["image"]).is_file() for row in rows)
    for class_name in PHANTOM_SETS["colon"]:
        groups = [row["group"] for row in rows if row["image"].startswith(class_name)]
        assert sorted(groups) == sorted(["patient_000", "patient_001", "patient_002"] * 2)


def test_a_folder_of_phantoms_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    folder, asked = tmp_path / "set", {"class_names": ["colon_aca", "colon_n"], "num_patients": 2, "size": 64}

    def stopped(class_name, *args):
        if class_name == "colon_n":
            raise KeyboardInterrupt
        return draw_phantom(class_name, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(catalog, "draw_phantom", stopped)
        write_phantoms(folder, images_per_class=5, **asked)
    assert not folder.exists()
    folder.mkdir()  # an empty folder may be there
    write_phantoms(folder, images_per_class=3, **asked)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert len(list(folder.rglob("*.png"))) == 6  # none is left of those that were drawn first
    before = sorted(folder.rglob("*"))
    with pytest.raises(FileExistsError, match="set exists and is not an empty folder. Name another folder"):
        write_phantoms(folder, images_per_class=2, **asked)
    assert sorted(folder.rglob("*")) == before
    with pytest.raises(FileExistsError, match="groups.csv exists and is not an empty folder"):
        write_phantoms(folder / "groups.csv", images_per_class=2, **asked)


def test_wrong_requests_are_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no phantom class 'colon'. Choose one of .*colon_aca"):
        draw_phantom("colon", 0)
    with pytest.raises(ValueError, match="size=32"):
        draw_phantom("neutrophil", 0, size=32)
    with pytest.raises(ValueError, match="images_per_class=2 is less than num_patients=3"):
        write_phantoms(tmp_path, ["colon_n"], images_per_class=2, num_patients=3)
    rng, patient = np.random.default_rng(0), draw_patient("he", 0)
    with pytest.raises(ValueError, match="no tissue 'liver'. Choose one of colon_aca"):
        draw_tissue("liver", rng, patient, 64)
    with pytest.raises(ValueError, match="no blood cell 'ghost'. Choose one of neutrophil"):
        draw_cell("ghost", rng, patient, 64)
