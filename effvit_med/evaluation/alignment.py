"""A segmentation on the reference's own grid, where only the order of axes or empty slices stand between them."""

from __future__ import annotations

import numpy as np

from effvit_med.errors import GeometryError
from effvit_med.volume import Geometry, Segmentation

SAME_PLACE_MM = 0.1
"""How far voxels of a segmentation and of its reference may lie apart."""


def place_on(found: Segmentation, reference: Geometry, *, sparse: bool = False) -> Segmentation:
    """The labels in the axis order of a reference whose voxels they share; nothing is resampled.

    Args:
        found: the labels.
        reference: where they shall lie.
        sparse: whether slices on which nothing is labelled may be missing, as in a DICOM SEG; they are filled in.

    Raises:
        GeometryError: if a voxel lies more than 0.1 mm away from one of the reference's, or the sizes differ.
    """
    turned = found.reoriented(reference.orientation)
    distance_mm = reference.max_distance_mm(turned.geometry)
    if distance_mm <= SAME_PLACE_MM:
        return turned
    filled = _fill_in(turned, reference) if sparse else None
    if filled is None:
        raise GeometryError(
            f"Segmentation {turned.geometry.shape} and reference {reference.shape} lie up to {distance_mm:.3g} mm "
            "apart; score on the grid that the reference was drawn on."
        )
    return filled


def _fill_in(found: Segmentation, reference: Geometry) -> Segmentation | None:
    """The labels among empty slices; None if their slices are no slices of the reference."""
    axis, shape = reference.slice_axis, found.geometry.shape
    if any(shape[other] != reference.shape[other] for other in range(3) if other != axis):
        return None
    corners = np.array([[0, 0, 0], np.subtract(shape, 1)])
    corners[:, axis] = 0
    steps = np.zeros((shape[axis], 1, 3))
    steps[:, 0, axis] = np.arange(shape[axis])
    theirs = reference.world_to_index(found.geometry.index_to_world(corners + steps))
    ours = np.rint(theirs)
    slices = ours[:, 0, axis].astype(int)
    expected = np.broadcast_to(corners, ours.shape).copy()
    expected[..., axis] = ours[..., axis]
    away_mm = np.abs(theirs - expected) * reference.spacing_mm
    if away_mm.max() > SAME_PLACE_MM or slices.min() < 0 or slices.max() >= reference.shape[axis]:
        return None
    labels = np.zeros(reference.shape, found.labels.dtype)
    np.moveaxis(labels, axis, 0)[slices] = np.moveaxis(found.labels, axis, 0)
    return Segmentation(labels, reference, found.table, found.provenance)
