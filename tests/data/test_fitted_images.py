import pytest

from monai_synth.data.fitted_images import check_fitted_images, judges_among_fitted, write_fitted_images
from monai_synth.utils import read_json


def record(number, role, group):
    return {"image": f"{number}.png", "sha256": f"{number:064x}", "role": role, "group": group}


RECORDS = [record(0, "shots", "p0"), record(1, "shots", "p1"), record(2, "train", "p1"), record(3, "test", "p2")]


@pytest.fixture
def note(tmp_path):
    write_fitted_images(tmp_path, RECORDS[:2], RECORDS)
    return read_json(tmp_path / "fitted_on.json")


def found(note, *records):
    return [record["image"] for record in judges_among_fitted(note, records)]


def test_the_split_that_was_drawn_for_is_free(note):
    assert found(note, *RECORDS) == []


@pytest.mark.parametrize("role", ["val", "test", "external"])
def test_a_learned_image_and_its_siblings_judge_nothing(note, role):
    assert found(note, record(0, role, "x"), record(2, role, "y"), record(3, role, "p2")) == ["0.png", "2.png"]
    assert found(note, record(0, "train", "x"), record(2, "shots", "y")) == []


def test_a_learned_patient_judges_nothing_where_data_sets_share_images(note):
    new = record(9, "test", "p0")
    assert found(note, record(1, "train", "p1"), new) == ["9.png"]
    assert found(note, record(8, "train", "p1"), new) == []  # another data set with the same names
    external = record(9, "external", "external/p0")
    assert found(note, record(1, "train", "p1"), external) == []
    assert found(note, record(3, "external", "external/p2"), record(1, "external", "external/p1"), external) == [
        "1.png",
        "9.png",
    ]


def test_a_learned_image_that_was_saved_anew_judges_nothing(tmp_path):
    shots = [{**RECORDS[0], "pixels": "a" * 64}, RECORDS[1]]  # the second of an earlier version
    write_fitted_images(tmp_path, shots, [*shots, *RECORDS[2:]])
    note = read_json(tmp_path / "fitted_on.json")
    again = {**record(9, "external", "external/p0"), "pixels": "a" * 64}
    sibling = record(8, "external", "external/p0")
    assert note["pixels"] == ["a" * 64] and found(note, again, sibling) == ["9.png", "8.png"]
    del note["pixels"]  # as earlier versions wrote it
    assert found(note, again, sibling) == []


def test_the_overlap_is_told_and_a_missing_note_is_no_answer(note, tmp_path):
    judges = [record(0, "val", "x"), record(1, "test", "x"), record(2, "test", "x")]
    check_fitted_images(tmp_path / "datalist.json", RECORDS)
    with pytest.raises(ValueError, match=r"3 real images that judge here \(1 val, 2 test\).*the first is 0.png"):
        check_fitted_images(tmp_path / "datalist.json", judges)
    check_fitted_images(tmp_path / "elsewhere" / "datalist.json", judges)  # nothing is known of them
    write_fitted_images(tmp_path, [], RECORDS)  # the base alone
    check_fitted_images(tmp_path / "datalist.json", judges)


def test_the_note_holds_no_names(note):
    assert len(note["images"]) == 3 and all(len(value) == 64 for values in note.values() for value in values)
