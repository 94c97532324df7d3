"""Image files as (3, H, W) float32 in [0, 1], whatever they were."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image, ImageOps

from .folders import visible_files
from .synthetic_image import carries_mark

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".nii", ".nii.gz")
MAX_PIXELS = 50_000_000
DEPTHS = {"I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I": None, "F": None}


def is_image_name(path: str | Path) -> bool:
    """Whether a file's name ends like an image that can be read."""
    return str(path).lower().endswith(SUFFIXES)


def is_nifti_name(path: str | Path) -> bool:
    """Whether a file's name ends like a NIfTI image."""
    return str(path).lower().endswith((".nii", ".nii.gz"))


def read_image(path: str | Path, page: int | None = None, value_range: tuple[float, float] | None = None) -> np.ndarray:
    """An image file as an array, the right way up and in RGB.

    CMYK, palette, grey, 1-bit and transparent images (over white) become RGB; EXIF orientation is applied; 16-bit grey
    is scaled by the full 16-bit range unless a range is given.

    Args:
        path: PNG, JPEG, TIFF, BMP, WebP or NIfTI.
        page: which page of a file that has several, counted from 0.
        value_range: lowest and highest value of a file whose own range is not known (float or 32-bit).

    Returns:
        Shape (3, H, W), float32 in [0, 1].

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when the file is no image, is larger than 50 megapixels, has several pages and none is named, or has
            values whose range is not known.
    """
    path = Path(path)
    if is_nifti_name(path):
        return _read_nifti(path, value_range)
    image = open_image(path, page)
    with faults_named(path):
        return _to_array(path, image, value_range)


def open_image(path: str | Path, page: int | None = None) -> Image.Image:
    """An image file other than NIfTI as Pillow loads it, the right way up; errors as those of `read_image`."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no image {path}.")
    with faults_named(path), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            _check_size(path, *image.size)
            pages = getattr(image, "n_frames", 1)
            if pages > 1 and page is None:
                raise ValueError(f"{path} has {pages} pages. Name one (page=0 is the first), or save it alone.")
            if page is not None:
                _turn_to(path, image, page)
            image.load()
            return ImageOps.exif_transpose(image)


@contextmanager
def faults_named(path: str | Path) -> Iterator[None]:
    """Makes a ValueError that names the file of whatever is raised within for a file that is damaged.

    Pillow raises errors of any kind for damage, as SyntaxError, TypeError or struct.error, and none names the file.
    Errors that begin with the path, which are ours, stay as they are, and so does a lack of memory.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path} is not an image that can be read: {error}.") from error


def look_at(path: str | Path) -> tuple[str, int, bool]:
    """The SHA-256 of an image's pixels, 64 hexadecimal digits, its smaller side in pixels, and whether it is synthetic.

    Two files have the same digest when `read_image` gives the same pixels of 8 bits for both.

    Raises:
        FileNotFoundError, ValueError: as `read_image`.
    """
    if not is_nifti_name(path):
        image = open_image(path)
        with faults_named(path):
            pixels, is_synthetic = to_rgb(image, path), carries_mark(image)
        content = hashlib.sha256(f"{pixels.height} {pixels.width} ".encode() + pixels.tobytes())
        return content.hexdigest(), min(pixels.size), is_synthetic
    values = (read_image(path).transpose(1, 2, 0) * 255).round().astype(np.uint8)
    content = hashlib.sha256(f"{values.shape[0]} {values.shape[1]} ".encode() + values.tobytes())
    return content.hexdigest(), min(values.shape[:2]), False


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{path} has {width} x {height} pixels, more than {MAX_PIXELS // 10**6} megapixels. "
            "Is it a whole slide? Cut it into tiles first."
        )


def _turn_to(path: Path, image: Image.Image, page: int) -> None:
    try:
        image.seek(page)
    except EOFError as error:
        raise ValueError(f"{path} has no page {page}.") from error


def _to_array(path: Path, image: Image.Image, value_range: tuple[float, float] | None) -> np.ndarray:
    if image.mode in DEPTHS:
        return _scaled_grey(path, np.asarray(image, dtype=np.float64), value_range, DEPTHS[image.mode])
    pixels = np.asarray(to_rgb(image, path), dtype=np.float32) / 255
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def to_rgb(image: Image.Image, path: str | Path | None = None) -> Image.Image:
    """A Pillow image as RGB of 8 bits: the right way up, what is transparent over white, 16-bit grey scaled.

    Args:
        image: as Pillow opens it.
        path: of its file, for the error; None takes what Pillow says, which a copy has forgotten.

    Raises:
        ValueError: for 32-bit and float images, whose range is not known; names the file where it is known.
    """
    name = path or getattr(image, "filename", "")
    image = ImageOps.exif_transpose(image) if image.getexif() else image
    if image.mode in DEPTHS:
        grey = _scaled_grey(name or "The image", np.asarray(image, dtype=np.float64), None, DEPTHS[image.mode])
        return Image.fromarray((grey * 255).round().astype(np.uint8).transpose(1, 2, 0))
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return image.convert("RGB")


def _scaled_grey(
    path: str | Path, pixels: np.ndarray, value_range: tuple[float, float] | None, full: float | None
) -> np.ndarray:
    if value_range is None and full is None:
        raise ValueError(
            f"{path} holds {pixels.min():g} to {pixels.max():g}, and what is black and white is not known. "
            "Give value_range=(black, white), or save it with 8 bits."
        )
    low, high = value_range or (0.0, float(full or 1.0))
    grey = np.clip((pixels - low) / (high - low), 0, 1).astype(np.float32)
    return np.repeat(grey[None], 3, axis=0)


def _read_nifti(path: Path, value_range: tuple[float, float] | None) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"There is no image {path}.")
    try:
        loaded: Any = nibabel.load(path)
        pixels = np.asanyarray(loaded.dataobj)
    except Exception as error:
        raise ValueError(f"{path} is not a NIfTI image that can be read: {error}.") from error
    if pixels.dtype.names:  # RGB stored as a structure
        pixels = np.stack([pixels[name] for name in pixels.dtype.names[:3]], axis=-1)
    pixels = np.squeeze(pixels)
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[-1] != 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=-1)
    if pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ValueError(f"{path} has the shape {pixels.shape}. A NIfTI image here is (X, Y), (X, Y, 3) or (3, X, Y).")
    _check_size(path, *pixels.shape[:2])
    if value_range is None and pixels.dtype != np.uint8 and not 0 <= pixels.min() <= pixels.max() <= 1:
        raise ValueError(
            f"{path} holds {pixels.min():g} to {pixels.max():g} as {pixels.dtype}. Give value_range=(black, white)."
        )
    low, high = value_range or ((0.0, 255.0) if pixels.dtype == np.uint8 else (0.0, 1.0))
    scaled = np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1).astype(np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 1, 0))  # NIfTI counts X first


def list_images(folder: str | Path) -> list[dict[str, str]]:
    """A record {image, image_path} for every image below a folder, sorted, or for the one file that is named.

    What is hidden is left out, as `scan` does, unless it is what is named.

    Raises:
        FileNotFoundError: when there is no such folder or no image in it.
    """
    folder = Path(folder)
    found = (Path(root, name) for root, _, files in visible_files(folder) for name in files if is_image_name(name))
    paths = [folder] if folder.is_file() else sorted(path for path in found if path.is_file())
    if not paths:
        raise FileNotFoundError(f"There are no images in {folder}. Name a folder of images with --dataset_dir.")
    return [{"image": str(path), "image_path": str(path)} for path in paths]
