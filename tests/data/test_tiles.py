import csv
import json
import re

import numpy as np
import pytest
import tifffile
from PIL import Image

from monai_synth.__main__ import main
from monai_synth.data import scan, tiles
from monai_synth.data.annotations import read_labels, regions_of
from monai_synth.data.tiles import TilePlan, build_reader, cut_tiles, places_of, tiles_of


@pytest.fixture
def slides(tmp_path):
    """Two slides of 512 x 384 pixels and a half-size level: tissue on the left, empty glass on the right."""
    folder = tmp_path / "slides"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, name in enumerate(("one", "two")):
        image = np.full((384, 512, 3), 245, np.uint8)
        image[:, :320] = rng.integers(90, 200, (384, 320, 3)) - [0, 60, 0]
        image[:8, :8] = 10 * number  # tells where a tile is from
        with tifffile.TiffWriter(folder / f"{name}.tif") as file:
            options = {"photometric": "rgb", "tile": (64, 64), "resolutionunit": "CENTIMETER"}
            file.write(image, subifds=0, resolution=(20000, 20000), **options)  # 0.5 micrometers
            file.write(image[::2, ::2], resolution=(10000, 10000), subfiletype=1, **options)
    return folder


def annotate(slide, **boxes):
    features = []
    for name, (left, top, right, bottom) in boxes.items():
        ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"classification": {"name": name}},
            }
        )
    slide.with_suffix(".geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))


@pytest.mark.parametrize("backend", ["tifffile", "openslide"])
def test_tiles_lie_in_their_region_on_tissue_with_the_slide_as_group(slides, tmp_path, backend):
    annotate(slides / "one.tif", tumor=(0, 0, 128, 384), stroma=(128, 0, 512, 384))
    annotate(slides / "two.tif", tumor=(0, 0, 192, 128))
    out = tmp_path / "tiles"
    counts = cut_tiles(slides, out, TilePlan(size=64), backend)
    # one: tumor 2 columns of 6 rows; stroma columns 2 to 4 of 6 rows are tissue, 5 to 7 glass; two: 3 columns of 2 rows
    assert counts == {"stroma": 18, "tumor": 18}
    records, names = scan(out)
    assert names == ["stroma", "tumor"] and {record["group"] for record in records} == {"one", "two"}
    whole = tifffile.imread(slides / "one.tif", key=0)
    assert np.array_equal(np.asarray(Image.open(out / "tumor" / "one_64_128.png")), whole[128:192, 64:128])
    assert json.loads((out / "tiles.json").read_text())["backend"] == backend


def test_a_level_is_named_by_its_number_or_its_pixel_size(slides, tmp_path):
    (slides / "slides.csv").write_text("slide,class_name\none.tif,a\ntwo,b\n")
    by_level = cut_tiles(slides, tmp_path / "level", TilePlan(size=64, level=1), "tifffile")
    by_size = cut_tiles(slides, tmp_path / "size", TilePlan(size=64, pixel_size_um=1.1), "tifffile")
    assert by_level == by_size == {"a": 6 + 3, "b": 6 + 3}  # 160 of 256 columns are tissue: 2 whole tiles and one half
    first = np.asarray(Image.open(tmp_path / "level" / "a" / "one_0_128.png"))
    assert np.array_equal(first, tifffile.imread(slides / "one.tif", key=1)[64:128, :64])
    with pytest.raises(ValueError, match="one.tif has the levels 0 to 1, but level=3 is asked for"):
        cut_tiles(slides, tmp_path / "no", TilePlan(level=3), "tifffile")
    with pytest.raises(ValueError, match="no level of 0.25 micrometers per pixel; its levels have 0.5, 1"):
        cut_tiles(slides, tmp_path / "no", TilePlan(pixel_size_um=0.25), "tifffile")
    assert not (tmp_path / "no").exists()


def test_a_part_of_the_tiles_is_drawn_at_random_but_the_same(slides, tmp_path):
    (slides / "slides.csv").write_text("slide,class_name\none,a\ntwo,b\n")
    plan = TilePlan(size=64, max_per_class=4, seed=3)
    first, second = cut_tiles(slides, tmp_path / "x", plan), cut_tiles(slides, tmp_path / "y", plan)
    assert first == second == {"a": 4, "b": 4}
    names = [sorted(path.name for path in (tmp_path / run).rglob("*.png")) for run in "xy"]
    assert names[0] == names[1]


def test_a_tile_needs_its_share_of_the_region():
    half = {"a": [[[(0, 0), (48, 0), (48, 64), (0, 64)]]]}  # three quarters of the first tile
    assert places_of(half, 64, 128, 1.0, TilePlan(size=64, min_inside=0.7)) == {"a": [(0, 0)]}
    assert places_of(half, 64, 128, 1.0, TilePlan(size=64, min_inside=0.9)) == {"a": []}
    assert places_of(half, 32, 64, 2.0, TilePlan(size=32, min_inside=0.7)) == {
        "a": [(0, 0)]
    }  # a level of half the size


def box(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


@pytest.mark.parametrize("kind", ["Polygon", "MultiPolygon"])
def test_what_is_cut_out_of_a_region_is_not_of_its_class(tmp_path, kind):
    with_hole = [box(0, 0, 256, 192), box(64, 64, 192, 128)]
    coordinates = with_hole if kind == "Polygon" else [with_hole, [box(128, 64, 192, 128)]]  # an island in the hole
    geometry = {"type": kind, "coordinates": coordinates}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": "tumor"}}}
    (tmp_path / "one.geojson").write_text(json.dumps({"features": [feature, feature]}))
    regions = regions_of(tmp_path / "one.svs", {})
    found = places_of(regions, 192, 256, 1.0, TilePlan(size=64))["tumor"]
    missing = {(top, left) for top in (0, 64, 128) for left in (0, 64, 128, 192)} - set(found)
    assert missing == ({(64, 64), (64, 128)} if kind == "Polygon" else {(64, 64)})


class ScannedInParts:
    """An OpenSlide of 256 x 128 pixels whose right half alone was scanned; the rest is transparent black."""

    level_count, level_dimensions, level_downsamples, _filename = 1, [(256, 128)], [1.0], "one.mrxs"
    properties: dict[str, str] = {}

    def read_region(self, location, level, size):
        pixels = np.zeros((128, 256, 4), np.uint8)
        pixels[:, 128:] = [150, 60, 150, 255]
        left, top = location
        return Image.fromarray(pixels[top : top + size[1], left : left + size[0]])


def scanned_in_parts(monkeypatch, **properties):
    reader, slide = build_reader("openslide"), ScannedInParts()
    slide.properties = {f"openslide.{name}": value for name, value in properties.items()}
    monkeypatch.setattr(reader, "read", lambda path: slide)
    return reader


def test_what_was_not_scanned_is_white_and_no_tissue(tmp_path, monkeypatch):
    reader = scanned_in_parts(monkeypatch)
    found = tiles_of(tmp_path / "one.mrxs", "a", reader, TilePlan(size=64))
    assert sorted(name for _, name, _ in found) == ["128_0", "128_64", "192_0", "192_64"]
    half = next(tiles_of(tmp_path / "one.mrxs", "a", reader, TilePlan(size=128, step=64, min_tissue=0.4)))
    assert half[1] == "64_0" and (half[2][:, :64] == 255).all() and (half[2][:, 64:] == [150, 60, 150]).all()


def test_regions_of_qupath_begin_at_the_corner_of_what_was_scanned(tmp_path, monkeypatch):
    regions = {"a": [[[(0, 0), (64, 0), (64, 64), (0, 64)]]]}
    for bounds, expected in (({"bounds-x": "128", "bounds-y": "64"}, ["128_64"]), ({}, [])):
        reader = scanned_in_parts(monkeypatch, **bounds)
        found = tiles_of(tmp_path / "one.mrxs", regions, reader, TilePlan(size=64))
        assert [name for _, name, _ in found] == expected


def test_cells_of_classes_are_stripped_and_no_class_leaves_the_folder(slides, tmp_path):
    (slides / "slides.csv").write_text("slide,class_name\none.tif , a \ntwo,a\n")
    assert set(cut_tiles(slides, tmp_path / "out", TilePlan(size=64), "tifffile")) == {"a"}
    for name in ("../up", "AML/M2", ".."):
        (slides / "slides.csv").write_text(f"slide,class_name\none.tif,{name}\ntwo,a\n")
        with pytest.raises(ValueError, match=f"slides.csv has the class '{re.escape(name)}', which cannot be the name"):
            cut_tiles(slides, tmp_path / "no", TilePlan(size=64), "tifffile")
    annotate(slides / "one.tif", **{"../up": (0, 0, 128, 384)})
    (slides / "slides.csv").write_text("slide,class_name\ntwo,a\n")
    with pytest.raises(ValueError, match=r"one.geojson has the class '\.\./up', which cannot be the name of a folder"):
        cut_tiles(slides, tmp_path / "no", TilePlan(size=64), "tifffile")
    assert not (tmp_path / "no").exists() and not (tmp_path / "up").exists()


def test_dots_belong_to_the_name_of_a_slide(tmp_path):
    lines = "TCGA-AA-01.6b5f,a", "TCGA-AA-02.6b5f.SVS,b", "scans/one.ome.tif,a", "one.ome,a"
    (tmp_path / "slides.csv").write_text("\n".join(("slide,class_name", *lines)))
    labels = read_labels(tmp_path / "slides.csv")
    assert labels == {"TCGA-AA-01.6b5f": "a", "TCGA-AA-02.6b5f": "b", "one.ome": "a"}
    assert regions_of(tmp_path / "TCGA-AA-01.6b5f.svs", labels) == "a"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "slide,class_name\none.tif,a\none,b\n",
            "gives the slide 'one' the classes 'a' and 'b'. Leave it one, or draw",
        ),
        ("slide,class_name\none.tif,a\ntwo\n", ", line 3, has the slide 'two' and the class ''. Name both"),
        ("class_name,slide\na,one\nb\n", ", line 3, has the slide '' and the class 'b'. Name both"),
        ("slide,class\none,a,b\n", "needs the columns slide and class_name, found ['class', 'slide']"),
    ],
    ids=["two classes", "no class", "no slide", "no column"],
)
def test_a_line_of_slides_that_says_no_one_class_is_told(tmp_path, content, words):
    path = tmp_path / "slides.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(words)):
        read_labels(path)


def test_hidden_files_are_no_slides_and_the_classes_are_read_once(slides, tmp_path, monkeypatch):
    (slides / "slides.csv").write_text("slide,class_name\none,a\ntwo,b\n")
    (slides / "._one.tif").write_bytes(b"what macOS notes of one.tif")
    read = []
    monkeypatch.setattr(tiles, "read_labels", lambda path: read.append(path) or read_labels(path))
    assert cut_tiles(slides, tmp_path / "out", TilePlan(size=64), "tifffile") == {"a": 30, "b": 30}
    assert read == [slides / "slides.csv"]


def test_bad_slides_are_told(slides, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError, match="one.tif has no class: there is no one.geojson"):
        cut_tiles(slides, out, TilePlan())
    (slides / "one.geojson").write_text('{"features": [{"geometry": {}, "properties": {}}]}')
    with pytest.raises(ValueError, match="one.geojson is not what QuPath exports"):
        cut_tiles(slides, out, TilePlan())
    (slides / "one.geojson").write_text('{"features": []}')
    with pytest.raises(ValueError, match="one.geojson has no region"):
        cut_tiles(slides, out, TilePlan())
    annotate(slides / "one.tif", glass=(400, 0, 512, 384))
    annotate(slides / "two.tif", glass=(400, 0, 512, 384))
    with pytest.raises(ValueError, match="No tile of 2 slides has 50% tissue"):
        cut_tiles(slides, out, TilePlan(size=64))
    with pytest.raises(FileNotFoundError, match="There are no slides in"):
        cut_tiles(tmp_path / "gone", out, TilePlan())
    with pytest.raises(ValueError, match="size is 8; it must be 32 or more"):
        TilePlan(size=8)
    with pytest.raises(ValueError, match="There is no backend 'vips'"):
        build_reader("vips")
    assert main(["tile", str(slides), str(slides)]) == 2 and "exists. Name another" in capsys.readouterr().err


def test_the_command_cuts_and_says_what_is_next(slides, tmp_path, capsys):
    (slides / "slides.csv").write_text("slide,class_name\none,a\ntwo,b\n")
    assert main(["tile", str(slides), str(tmp_path / "tiles"), "--size", "64", "--backend", "tifffile"]) == 0
    assert "a 30, b 30" in capsys.readouterr().out
    rows = list(csv.DictReader(open(tmp_path / "tiles" / "groups.csv")))
    assert len(rows) == 60 and {row["group"] for row in rows} == {"one", "two"}
