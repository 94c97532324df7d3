import json

import pytest
from monai.data import load_decathlon_datalist
from PIL import Image

from monai_synth.data import check_wall, class_names_of, load_datalist, save_datalist, scan, select
from monai_synth.data.records import save_synthetic_datalist
from monai_synth.utils import read_json


def record(name, role="shots", **fields):
    known = {"label": 0, "class_name": "a", "origin": "real", "role": role}
    return {"image": f"/data/{name}.png", "group": name, "sha256": name, **known, **fields}


def test_a_datalist_comes_back_as_it_was_and_monai_reads_it(tmp_path):
    roles = [("x", "shots"), ("y", "train"), ("v", "val"), ("t", "test")]
    records = [{**record(name, role), "image": str(tmp_path / "images" / f"{name}.png")} for name, role in roles]
    path = tmp_path / "run" / "datalist.json"
    save_datalist(path, records, ["a"], tmp_path / "images", note="kept")
    assert load_datalist(path) == records
    assert class_names_of(path) == ["a"]
    by_monai = load_decathlon_datalist(
        path, is_segmentation=False, data_list_key="validation", base_dir=tmp_path / "images"
    )
    assert by_monai[0]["image"] == records[2]["image"]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_datalist_of_synthetic_images_is_written_one_by_one_and_says_the_same(tmp_path, number):
    known = {"label": 0, "class_name": "ä", "origin": "synthetic", "prompt": 'é"'}
    records = [{"image": f"s/{index}.png", **known} for index in range(number)]
    save_synthetic_datalist(tmp_path / "streamed.json", iter(records), ["ä", "b"])
    whole = [{**record, "image": str(tmp_path / record["image"])} for record in records]
    save_datalist(tmp_path / "whole.json", whole, ["ä", "b"], tmp_path)
    assert read_json(tmp_path / "streamed.json") == read_json(tmp_path / "whole.json")
    assert load_datalist(tmp_path / "streamed.json") == whole  # and the digest is right


def test_a_datalist_of_synthetic_images_takes_no_other(tmp_path):
    for fields in ({"role": "test", "origin": "synthetic"}, {}):
        with pytest.raises(ValueError, match="/data/x.png is no record of a synthetic image without a role"):
            save_synthetic_datalist(tmp_path / "datalist.json", iter([record("x", **fields)]), ["a"])
    assert not list(tmp_path.iterdir())


def test_select_takes_roles_and_classes():
    records = [record("x"), record("y", "train", class_name="b"), record("t", "test")]
    assert select(records, "shots") == records[:1]
    assert select(records, ["shots", "train"]) == records[:2]
    assert select(records, ["shots", "train"], ["b"]) == records[1:2]
    with pytest.raises(ValueError, match="There is no role \\['shot'\\]. Roles are shots, train, val, test"):
        select(records, "shot")
    with pytest.raises(ValueError, match="No record has the role val"):
        select(records, "val")


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([record("x", "test", origin="synthetic")], "x.png is synthetic and has the role 'test'"),
        ([record("x", "val", origin="synthetic")], "x.png is synthetic and has the role 'val'"),
        ([record("x", origin="fake")], "has the origin 'fake'"),
        ([record("x"), record("y", "test", group="x")], "Groups must stay on one side.*x.png.*y.png"),
        ([record("x", "val"), record("y", "test", group="x")], "Groups must stay on one side"),
        ([record("x"), record("y", "test", sha256="x")], "same file stands on two sides.*x.png.*y.png"),
        ([record("x"), record("y", label=1, sha256="x")], "same file stands in two classes.*x.png.*y.png"),
        (
            [record("x", pixels="p"), record("y", "external", pixels="p")],
            "same pixels stand on two sides.*x.png.*y.png",
        ),
        ([record("x", pixels="p"), record("y", label=1, pixels="p")], "same pixels stand in two classes.*x.png.*y.png"),
    ],
)
def test_the_wall_holds_at_the_datalist(tmp_path, records, message):
    with pytest.raises(ValueError, match=message):
        check_wall(records)
    with pytest.raises(ValueError, match=message):
        save_datalist(tmp_path / "datalist.json", records, ["a"], "/data")
    assert not (tmp_path / "datalist.json").exists()


def test_siblings_may_train_together():
    check_wall([record("x"), record("y", "train", group="x")])


def test_training_images_in_another_format_are_no_other_data_set(image_folder, tmp_path):
    own, _ = scan(image_folder({"a": 2, "b": 2}), find_duplicates=False)
    for number, taken in enumerate(own[::2]):
        path = tmp_path / "other" / taken["class_name"] / f"{number}.bmp"
        path.parent.mkdir(parents=True)
        Image.open(taken["image"]).save(path)
    other, _ = scan(tmp_path / "other", find_duplicates=False)
    records = [{**r, "role": "shots"} for r in own] + [{**r, "role": "external"} for r in other]
    with pytest.raises(ValueError, match="same pixels stand on two sides of the split.*; 2 such cases in all"):
        check_wall(records)


def test_records_of_earlier_versions_do_not_say_what_their_pixels_are():
    check_wall([record("x"), record("y", "test"), record("z", "external", pixels="p")])


def test_what_is_no_datalist_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no datalist"):
        load_datalist(tmp_path / "gone.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ValueError, match="is no datalist: it needs the key 'training'"):
        load_datalist(tmp_path / "list.json")
    (tmp_path / "list.json").write_text('{"training": []}')
    with pytest.raises(ValueError, match="is no datalist of this program"):
        load_datalist(tmp_path / "list.json")
    (tmp_path / "torn.json").write_text('{"class_names": [')
    with pytest.raises(ValueError, match="torn.json is not a JSON file"):
        load_datalist(tmp_path / "torn.json")


def test_a_datalist_that_was_edited_by_hand_is_refused(tmp_path):
    path = tmp_path / "datalist.json"
    records = [record("a"), record("b", "test")]
    save_datalist(path, records, ["a"], "/data")
    assert len(load_datalist(path)) == 2
    content = json.loads(path.read_text())
    content["training"].append({**content["test"].pop(), "role": "shots"})  # a test image trains
    path.write_text(json.dumps(content))
    for read in (load_datalist, class_names_of):
        with pytest.raises(ValueError, match="was changed by hand since it was written"):
            read(path)
    del content["digest"]  # a datalist of somebody's own
    path.write_text(json.dumps(content))
    assert len(load_datalist(path)) == 2
