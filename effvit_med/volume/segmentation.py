"""A label map with its place, its meaning and its history."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effvit_med.errors import GeometryError
from effvit_med.volume.geometry import Geometry
from effvit_med.volume.labels import LabelTable
from effvit_med.volume.provenance import Provenance


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels on the grid of the volume they were made from.

    Args:
        labels: (a0, a1, a2) uint8 or uint16; 0 is background, other values stand in ``table``.
        geometry: where the voxels lie; its shape is that of the labels.
        table: what the values mean.
        provenance: how the labels were made.

    Raises:
        GeometryError: if the shapes differ, the labels are not uint8 or uint16, or a value is not in the table.
    """

    labels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    geometry: Geometry
    table: LabelTable
    provenance: Provenance

    def __post_init__(self) -> None:
        if tuple(self.labels.shape) != self.geometry.shape:
            raise GeometryError(f"The labels have shape {self.labels.shape}, their geometry {self.geometry.shape}.")
        if self.labels.dtype not in (np.uint8, np.uint16):
            raise GeometryError(f"The labels have type {self.labels.dtype}; use uint8 or uint16.")
        known = {label.value for label in self.table}
        # slice by slice: counting a whole scan at once would need eight times its memory
        present = {int(value) for part in self.labels for value in np.flatnonzero(np.bincount(part.ravel()))}
        unknown = sorted(present - known - {0})
        if unknown:
            raise GeometryError(f"The label values {unknown} are not in the label table {sorted(known)}.")

    def with_provenance(self, provenance: Provenance) -> Segmentation:
        """The same labels, not checked again, with another record of how they were made."""
        changed = copy.copy(self)
        object.__setattr__(changed, "provenance", provenance)
        return changed
