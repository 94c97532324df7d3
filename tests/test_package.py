import subprocess
import sys

import pytest

import monai_synth


def test_importing_is_light():
    code = "import sys, monai_synth; print([name for name in ('torch', 'monai', 'diffusers') if name in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_parts_are_found_and_others_are_not():
    assert monai_synth.utils.derived_seed(1) > 0
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        monai_synth.nothing
