"""Image files that say of themselves that they are synthetic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..utils.io import atomic_path

if TYPE_CHECKING:  # reading a data set needs no torch, whose import takes long
    from torch import Tensor

FORMATS = ("png", "webp")
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"
    '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def write_synthetic_image(path: str | Path, image: Tensor) -> None:
    """Writes an image without loss, with the mark of algorithmic media and nothing else beside its pixels.

    Args:
        path: where to, ending in .png or .webp; written whole or not at all.
        image: shape (3, H, W), in [0, 1].

    Raises:
        ValueError: for another ending.

    Reference:
        IPTC, "Digital Source Type" vocabulary; the mark is XMP Iptc4xmpExt:DigitalSourceType.
    """
    pixels = (image.detach().cpu().float().clamp(0, 1) * 255 + 0.5).numpy().astype(np.uint8).transpose(1, 2, 0)
    suffix = Path(path).suffix.removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"{path} is not one of {', '.join(FORMATS)}, which keep every pixel.")
    options: dict[str, Any] = {"lossless": True, "exact": True, "quality": 0, "method": 0, "xmp": XMP.encode()}
    if suffix == "png":
        mark = PngInfo()
        mark.add_itxt("XML:com.adobe.xmp", XMP)
        options = {"compress_level": 1, "pnginfo": mark}
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format=suffix.upper(), **options)


def is_marked_synthetic(path: str | Path) -> bool:
    """Whether a file carries the mark that `write_synthetic_image` leaves."""
    with Image.open(path) as image:
        return carries_mark(image)


def carries_mark(image: Image.Image) -> bool:
    """Whether a Pillow image was read from a file that carries the mark."""
    return SOURCE_TYPE.encode() in (image.info.get("xmp") or b"")
