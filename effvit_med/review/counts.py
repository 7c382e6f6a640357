"""How many voxels each structure has, and how many of them are as the automatic result had them, kept up live."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from effvit_med.volume import Geometry
from effvit_med.volume.changes import IntArray, LabelArray, VoxelChange, flat_view
from effvit_med.volume.counts import count_values


class VoxelCounts:
    """Counts per slice and label value that follow each change without another look at the whole array.

    Args:
        labels: (a0, a1, a2) the automatic result; contiguous in C order, and never written.
        geometry: where its voxels lie.
        size: one more than the largest label value there can be.

    Examples:
        >>> labels = np.zeros((2, 4, 4), np.uint8)
        >>> counts = VoxelCounts(labels, Geometry(np.diag([5.0, 1.0, 1.0, 1.0]), labels.shape), 2)
        >>> counts.follow(VoxelChange.of(labels, [0, 1], 1))
        >>> round(counts.volume_ml(1), 4), counts.edited_fraction(1), counts.edited_fraction(0)
        (0.01, 1.0, 0.0625)
    """

    def __init__(self, labels: LabelArray, geometry: Geometry, size: int) -> None:
        self._automatic = labels
        axis = geometry.slice_axis
        self._counts = count_values(labels, axis, size)
        self._automatic_counts = self._counts.copy()
        self._slice_volumes_mm3 = geometry.voxel_volumes_mm3()
        self._step = int(np.prod(geometry.shape[axis + 1 :], dtype=np.int64))
        self._slices = geometry.shape[axis]
        self.automatic: IntArray = self._counts.sum(axis=0)
        self.same: IntArray = self.automatic.copy()

    @property
    def voxels(self) -> IntArray:
        """(values,) how many voxels each label value has now."""
        return self._counts.sum(axis=0)

    def follow(self, change: VoxelChange) -> None:
        """Count a change that is made."""
        slices = change.flat // self._step % self._slices
        was = flat_view(self._automatic)[change.flat]
        np.add.at(self._counts, (slices, change.before), -1)
        np.add.at(self._counts, (slices, change.after), 1)
        np.add.at(self.same, change.before[was == change.before], -1)
        np.add.at(self.same, change.after[was == change.after], 1)

    def volume_ml(self, value: int) -> float:
        """The volume of a structure, right for slices at unequal distances."""
        return self._volume_ml(self._counts[:, value])

    def automatic_volume_ml(self, value: int) -> float:
        """The volume that a structure has in the automatic result."""
        return self._volume_ml(self._automatic_counts[:, value])

    def edited_fraction(self, value: int) -> float:
        """The part of the voxels that a structure has now or had automatically that differ; 0 if it has none."""
        either = int(self.voxels[value] + self.automatic[value] - self.same[value])
        return 1 - int(self.same[value]) / either if either else 0.0

    def dice(self, value: int) -> float | None:
        """Dice of the automatic and the present structure; None if it is in neither."""
        total = int(self.voxels[value] + self.automatic[value])
        return 2 * int(self.same[value]) / total if total else None

    def _volume_ml(self, counts: npt.NDArray[np.int64]) -> float:
        return float(counts @ self._slice_volumes_mm3) / 1000
