import ast
import subprocess
import sys
from pathlib import Path

import pytest

import monai_synth


@pytest.mark.parametrize(
    "code",
    [
        "import monai_synth",
        "from monai_synth.data import check; check(sys.argv[1])",
        "from monai_synth.__main__ import main; main(['check', sys.argv[1], '--json'])",
    ],
)
def test_importing_and_checking_are_light(code, image_folder):
    code = f"import sys; {code}; print([name for name in ('torch', 'monai', 'diffusers') if name in sys.modules])"
    call = [sys.executable, "-c", code, str(image_folder({"a": 2, "b": 2}))]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == "[]"


def test_importing_takes_less_than_two_seconds_of_the_processor():
    code = "import time; start = time.process_time(); import monai_synth; print(time.process_time() - start)"
    took = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert took < 2


@pytest.mark.parametrize("part", [monai_synth.data, monai_synth.utils])
def test_all_names_of_a_lazy_part_are_there(part):
    found = {name: getattr(part, name) for name in part.__all__}
    assert all(callable(value) or isinstance(value, tuple) for value in found.values()) and len(found) > 15


def test_texts_are_written_and_read_in_one_encoding_on_every_system():
    for path in Path(monai_synth.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "open":
                binary = len(call.args) > 1 and "b" in ast.literal_eval(call.args[1])
                assert binary or "encoding" in {word.arg for word in call.keywords}, f"{path}:{call.lineno}"


def test_parts_are_found_and_others_are_not():
    assert monai_synth.utils.derived_seed(1) > 0
    with pytest.raises(AttributeError, match="attribute nothing"):
        monai_synth.nothing
