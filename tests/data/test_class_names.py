import pytest

from monai_synth.data import check
from monai_synth.data.class_names import unfit_class_names


@pytest.mark.parametrize("name", ["../a", "a/b", "a\\b", "a\0b", "..", ".a", "", " "])
def test_a_name_that_no_folder_has_is_unfit(name):
    assert list(unfit_class_names([name, "a", "b.c"])) == [name]


@pytest.mark.parametrize("names", [("Colon", "colon"), ("\u00e4", "a\u0308")], ids=["case", "Unicode form"])
def test_names_that_a_file_system_may_take_for_one_are_unfit(names):
    found = unfit_class_names([*names, "b"])
    assert list(found) == list(names) and str([names[1]]) in found[names[0]]


def test_an_unfit_class_name_is_told_before_anything_is_trained(image_folder):
    folder = image_folder({"a": 1, "b": 1})
    (folder / "list.csv").write_text("image,label\na/a_000.png,HSIL/ASC-H\nb/b_000.png,b\n")
    found = [finding for finding in check(folder / "list.csv") if finding.level == "error"]
    assert [finding.path for finding in found] == ["HSIL/ASC-H"] and "cannot be the name" in found[0].message
