"""Settings of the main job on a random miniature base and small images."""

import pytest

from tests.bundles.running import SMALL


@pytest.fixture
def settings(miniature, image_folder, tmp_path):
    folder = image_folder({"benign": 20, "malignant": 20})
    return {
        **SMALL,
        "max_steps": 3,
        "classifier_steps": 3,
        "dataset_dir": str(folder),
        "output_dir": str(tmp_path / "out"),
        "model_path": str(tmp_path / "models" / "model.pt"),
        "base_model": str(miniature()),
        "device": "cpu",
    }
