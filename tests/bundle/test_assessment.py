"""Which real images judge the synthetic ones."""

from monai_synth.bundle.assessment import strange_to


def of(group, class_name="benign"):
    return {"image": f"{group}.png", "group": group, "class_name": class_name}


def test_images_of_the_shots_patients_do_not_judge():
    references = [of(f"p{number}") for number in range(6) for _ in range(3)]
    kept, notes = strange_to([of("p0"), of("p1", "malignant")], references)  # whatever the class of the shot
    assert {record["group"] for record in kept} == {"p2", "p3", "p4", "p5"} and len(kept) == 12
    assert not notes


def test_a_class_without_enough_other_patients_keeps_them_and_says_so():
    references = [of(f"p{number}", name) for number in range(6) for name in ("benign", "malignant") for _ in range(2)]
    references += [of("p6"), of("p7")]
    shots = [of("p0"), of("p1"), of("p2", "malignant")]
    kept, notes = strange_to(shots, references)
    by_class = {name: {r["group"] for r in kept if r["class_name"] == name} for name in ("benign", "malignant")}
    assert by_class == {"benign": {"p3", "p4", "p5", "p6", "p7"}, "malignant": {f"p{number}" for number in range(6)}}
    assert len(notes) == 1 and notes[0].startswith("malignant: 3 real groups have no shot, and 4 are needed. So the 6 ")
    assert strange_to([], references)[0] == sorted(references, key=lambda record: record["class_name"])
