"""Where the voxels of an array lie in the patient.

Conventions, used everywhere in effvit-med:

* ``index`` is an array index, also fractional; index 0 is the *centre* of the first voxel.
* ``world`` is a point in millimetres in the DICOM patient system, LPS: x grows towards the patient's left,
  y towards the back (posterior), z towards the head (superior).
* Array axis *a* is column *a* of the affine. There is no hidden transpose.
* An orientation is written with the letters towards which the axes grow: ``"SPL"`` is an axial scan whose slices
  go up, whose rows go back and whose columns go left. ``"slices"`` stands for the scan's own slices, rows and columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import GeometryError

FloatArray = npt.NDArray[np.float64]

SHEAR_TOLERANCE_DEGREES = 0.2
"""Below this angle a grid counts as right-angled: over 400 mm the error stays under 1.4 mm times its cosine."""

FARTHEST_MM = 1e9
"""Steps and positions beyond are damage: a thousand kilometres."""

SLICES_FIRST = "slices"
"""In place of an orientation: thick slices first, whichever way they lie in the patient."""

THICK = 1.5
"""An axis whose steps are so many times those of the next is the one along which slices follow one another."""

_LETTERS = (("R", "L"), ("A", "P"), ("I", "S"))  # towards minus and plus x, y, z of LPS


@dataclass(frozen=True, eq=False)
class Geometry:
    """The place, size and orientation of a three-dimensional grid of voxels.

    A scan with unequal slice distances keeps, in ``slice_offsets``, the true place of each slice along
    ``slice_axis`` in units of that axis' affine column; all else is as for a regular grid.

    Args:
        affine: (4, 4) matrix from index to world in mm (LPS); its last row is 0 0 0 1.
        shape: number of voxels along each of the three array axes.
        frame_of_reference_uid: DICOM Frame of Reference UID; empty where there is none (NIfTI).
        slice_offsets: one offset per slice along ``slice_axis``, strictly increasing, or None for a regular grid.
        slice_axis: the array axis along which slices were acquired.

    Raises:
        GeometryError: if the affine is not an invertible finite 4 by 4 matrix, a size is below 1, or the slice
            offsets are not one strictly increasing number per slice.

    Source:
        DICOM PS3.3 section C.7.6.2.1.1 (equation C.7.6.2.1-1).

    Examples:
        >>> geometry = Geometry(np.diag([5.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]], (10, 64, 64))
        >>> geometry.orientation, geometry.spacing_mm
        ('SPL', (5.0, 2.0, 2.0))
        >>> geometry.index_to_world([1, 0, 0]).tolist()
        [0.0, 0.0, 5.0]
    """

    affine: FloatArray
    shape: tuple[int, int, int]
    frame_of_reference_uid: str = ""
    slice_offsets: tuple[float, ...] | None = None
    slice_axis: int = 0

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64) + 0.0  # no negative zeros: equal is equal
        if affine.shape != (4, 4):
            raise GeometryError(f"The affine has shape {affine.shape}; give a 4 by 4 matrix from index to LPS mm.")
        if not np.isfinite(affine).all() or not np.array_equal(affine[3], [0, 0, 0, 1]):
            raise GeometryError(f"The affine {affine.tolist()} is not finite with a last row of 0 0 0 1.")
        if np.abs(affine).max() > FARTHEST_MM:
            raise GeometryError(
                f"The affine {affine.tolist()} has values above {FARTHEST_MM:g} mm; no scan is so large."
            )
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if (lengths == 0).any() or abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-6:
            raise GeometryError(f"The affine {affine.tolist()} has axes that are zero or lie in one plane.")
        shape = tuple(int(size) for size in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"The shape is {self.shape}; three sizes of at least 1 are needed.")
        if self.slice_axis not in (0, 1, 2):
            raise GeometryError(f"slice_axis is {self.slice_axis}; it must be 0, 1 or 2.")
        if self.slice_offsets is not None:
            offsets = tuple(float(offset) for offset in self.slice_offsets)
            if len(offsets) != shape[self.slice_axis] or not (
                np.isfinite(offsets).all() and (np.diff(offsets) > 0).all()
            ):
                raise GeometryError(
                    f"slice_offsets {offsets} must be {shape[self.slice_axis]} finite, strictly increasing numbers."
                )
            object.__setattr__(self, "slice_offsets", offsets)
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        uid, offsets = self.frame_of_reference_uid, self.slice_offsets
        return (self.affine.tobytes(), self.shape, uid, offsets, self.slice_axis if offsets else 0)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The step length along each array axis in mm; along irregular slices the nominal step."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))

    @property
    def directions(self) -> FloatArray:
        """The unit vectors of the array axes in world, as the columns of a (3, 3) matrix."""
        return self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def is_regular(self) -> bool:
        """Whether all slices are equally far apart."""
        return self.slice_offsets is None

    @property
    def shear_degrees(self) -> float:
        """The largest departure from a right angle between two array axes, in degrees; gantry tilt shows here."""
        directions = self.directions
        cosines = [abs(float(directions[:, a] @ directions[:, b])) for a, b in ((0, 1), (0, 2), (1, 2))]
        return float(np.degrees(np.arcsin(min(1.0, max(cosines)))))

    @property
    def orientation(self) -> str:
        """Three letters of LRAPIS: the anatomical direction towards which each array axis grows.

        Each axis takes the patient axis nearest to it; no patient axis is taken twice.
        """
        directions = self.directions
        best = max(
            itertools.permutations(range(3)),
            key=lambda axes: sum(abs(directions[axes[a], a]) for a in range(3)),
        )
        return "".join(_LETTERS[best[a]][int(directions[best[a], a] > 0)] for a in range(3))

    def index_to_world(self, index: npt.ArrayLike) -> FloatArray:
        """World points of array indices.

        Args:
            index: (..., 3) indices, also fractional and outside the grid.

        Returns:
            (..., 3) world points in mm, LPS.
        """
        points = np.array(index, dtype=np.float64)
        if self.slice_offsets is not None:
            points[..., self.slice_axis] = _interpolate_outwards(
                points[..., self.slice_axis], np.arange(float(len(self.slice_offsets))), np.array(self.slice_offsets)
            )
        return points @ self.affine[:3, :3].T + self.affine[:3, 3]

    def world_to_index(self, world: npt.ArrayLike) -> FloatArray:
        """Fractional array indices of world points; the inverse of `index_to_world`.

        Args:
            world: (..., 3) world points in mm, LPS.

        Returns:
            (..., 3) indices.
        """
        inverse = np.linalg.inv(self.affine)
        points: FloatArray = np.asarray(world, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
        if self.slice_offsets is not None:
            points[..., self.slice_axis] = _interpolate_outwards(
                points[..., self.slice_axis], np.array(self.slice_offsets), np.arange(float(len(self.slice_offsets)))
            )
        return points

    def voxel_volumes_mm3(self) -> FloatArray:
        """The volume of a voxel of each slice along ``slice_axis`` in mm^3, shape (number of slices,).

        An irregular slice owns half the way to each of its neighbours; an end slice as far out as in.
        """
        volume = abs(float(np.linalg.det(self.affine[:3, :3])))
        count = self.shape[self.slice_axis]
        if self.slice_offsets is None or count == 1:
            return np.full(count, volume)
        edges = _slice_edges(np.array(self.slice_offsets))
        return np.asarray(np.diff(edges) * volume, dtype=np.float64)

    def corners_world(self) -> FloatArray:
        """The (8, 3) world points of the outer corners of the grid, half a voxel outside the end centres."""
        ends = [(-0.5, size - 0.5) for size in self.shape]
        return self.index_to_world(list(itertools.product(*ends)))

    def permuted(self, axes: Sequence[int]) -> Geometry:
        """The geometry of ``array.transpose(axes)``.

        Raises:
            GeometryError: if ``axes`` is not a permutation of 0, 1, 2.
        """
        if sorted(axes) != [0, 1, 2]:
            raise GeometryError(f"axes {tuple(axes)} is not a permutation of 0, 1, 2.")
        affine = self.affine[:, [*axes, 3]]
        shape = (self.shape[axes[0]], self.shape[axes[1]], self.shape[axes[2]])
        return replace(self, affine=affine, shape=shape, slice_axis=list(axes).index(self.slice_axis))

    def flipped(self, axis: int) -> Geometry:
        """The geometry of ``np.flip(array, axis)``.

        Raises:
            GeometryError: if ``axis`` is not 0, 1 or 2.
        """
        if axis not in (0, 1, 2):
            raise GeometryError(f"axis is {axis}; it must be 0, 1 or 2.")
        affine = self.affine.copy()
        offsets = self.slice_offsets
        last = self.shape[axis] - 1.0
        if offsets is not None and axis == self.slice_axis:
            last = offsets[-1]
            offsets = tuple(last - offset for offset in reversed(offsets))
        affine[:3, 3] += last * affine[:3, axis]
        affine[:3, axis] *= -1
        return replace(self, affine=affine, slice_offsets=offsets)

    def reorienting(self, orientation: str) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
        """How to bring an array of this geometry into an orientation.

        Args:
            orientation: three letters, for example ``"SPL"`` or ``"RAS"``; or ``"slices"``, for scans whose slices lie
                obliquely or each otherwise: the thickest axis, or else the slices, come first, then rows and columns,
                none flipped.

        Returns:
            The axes for ``array.transpose``, then for each new axis whether to flip it.

        Raises:
            GeometryError: if the letters do not name three different patient axes.
        """
        if orientation == SLICES_FIRST:
            return self._slices_first(), (False, False, False)
        kinds = {letter: axis for axis, pair in enumerate(_LETTERS) for letter in pair}
        wanted = [kinds.get(letter, -1) for letter in orientation]
        if sorted(wanted) != [0, 1, 2]:
            raise GeometryError(
                f"The orientation {orientation!r} must have one letter each of L/R, A/P and I/S (or be slices)."
            )
        mine = [kinds[letter] for letter in self.orientation]
        axes = [mine.index(kind) for kind in wanted]
        flips = [self.orientation[axis] != letter for axis, letter in zip(axes, orientation, strict=True)]
        return (axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2])

    def _slices_first(self) -> tuple[int, int, int]:
        spacing = self.spacing_mm
        coarse = max(range(3), key=lambda axis: spacing[axis])
        others = max(spacing[axis] for axis in range(3) if axis != coarse)
        first = coarse if spacing[coarse] > THICK * others else self.slice_axis
        return {0: (0, 1, 2), 1: (1, 2, 0), 2: (2, 1, 0)}[first]

    def reorient_array(self, array: npt.NDArray[Any], orientation: str) -> npt.NDArray[Any]:
        """An array on this grid with its axes transposed and flipped as `reoriented` does with the grid; a view.

        Args:
            array: of the shape of this geometry.
            orientation: as of `reorienting`.

        Raises:
            GeometryError: if the letters do not name three different patient axes.
        """
        axes, flips = self.reorienting(orientation)
        return np.flip(array.transpose(axes), tuple(axis for axis in range(3) if flips[axis]))

    def reoriented(self, orientation: str) -> Geometry:
        """The geometry after the transpose and flips that `reorienting` names.

        Raises:
            GeometryError: if the letters do not name three different patient axes.
        """
        axes, flips = self.reorienting(orientation)
        geometry = self.permuted(axes)
        for axis, flip in enumerate(flips):
            geometry = geometry.flipped(axis) if flip else geometry
        return geometry

    def without_shear(self) -> Geometry:
        """The grid with right angles that is nearest to this one: same centre, same spacing, turned axes.

        Source:
            The orthogonal factor of the polar decomposition is the nearest rotation (Higham 1986, section 2).
        """
        left, _, right = np.linalg.svd(self.directions)
        affine = self.affine.copy()
        affine[:3, :3] = left @ right * np.linalg.norm(self.affine[:3, :3], axis=0)
        middle = (np.array(self.shape) - 1) / 2
        affine[:3, 3] += (self.affine[:3, :3] - affine[:3, :3]) @ middle
        return replace(self, affine=affine)

    def max_distance_mm(self, other: Geometry) -> float:
        """The largest distance in mm between voxel centres of the same index; infinite if the shapes differ."""
        if self.shape != other.shape:
            return float("inf")
        ends: list[Sequence[float]] = list(itertools.product(*[(0, size - 1) for size in self.shape]))
        if self.slice_offsets is not None or other.slice_offsets is not None:
            for axis in {self.slice_axis, other.slice_axis}:
                line = np.zeros((self.shape[axis], 3))
                line[:, axis] = np.arange(self.shape[axis])
                ends.extend(line.tolist())
        return float(np.linalg.norm(self.index_to_world(ends) - other.index_to_world(ends), axis=1).max())


def _slice_edges(offsets: FloatArray) -> FloatArray:
    """The n+1 borders between n slices: midway, and as far out at the ends as the nearest border lies in."""
    middles = (offsets[1:] + offsets[:-1]) / 2
    first = 2 * offsets[0] - middles[0]
    last = 2 * offsets[-1] - middles[-1]
    return np.concatenate([[first], middles, [last]])


def _interpolate_outwards(values: FloatArray, xs: FloatArray, ys: FloatArray) -> FloatArray:
    """Piecewise linear interpolation that goes on with the first and last slope outside; xs strictly increasing."""
    if len(xs) == 1:
        return np.asarray(values - xs[0] + ys[0], dtype=np.float64)
    segment = np.clip(np.searchsorted(xs, values, side="right") - 1, 0, len(xs) - 2)
    slope = (ys[segment + 1] - ys[segment]) / (xs[segment + 1] - xs[segment])
    return np.asarray(ys[segment] + (values - xs[segment]) * slope, dtype=np.float64)
