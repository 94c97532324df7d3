"""Which adapter drew the images of a folder."""

import json

import pytest

from monai_synth.bundle.pool import compare_drawn
from monai_synth.networks.adapter_files import ADAPTER_FILE
from monai_synth.utils import sha256_of


def adapter(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ADAPTER_FILE).write_bytes(content)
    return sha256_of(folder / ADAPTER_FILE)


def drawn(folder, notes, journal="journal.jsonl"):
    """A journal and its images, one of each class, with what is noted of the adapter."""
    lines = []
    for class_name, noted in notes.items():
        image = folder / class_name / f"{class_name}_000000.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(class_name.encode())
        record = {"image": str(image.relative_to(folder)), "class_name": class_name, "sha256": sha256_of(image)}
        lines.append(json.dumps({**record, **noted}) + "\n")
    (folder / journal).write_text("".join(lines))


def test_an_image_of_another_adapter_is_refused_unless_it_was_lost_or_drawn_again(tmp_path):
    old = adapter(tmp_path / "adapter", b"old")
    drawn(tmp_path / "pool", {"a": {"adapter": old}})
    compare_drawn(tmp_path / "pool", lambda name: tmp_path / "adapter")
    now = adapter(tmp_path / "adapter", b"new")
    words = f"a_000000.png was drawn with an adapter of the SHA-256 {old}, but .*{ADAPTER_FILE} has {now}.*Put the old"
    with pytest.raises(ValueError, match=words):
        compare_drawn(tmp_path / "pool", lambda name: tmp_path / "adapter")
    for content in (b"another image", None):
        image = tmp_path / "pool" / "a" / "a_000000.png"
        image.write_bytes(content) if content else image.unlink()
        compare_drawn(tmp_path / "pool", lambda name: tmp_path / "adapter")


def test_each_class_is_compared_with_its_own_adapter_and_the_base_with_none(tmp_path):
    notes = {name: {"adapter": adapter(tmp_path / "adapter" / name, name.encode())} for name in ("a", "b")}
    drawn(tmp_path / "pool", notes, "journal.1.jsonl")
    compare_drawn(tmp_path / "pool", lambda name: tmp_path / "adapter" / name)
    adapter(tmp_path / "adapter" / "b", b"new")
    with pytest.raises(ValueError, match="b_000000.png was drawn with an adapter"):
        compare_drawn(tmp_path / "pool", lambda name: tmp_path / "adapter" / name)
    drawn(tmp_path / "base", {"a": {"adapter": "none"}})
    compare_drawn(tmp_path / "base", lambda name: None)


def test_images_of_which_no_adapter_is_noted_are_taken_on_trust_and_that_is_said(tmp_path, caplog):
    drawn(tmp_path, {"a": {}, "b": {}})
    compare_drawn(tmp_path, lambda name: None)
    assert "Of 2 images in" in caplog.text and "taken on trust" in caplog.text
