"""Uncompressed pixels of plain files, taken from their bytes without a copy; what is less plain is left to pydicom."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from effvit_med.io.dicom_elements import PARSE_ERRORS, Elements
from effvit_med.io.dicom_extents import find_extent, find_syntax

_PIXEL_DATA = 0x7FE00010


def read_native(content: bytes, tags: list[Any]) -> tuple[pydicom.Dataset, npt.NDArray[Any]] | None:
    """The header and the stored values of one image in little-endian bytes.

    Args:
        content: a whole file.
        tags: the elements to take from its header; those of the image pixel module among them.

    Returns:
        The header, and (rows, columns) stored values of the bits that are stored, signed as the header says; None for
        a file that is not one grey little-endian image of 8 or 16 bits with all its bytes.

    Source:
        DICOM PS3.5 section 8.1.1 (pixel cells: Bits Allocated, Bits Stored, High Bit; other bits may hold overlays).
    """
    file = io.BytesIO(content)
    try:
        dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=tags)
        if find_syntax(dataset) not in (ImplicitVRLittleEndian, ExplicitVRLittleEndian):
            return None
        extent = find_extent(file, dataset)
    except PARSE_ERRORS:
        return None
    elements = Elements(dataset)
    rows, columns, bits, stored = (
        elements.whole(name) or 0 for name in ("Rows", "Columns", "BitsAllocated", "BitsStored")
    )
    plain = elements.whole("SamplesPerPixel") in {1, None} and (elements.whole("NumberOfFrames") or 1) == 1
    if extent is None or extent.tag != _PIXEL_DATA or not plain or bits not in {8, 16} or not 1 <= stored <= bits:
        return None
    needed = rows * columns * bits // 8
    if not needed <= extent.length <= len(content) - extent.start:
        return None
    kind = np.dtype(f"<{'i' if elements.whole('PixelRepresentation') == 1 else 'u'}{bits // 8}")
    values = np.frombuffer(content, kind, rows * columns, extent.start).reshape(rows, columns)
    high = elements.whole("HighBit")
    above = bits - 1 - (high if high is not None and stored - 1 <= high < bits else stored - 1)
    if stored < bits:
        values = np.right_shift(np.left_shift(values, above), bits - stored)
    return dataset, values
