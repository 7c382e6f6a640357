"""Label maps as image formats without slices hold them: one regular grid, first axis fastest."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from effvit_med.volume.geometry import Geometry
from effvit_med.volume.segmentation import Segmentation

_UNSEEN_SHEAR = 0.05  # of a voxel, at the corners


def as_stored(array: npt.NDArray[Any], segmentation: Segmentation) -> tuple[npt.NDArray[Any], Geometry]:
    """An array on the grid of a segmentation in the axis order of its file, and the grid in that order.

    Labels of a DICOM series have the order that image programs give such a series: column, row, slice.

    Args:
        array: of the shape of the labels.
        segmentation: whose grid it has.
    """
    source = segmentation.provenance.source
    if source is None or source.kind != "DICOM":
        return array, segmentation.geometry
    return array.transpose(2, 1, 0), segmentation.geometry.permuted((2, 1, 0))


def square_up(geometry: Geometry) -> Geometry:
    """The grid without a shear that nobody can see: below a twentieth of a voxel it is rounding in headers.

    Programs built on ITK refuse grids that are not square.

    Args:
        geometry: a regular grid.
    """
    square = geometry.without_shear()
    return square if square.max_distance_mm(geometry) < _UNSEEN_SHEAR * min(geometry.spacing_mm) else geometry
