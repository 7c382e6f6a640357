"""A label map with its place, its meaning and its history."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from effvit_med.errors import GeometryError
from effvit_med.volume.counts import find_values
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
        confidence: of the shape of the labels, or None: 255 * tanh(d / 2), where d is the difference of the two
            largest logits after interpolation to the voxel. 0 is a tie, 255 is certain. It says how clearly the
            network decided, not how often it is right.

    Raises:
        GeometryError: if the shapes differ, the labels are not uint8 or uint16, a value is not in the table, or the
            confidence is not uint8.
    """

    labels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    geometry: Geometry
    table: LabelTable
    provenance: Provenance
    confidence: npt.NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        if tuple(self.labels.shape) != self.geometry.shape:
            raise GeometryError(f"The labels have shape {self.labels.shape}, their geometry {self.geometry.shape}.")
        if self.labels.dtype not in (np.uint8, np.uint16):
            raise GeometryError(f"The labels have type {self.labels.dtype}; use uint8 or uint16.")
        confidence = self.confidence
        if confidence is not None and (confidence.shape != self.labels.shape or confidence.dtype != np.uint8):
            raise GeometryError(
                f"The confidence has shape {confidence.shape} and type {confidence.dtype}; it must be uint8 of the "
                f"labels' shape {self.labels.shape}."
            )
        known = {label.value for label in self.table}
        unknown = sorted(find_values(self.labels) - known)
        if unknown:
            raise GeometryError(f"The label values {unknown} are not in the label table {sorted(known)}.")

    def reoriented(self, orientation: str) -> Segmentation:
        """The same labels with their axes transposed and flipped; the arrays are views.

        Args:
            orientation: letters towards which the axes shall grow, such as ``"SPL"``.

        Raises:
            GeometryError: if the letters do not name three different patient axes.
        """
        turn, changed = self.geometry.reorient_array, copy.copy(self)
        object.__setattr__(changed, "labels", turn(self.labels, orientation))
        object.__setattr__(changed, "geometry", self.geometry.reoriented(orientation))
        if self.confidence is not None:
            object.__setattr__(changed, "confidence", turn(self.confidence, orientation))
        return changed

    def with_provenance(self, provenance: Provenance) -> Segmentation:
        """The same labels, not checked again, with another record of how they were made."""
        changed = copy.copy(self)
        object.__setattr__(changed, "provenance", provenance)
        return changed
