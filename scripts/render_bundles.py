"""Writes the shipped bundles anew from the template; run it after a change of `monai_synth/templates/bundle`.

python scripts/render_bundles.py
"""

from pathlib import Path

from monai_synth.bundle.rendering import SHIPPED, rendered
from monai_synth.utils import write_text

ROOT = Path(__file__).resolve().parents[1]

for name, spec in SHIPPED.items():
    for path, text in rendered(spec).items():
        write_text(ROOT / "bundles" / name / path, text)
    write_text(ROOT / "bundles" / name / "models" / ".gitkeep", "")
