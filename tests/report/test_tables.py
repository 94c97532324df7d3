import numpy as np
import pytest
from PIL import Image

from monai_synth.report import draw_confusion, draw_real_and_synthetic, results_table
from monai_synth.utils import write_json

NUMBERS = {
    "balanced_accuracy": 0.5,
    "macro_f1": 0.25,
    "auroc": None,
    "accuracy": 0.75,
    "num_images": 8,
    "majority_share": 0.5,
}


def test_a_line_for_each_arm(tmp_path):
    write_json(tmp_path / "a" / "metrics.json", NUMBERS)
    table = results_table({"real": tmp_path / "a"})
    assert table.splitlines()[2].split() == ["real", "0.500", "0.250", "-", "0.750"]
    assert "8 real test images" in table and "0.500 of them" in table
    with pytest.raises(FileNotFoundError, match="The arm 'b' has not been evaluated"):
        results_table({"b": tmp_path / "b"})


def test_pictures_show_what_they_are_given(tmp_path, image_folder):
    draw_confusion([[5, 0], [1, 4]], ["<a>", "b"], tmp_path / "confusion.png")
    assert np.asarray(Image.open(tmp_path / "confusion.png")).std() > 10
    folder = image_folder({"a": 2, "b": 2})
    records = [{"image": str(path), "class_name": path.parent.name} for path in sorted(folder.rglob("*.png"))]
    draw_real_and_synthetic(records, records[:2], ["a", "b"], tmp_path / "rows.png")
    full = np.asarray(Image.open(tmp_path / "rows.png"))
    draw_real_and_synthetic(records, [], ["a", "b"], tmp_path / "rows.png")
    assert (full < 250).sum() > (np.asarray(Image.open(tmp_path / "rows.png")) < 250).sum()
