"""Small Siemens mosaics: slices as tiles of one image, with the private header that says where they lie."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from tests.io.dicom_cases import SPACING, make_slice, pixels


def encode_csa(values: dict[str, Sequence[str]]) -> bytes:
    """A private image header (CSA2) with these elements."""
    parts = [b"SV10\4\3\2\1", struct.pack("<II", len(values), 77)]
    for name, items in values.items():
        parts.append(struct.pack("<64si4siii", name.encode(), len(items), b"FD", 4, len(items), 77))
        for item in items:
            content = item.encode() + b"\0"
            parts.append(struct.pack("<4i", len(content), len(content), 77, len(content)))
            parts.append(content + bytes(-len(content) % 4))
    return b"".join(parts)


def make_mosaic(
    first: Sequence[float], orientation: Sequence[float], normal: Sequence[float], count: int = 5, step_mm: float = 3.0
) -> Dataset:
    """A mosaic of slices ``pixels(0)``, ``pixels(1)``, ... of which the first begins at ``first``."""
    side = int(np.ceil(np.sqrt(count)))
    rows, columns = pixels(0).shape
    image = np.zeros((side * rows, side * columns), np.int16)
    for tile in range(count):
        down, along = divmod(tile, side)
        image[down * rows : (down + 1) * rows, along * columns : (along + 1) * columns] = pixels(tile)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    corner = np.array(first) - row * SPACING[1] * columns * (side - 1) / 2 - column * SPACING[0] * rows * (side - 1) / 2
    dataset = make_slice(0, corner, orientation)
    dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    dataset.Rows, dataset.Columns = image.shape
    dataset.PixelData = image.tobytes()
    dataset.SpacingBetweenSlices = step_mm
    dataset.add_new(Tag(0x00290010), "LO", "SIEMENS CSA HEADER")
    header = {"NumberOfImagesInMosaic": [str(count)], "SliceNormalVector": [f"{value:.8f}" for value in normal]}
    dataset.add_new(Tag(0x00291010), "OB", encode_csa(header))
    return dataset
