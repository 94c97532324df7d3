"""Pages that hold all they show: pictures within, no script, no remote address."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from ..data.images import read_image
from ..utils.io import write_text

TEMPLATES = Path(__file__).resolve().parents[1] / "templates" / "report"
THUMBNAIL = 112  # pixels


def write_page(path: Path, template: str, content: Mapping[str, Any]) -> Path:
    """Writes a page from one of our templates, every text escaped, and gives its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number
    environment.tests["begins"] = str.startswith
    write_text(path, environment.get_template(template).render(**content))
    return path


def number(value: Any, digits: int = 3, sign: bool = False) -> str:
    """A number for the eye, a dash for None."""
    if value is None:
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def embedded(path: Path) -> str:
    """A picture file as a data address."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def thumbnail(path: str | Path) -> str:
    """An image, as the engines see it, as a small data address, without any metadata of the file.

    Raises:
        FileNotFoundError, ValueError: as `read_image`.
    """
    small = Image.fromarray(np.round(read_image(path).transpose(1, 2, 0) * 255).astype(np.uint8))
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def thumbnails(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The pictures of `samples_of` with their seeds, by class."""
    return {
        name: [{"picture": thumbnail(row["image"]), "seed": row["seed"]} for row in rows]
        for name, rows in samples.items()
    }
