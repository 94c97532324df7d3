"""Phantoms: drawn histology tiles and blood cells, for trying out, testing and training the embedded models."""

from .catalog import (
    CLASS_PHRASES,
    PHANTOM_SETS,
    draw_phantom,
    phantom_caption,
    write_phantoms,
)
from .optics import Patient, draw_patient, render

__all__ = [
    "CLASS_PHRASES",
    "PHANTOM_SETS",
    "Patient",
    "draw_patient",
    "draw_phantom",
    "phantom_caption",
    "render",
    "write_phantoms",
]
