"""Which real images judge the synthetic ones."""

from types import SimpleNamespace

import pytest
from monai.bundle import ConfigParser

from monai_synth.bundle import assessment
from monai_synth.bundle.assessment import assess, strange_to
from monai_synth.utils import write_json


def of(group, class_name="benign"):
    return {"image": f"{group}.png", "group": group, "class_name": class_name}


def test_images_of_the_shots_patients_do_not_judge():
    references = [of(f"p{number}") for number in range(6) for _ in range(3)]
    kept, notes = strange_to([of("p0"), of("p1", "malignant")], references)  # whatever the class of the shot
    assert {record["group"] for record in kept} == {"p2", "p3", "p4", "p5"} and len(kept) == 12
    assert not notes


@pytest.mark.parametrize("role", ["test", "external"])
def test_images_that_judge_the_classifier_judge_nothing_before(tmp_path, monkeypatch, role):
    write_json(tmp_path / "datalist.json", {"class_names": ["benign"], "training": []})
    parser = ConfigParser({"datalist_path": str(tmp_path / "datalist.json"), "reference_roles": ["val"]})
    monkeypatch.setattr(assessment, "required_workflow", lambda caller: SimpleNamespace(parser=parser))
    with pytest.raises(ValueError, match="Test images judge the classifier at the end and nothing before"):
        assess(SimpleNamespace(read=lambda: None), [{**of("p0"), "role": role}])


def test_a_class_without_enough_other_patients_keeps_them_and_says_so():
    references = [of(f"p{number}", name) for number in range(6) for name in ("benign", "malignant") for _ in range(2)]
    references += [of("p6"), of("p7")]
    shots = [of("p0"), of("p1"), of("p2", "malignant")]
    kept, notes = strange_to(shots, references)
    by_class = {name: {r["group"] for r in kept if r["class_name"] == name} for name in ("benign", "malignant")}
    assert by_class == {"benign": {"p3", "p4", "p5", "p6", "p7"}, "malignant": {f"p{number}" for number in range(6)}}
    assert len(notes) == 1 and notes[0].startswith("malignant: 3 real groups have no shot, and 4 are needed. So the 6 ")
    assert strange_to([], references)[0] == sorted(references, key=lambda record: record["class_name"])
