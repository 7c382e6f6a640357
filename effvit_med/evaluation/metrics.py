"""What one segmentation is worth against its reference, structure by structure."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from torch import Tensor

from effvit_med.errors import InputError, SettingsError
from effvit_med.evaluation.alignment import place_on
from effvit_med.volume import Geometry, Segmentation
from effvit_med.volume.overlaps import take_structure

NOT_IN_REFERENCE = "not in the reference"
NOT_FOUND = "not found"
UNEVEN_GRID = "the slices lie at unequal distances or are sheared"

SHEAR_TOLERANCE_DEGREES = 0.01
"""Beyond this angle voxels are no boxes, and distances along their axes are not distances."""


@dataclass(frozen=True)
class StructureScore:
    """One structure of one case.

    Attributes:
        structure: its name in the reference's label table.
        value: its label value there.
        reference_ml: volume in the reference.
        found_ml: volume in the segmentation.
        dice: 2 |A and B| / (|A| + |B|); None if the reference does not show the structure, 0 if it was not found.
        nsd: normalised surface Dice: the part of both surfaces that lies within the tolerance of the other; as Dice
            None or 0 where one of the two has no surface.
        hd95_mm: the larger of the two 95th percentiles of the distances from one surface to the other; None where one
            of the two has no surface.
        assd_mm: the mean distance from the surfaces to each other, over the voxels of both; None as above.
        reason: why numbers are None; empty if none is.
    """

    structure: str
    value: int
    reference_ml: float
    found_ml: float
    dice: float | None
    nsd: float | None
    hd95_mm: float | None
    assd_mm: float | None
    reason: str = ""

    @property
    def volume_error_ml(self) -> float:
        """What was found too much (above 0) or too little."""
        return self.found_ml - self.reference_ml

    @property
    def volume_error_percent(self) -> float | None:
        """The error in per cent of the reference's volume; None if the reference does not show the structure."""
        return 100 * self.volume_error_ml / self.reference_ml if self.reference_ml else None

    @property
    def is_false_alarm(self) -> bool:
        """Whether something was found that the reference does not show."""
        return self.reference_ml == 0 and self.found_ml > 0

    @property
    def is_missed(self) -> bool:
        """Whether nothing was found of what the reference shows."""
        return self.reference_ml > 0 and self.found_ml == 0


def score_case(
    reference: Segmentation,
    found: Segmentation,
    tolerance_mm: float = 1.0,
    ignore: Sequence[int] = (),
) -> tuple[StructureScore, ...]:
    """The scores of every structure of the reference's label table, in its order; of those that overlap each whole.

    A label value means the same in both, whatever the tables call it. Surfaces are those of whole voxels: for the
    distances the voxels at the border of a structure, for the surface Dice the triangles (in an image of one slice the
    line segments) between them.

    Args:
        reference: the truth.
        found: what is scored, on the same grid; its axes may stand in another order.
        tolerance_mm: of the surface Dice, above 0.
        ignore: label values of the reference that mark voxels about which nothing is said; these voxels count as
            background in both.

    Returns:
        One score for each structure that is not ignored.

    Raises:
        GeometryError: if the two do not lie on the same grid; nothing is resampled here.
        SettingsError: if the tolerance is not above 0.
        InputError: if structures overlap in one of them and the other knows nothing of it.

    Source:
        Dice and the distances as in Maier-Hein et al., Metrics Reloaded, Nature Methods 21, 2024; surface Dice of
        Nikolov et al. (arXiv 1809.04430). All are computed by MONAI.
    """
    if not 0 < tolerance_mm < np.inf:
        raise SettingsError(f"tolerance_mm is {tolerance_mm}; give a distance above 0.")
    overlaps = reference.table.overlaps
    if overlaps != found.table.overlaps:
        raise InputError("Structures overlap in one of two label maps; give both the table with the sums of both.")
    truth, ours = reference.labels, place_on(found, reference.geometry).labels
    if ignore:
        unknown = np.isin(truth, np.array(ignore))
        truth, ours = np.where(unknown, 0, truth), np.where(unknown, 0, ours)
    return tuple(
        _score(
            label.name,
            label.value,
            take_structure(truth, label.value, overlaps=overlaps),
            take_structure(ours, label.value, overlaps=overlaps),
            reference.geometry,
            tolerance_mm,
        )
        for label in reference.table.structures
        if label.value not in ignore
    )


def _score(
    name: str,
    value: int,
    truth: npt.NDArray[np.bool_],
    ours: npt.NDArray[np.bool_],
    geometry: Geometry,
    tolerance_mm: float,
) -> StructureScore:
    reference_ml, found_ml = _volume_ml(truth, geometry), _volume_ml(ours, geometry)
    if not reference_ml:
        return StructureScore(name, value, 0.0, found_ml, None, None, None, None, NOT_IN_REFERENCE)
    if not found_ml:
        return StructureScore(name, value, reference_ml, 0.0, 0.0, 0.0, None, None, NOT_FOUND)
    near = box_around(truth | ours)
    pair = [torch.from_numpy(mask[near].copy()) for mask in (ours, truth)]
    dice = float(compute_dice(pair[0][None, None], pair[1][None, None]))
    if not geometry.is_regular or geometry.shear_degrees > SHEAR_TOLERANCE_DEGREES:
        return StructureScore(name, value, reference_ml, found_ml, dice, None, None, None, UNEVEN_GRID)
    distances = _measure_surfaces(pair, geometry, tolerance_mm)
    return StructureScore(name, value, reference_ml, found_ml, dice, *distances)


def _measure_surfaces(pair: Sequence[Tensor], geometry: Geometry, tolerance_mm: float) -> tuple[float, float, float]:
    """Surface Dice, 95th percentile and mean of the distances between two masks of (a0, a1, a2); none is empty."""
    thin = [axis for axis, size in enumerate(geometry.shape) if size == 1]
    axes = [axis for axis in range(3) if len(thin) != 1 or axis not in thin]  # one slice has lines for surfaces
    spacing_mm = [geometry.spacing_mm[axis] for axis in axes]
    flat = [(mask.squeeze(thin[0]) if len(thin) == 1 else mask)[None, None] for mask in pair]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's of its own calls
        nsd = compute_surface_dice(
            *flat, [tolerance_mm], include_background=True, spacing=spacing_mm, use_subvoxels=True
        )
        hd95 = compute_hausdorff_distance(*flat, include_background=True, percentile=95, spacing=spacing_mm)
        assd = compute_average_surface_distance(*flat, include_background=True, symmetric=True, spacing=spacing_mm)
    return float(nsd), float(hd95), float(assd)


def _volume_ml(mask: npt.NDArray[np.bool_], geometry: Geometry) -> float:
    """The volume of a mask, right for slices at unequal distances too."""
    others = tuple(axis for axis in range(3) if axis != geometry.slice_axis)
    return float(np.count_nonzero(mask, axis=others) @ geometry.voxel_volumes_mm3()) / 1000


def box_around(mask: npt.NDArray[np.bool_], margin: tuple[int, ...] = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """The box around a mask that is not empty, and a margin of voxels along each axis where the array has them."""
    ends = []
    for axis, more in enumerate(margin):
        inside = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        ends.append(slice(max(0, int(inside[0]) - more), int(inside[-1]) + 1 + more))
    return ends[0], ends[1], ends[2]
