"""Siemens mosaics: the slices of a volume as tiles of one image."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from effvit_med.io.dicom_elements import PARSE_ERRORS, Elements
from effvit_med.io.dicom_header import Header

_CREATOR, _IMAGE_HEADER = 0x00290010, 0x00291010
_TAGS = [_CREATOR, _IMAGE_HEADER, 0x00190010, 0x0019100A, 0x00180088]
_PARALLEL = 1e-3  # squared sine of the angle between the two normals
_MAX_TILES = 1024


@dataclass(frozen=True)
class Tiling:
    """How the slices lie in a mosaic: row by row, from the top left.

    Attributes:
        count: how many slices there are; the rest of the square is empty.
        side: how many tiles lie along a row and along a column.
    """

    count: int
    side: int

    def cut(self, image: npt.NDArray[Any], tile: int) -> npt.NDArray[Any]:
        """One slice, numbered from 1, of a mosaic.

        Raises:
            ValueError: if the image has no such tile.
        """
        rows, columns = image.shape[0] // self.side, image.shape[1] // self.side
        if not 1 <= tile <= self.count or image.shape != (rows * self.side, columns * self.side):
            raise ValueError(f"a mosaic of {image.shape} pixels has no tile {tile}")
        down, along = divmod(tile - 1, self.side)
        return image[down * rows : (down + 1) * rows, along * columns : (along + 1) * columns]


def find_tiling(elements: Elements) -> Tiling | None:
    """How many tiles the private elements of a mosaic say it has; None where they do not say it believably."""
    header = _read_csa(elements)
    counts = {int(count) for count in _items(header, "NumberOfImagesInMosaic")[:1]}
    public = elements.whole(0x0019100A)
    counts |= {public} if public else set()
    if len(counts) != 1:
        return None
    count = counts.pop()
    return Tiling(count, math.ceil(math.sqrt(count))) if 1 < count <= _MAX_TILES else None


def read_tiling(path: Path) -> tuple[Elements, Tiling] | None:
    """The private elements of a mosaic, and how its slices lie in it; None where they do not say it believably."""
    elements = Elements(pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=_TAGS))
    tiling = find_tiling(elements)
    return (elements, tiling) if tiling else None


def split_mosaic(header: Header) -> tuple[Header, ...]:
    """One header per slice of a mosaic, with the tile's number, counted down from -1, as its frame.

    The position in a mosaic's header is that of an image of the mosaic's size about the same centre, so the first
    slice begins half the difference in size farther in. From there the slices follow along the normal that the
    scanner's private header gives, which may be against the cross product of row and column direction.

    Args:
        header: of a mosaic.

    Returns:
        The headers of its slices; the mosaic's alone where anything is missing or contradicts itself.

    Source:
        nibabel's documentation, "DICOM and Siemens mosaic"; checked against dcm2niix.
    """
    if header.position is None or header.orientation is None or header.pixel_spacing is None:
        return (header,)
    try:
        found = read_tiling(header.path)
        if found is None:
            return (header,)
        elements, tiling = found
        normal = np.array([float(value) for value in _items(_read_csa(elements), "SliceNormalVector")])
        step_mm = elements.numbers(0x00180088, 1)
    except PARSE_ERRORS:
        return (header,)
    row, column = np.array(header.orientation[:3]), np.array(header.orientation[3:])
    cross = np.cross(row, column)
    whole = header.rows % tiling.side == 0 and header.columns % tiling.side == 0
    if not whole or normal.shape != (3,) or not step_mm or step_mm[0] <= 0:
        return (header,)
    if abs(1 - float(normal @ cross) ** 2) > _PARALLEL or abs(1 - float(normal @ normal)) > _PARALLEL:
        return (header,)
    rows, columns = header.rows // tiling.side, header.columns // tiling.side
    between_rows, between_columns = header.pixel_spacing
    first = np.array(header.position) + row * between_columns * (header.columns - columns) / 2
    first = first + column * between_rows * (header.rows - rows) / 2
    step = cross * math.copysign(step_mm[0], float(normal @ cross))
    return tuple(
        replace(
            header,
            frame=-tile,
            frames=tiling.count,
            rows=rows,
            columns=columns,
            position=tuple((first + step * (tile - 1)).tolist()),
            instance_number=None if header.instance_number is None else header.instance_number * tiling.count + tile,
        )
        for tile in range(1, tiling.count + 1)
    )


def _read_csa(elements: Elements) -> dict[str, Any]:
    """The private image header of Siemens, an empty one where it is absent or damaged."""
    content = elements.values(_IMAGE_HEADER)
    if not content or not isinstance(content[0], bytes) or "SIEMENS CSA" not in elements.text(_CREATOR).upper():
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel warns that its DICOM part may change
        from nibabel.nicom import csareader
    try:
        return dict(csareader.read(content[0]).get("tags", {}))
    except (*PARSE_ERRORS, csareader.CSAReadError):
        return {}


def _items(header: dict[str, Any], name: str) -> list[Any]:
    return list(header.get(name, {}).get("items", []))
