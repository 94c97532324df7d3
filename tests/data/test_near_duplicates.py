"""Siblings of one original are found, different originals are kept apart."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_synth.data import assign_roles, check, near_duplicates, scan
from monai_synth.data.near_duplicates import find_near_duplicates
from monai_synth.data.phantom import draw_patient, draw_phantom
from monai_synth.data.phantom.catalog import stains_of


def sibling(image, rng):
    """An image turned by any angle, cut to the square inside, flipped by chance and compressed, as LC25000 was made."""
    angle = rng.uniform(-25, 25) + 90 * rng.integers(4)
    turn, side = np.deg2rad(angle % 90), image.width
    inside = side / (abs(np.cos(turn)) + abs(np.sin(turn)))
    corner = (side - inside) / 2
    box = (corner, corner, side - corner, side - corner)
    turned = image.rotate(angle, Image.Resampling.BICUBIC).crop(box).resize((side, side), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        turned = turned.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", quality=int(rng.integers(60, 96)))
    return buffer.getvalue()


def plant(folder, classes, originals, siblings, side=192):
    """Files of planted siblings, and the number of the original of each."""
    rng, paths, truth = np.random.default_rng(0), [], []
    for class_name in classes:
        (folder / class_name).mkdir(parents=True)
        for number in range(originals):
            patient = draw_patient(stains_of(class_name), number // 5)  # five originals of each patient
            pixels = draw_phantom(class_name, 1000 + number, patient, side).transpose(1, 2, 0)
            image = Image.fromarray((pixels * 255).astype(np.uint8))
            for copy in range(siblings + 1):
                path = folder / class_name / f"{len(paths)}.{'jpeg' if copy else 'png'}"
                path.write_bytes(sibling(image, rng)) if copy else image.save(path)
                paths.append(path)
                truth.append(f"{class_name} {number}")
    return paths, np.array(truth)


def shares(found, truth):
    """The share of siblings outside the main group of their original, and of originals merged with another."""
    outside = 0
    for name in np.unique(truth):
        _, counts = np.unique(found.groups[truth == name], return_counts=True)
        outside += counts.sum() - counts.max()
    merged = sum(len(np.unique(truth[found.groups == group])) - 1 for group in np.unique(found.groups))
    return outside / len(truth), merged / len(np.unique(truth))


def test_no_room_for_what_is_compared_is_told(tmp_path, monkeypatch):
    class Full:
        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(near_duplicates.tempfile, "TemporaryFile", Full)
    paths, _ = plant(tmp_path, ("colon_aca",), originals=4, siblings=4, side=64)
    with pytest.raises(OSError, match="23040 bytes for each in .*No space left.*TMPDIR.*find_duplicates"):
        find_near_duplicates(paths)


@pytest.mark.parametrize("classes", [("colon_aca", "colon_n"), ("lung_aca", "lung_n"), ("lymphocyte", "neutrophil")])
def test_siblings_are_together_and_originals_apart(tmp_path, classes):
    paths, truth = plant(tmp_path, classes, originals=15, siblings=5)
    outside, merged = shares(find_near_duplicates(paths), truth)
    assert outside <= 0.01 and merged <= 0.01


@pytest.mark.slow
def test_a_planted_lc25000(tmp_path):
    paths, truth = plant(tmp_path, ("colon_aca", "colon_n"), originals=250, siblings=19)
    outside, merged = shares(find_near_duplicates(paths), truth)
    print(f"{len(paths)} images: {outside:.2%} of the siblings outside their group, {merged:.2%} of originals merged")
    assert outside <= 0.01 and merged <= 0.01


def test_rows_are_standardized_without_another_array_of_their_size():
    values = np.random.default_rng(0).gamma(2, size=(6000, 90)).astype(np.float32)
    exact = values.astype(np.float64)
    center, spread = exact.mean(0), exact.std(0) + 1e-3
    exact = (exact - center) / spread
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    tracemalloc.start()
    found = near_duplicates.standardize(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < values.nbytes / 4
    np.testing.assert_allclose(found, (center, spread), rtol=1e-5)
    np.testing.assert_allclose(values, exact, atol=2e-6)


def test_candidates_are_the_images_whose_magnitudes_are_most_alike():
    rng = np.random.default_rng(0)
    series = near_duplicates.SeriesFile(rng.gamma(2, size=(300, *near_duplicates.SHAPE)))
    starts = range(0, 300, near_duplicates.CHUNK)
    sizes = np.concatenate([near_duplicates.magnitudes(series, start) for start in starts]).astype(np.float64)
    sizes = (sizes - sizes[:, 0].mean(0)) / (sizes[:, 0].std(0) + 1e-3)
    sizes /= np.linalg.norm(sizes, axis=2, keepdims=True)
    alike = np.max([sizes[:, zoom] @ sizes[:, 0].T for zoom in range(sizes.shape[1])], axis=0)
    np.fill_diagonal(alike, -np.inf)
    best = np.sort(alike, axis=1)[:, -near_duplicates.NEIGHBORS :]
    found = np.take_along_axis(alike, near_duplicates.nearest_candidates(series), axis=1)
    np.testing.assert_allclose(np.sort(found, axis=1), best, atol=1e-5)


def test_groups_reach_the_split_and_the_check(tmp_path):
    paths, truth = plant(tmp_path, ("colon_aca", "colon_n"), originals=8, siblings=3)
    records, _ = scan(tmp_path)
    groups = {Path(record["image"]): record["group"] for record in records}
    assert len(set(groups.values())) == 16
    for name in np.unique(truth):
        assert len({groups[path] for path, own in zip(paths, truth) if own == name}) == 1
    sides = {}
    for record in assign_roles(records, shots=2, num_folds=3):
        sides.setdefault(record["group"], set()).add({"shots": "train"}.get(record["role"], record["role"]))
    assert all(len(roles) == 1 for roles in sides.values())
    messages = [finding.message for finding in check(tmp_path)]
    assert any("64 images look like turned, flipped, zoomed or compressed copies" in text for text in messages)
    apart, _ = scan(tmp_path, find_duplicates=False)
    assert len({record["group"] for record in apart}) == 64


def test_a_likeness_across_classes_is_told(tmp_path):
    paths, _ = plant(tmp_path, ("colon_aca", "colon_n"), originals=12, siblings=0)
    stolen = sibling(Image.open(paths[0]), np.random.default_rng(1))
    (tmp_path / "colon_n" / "stolen.jpeg").write_bytes(stolen)
    told = [finding for finding in check(tmp_path) if "which is in another class" in finding.message]
    assert len(told) == 1 and {told[0].path, told[0].message.split()[2]} == {"colon_aca/0.png", "colon_n/stolen.jpeg"}


def test_a_given_threshold_shows_what_is_borderline(tmp_path):
    paths, _ = plant(tmp_path, ("colon_n",), originals=12, siblings=2)
    strict = find_near_duplicates(paths, threshold=0.995)
    usual = find_near_duplicates(paths)
    assert len(np.unique(strict.groups)) > len(np.unique(usual.groups)) == 12
    assert all(0.995 - 0.08 <= value for _, _, value in strict.borderline) and strict.borderline


def test_a_handful_is_left_alone_and_a_broken_file_is_named(tmp_path):
    paths, _ = plant(tmp_path, ("colon_n",), originals=5, siblings=1)
    assert len(np.unique(find_near_duplicates(paths).groups)) == 10
    told = "fewer than 20 images: turned, flipped or zoomed copies were not searched for. Look yourself."
    assert told in [finding.message for finding in check(tmp_path)]
    assert told not in [finding.message for finding in check(tmp_path, find_duplicates=False)]
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="broken.png is not an image that can be read"):
        find_near_duplicates([*paths, *paths, tmp_path / "broken.png"])


@pytest.mark.parametrize("name", ["x.png", "X.TIF", "x.tiff"])
def test_sixteen_bit_images_are_seen(tmp_path, name):
    grey = np.random.default_rng(0).integers(0, 65536, (96, 96), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / name)
    np.testing.assert_allclose(near_duplicates.small_image(tmp_path / name)[0], grey / 65535, atol=0.5 / 255 + 1e-6)
