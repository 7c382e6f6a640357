"""What a data set is like, as a few numbers that a plan can be made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.planning.case_facts import CaseFacts
from effvit_med.planning.training_set import TrainingSet
from effvit_med.transforms.spatial import network_grid
from effvit_med.volume import Geometry
from effvit_med.volume.geometry import SLICES_FIRST, THICK

Triple = tuple[float, float, float]

UPWARDS = "SPL"
"""The usual orientation of a grid: rows of slices from the feet up, seen as radiologists see them."""


OBLIQUE = 0.9
"""Below this cosine of their angle to the nearest direction of the body (26 degrees), slices lie obliquely."""


@dataclass(frozen=True)
class Spread:
    """One number for each axis of the grid, over all cases.

    Attributes:
        lowest: the smallest.
        median: the middle one.
        highest: the largest.
    """

    lowest: Triple
    median: Triple
    highest: Triple


@dataclass(frozen=True)
class StructureFacts:
    """What is known of one structure.

    Attributes:
        name: of the structure.
        cases: in which it is marked.
        voxel_share: of all voxels of these cases.
        volume_ml: smallest, median and largest; of pictures without a scale, in thousands of pixels.
        thickness_mm: the median over cases, as of `effvit_med.planning.case_facts.CaseFacts`.
    """

    name: str
    cases: int
    voxel_share: float
    volume_ml: Triple
    thickness_mm: float


@dataclass(frozen=True)
class Fingerprint:
    """What a data set is like. Axes are those of the grid, the slices first.

    Attributes:
        cases: how many.
        groups: how many groups of them, such as patients.
        modality: DICOM Modality; empty if unknown.
        photographs: whether all are pictures without a scanner's geometry.
        orientation: of the grid on which all this was measured; None for the files' own axes.
        shape: voxels.
        spacing_mm: distances of voxels.
        size_mm: physical size.
        anisotropy: coarsest spacing by finest, of the medians.
        percentiles: 0.5, 5, 50, 95 and 99.5 of the values of marked voxels.
        mean: of these values.
        sd: of these values.
        lowest: the smallest value of any image.
        highest: the largest.
        foreground_share: marked voxels of all.
        structures: one row for each.
    """

    cases: int
    groups: int
    modality: str
    photographs: bool
    orientation: str | None
    shape: Spread
    spacing_mm: Spread
    size_mm: Spread
    anisotropy: float
    percentiles: tuple[float, float, float, float, float]
    mean: float
    sd: float
    lowest: float
    highest: float
    foreground_share: float
    structures: tuple[StructureFacts, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def choose_orientation(facts: Sequence[CaseFacts]) -> tuple[str | None, str]:
    """The orientation in which the coarsest axis of all cases comes first, and why."""
    if all(each.is_photograph for each in facts):
        return None, "Pictures have no orientation in a patient: rows and columns stay as they are."
    coarse = {_coarse_letter(each.geometry) for each in facts}
    if any(_lies_obliquely(each.geometry) for each in facts):
        text = "Thick slices lie obliquely in some cases: no direction of the body fits all. Slices first, as stored."
        return SLICES_FIRST, text
    if coarse <= {None, "S"}:
        return UPWARDS, "Slices from the feet up, rows to the back, columns to the left, however files store them."
    letters = coarse - {None}
    if len(letters) == 1:
        letter = letters.pop() or "S"
        rest = [each for each in UPWARDS if each != letter]
        return letter + "".join(rest), f"The thick slices follow one another along {letter}, so that axis comes first."
    told = ", ".join(sorted(map(str, letters)))
    return SLICES_FIRST, f"Thick slices follow one another along {told}, each case as it lies: slices first, as stored."


def _lies_obliquely(geometry: Geometry) -> bool:
    """Whether thick slices follow one another in no direction of the patient's."""
    axis = _coarse_axis(geometry)
    return axis is not None and float(np.abs(geometry.directions[:, axis]).max()) < OBLIQUE


def _coarse_letter(geometry: Geometry) -> str | None:
    """The letter (S, P or L) of the one axis that is clearly coarser than the others; None where there is none."""
    axis = _coarse_axis(geometry)
    if axis is None:
        return None
    letter = geometry.orientation[axis]
    return {"I": "S", "A": "P", "R": "L"}.get(letter, letter)


def _coarse_axis(geometry: Geometry) -> int | None:
    """The one axis that is clearly coarser than the others, or of a single slice; None where there is none."""
    spacing = np.array(geometry.spacing_mm)
    order = np.argsort(spacing)
    if min(geometry.shape) == 1:
        return int(np.argmin(geometry.shape))
    return int(order[2]) if spacing[order[2]] > THICK * spacing[order[1]] else None


def take_fingerprint(
    training_set: TrainingSet, facts: Sequence[CaseFacts], orientation: str | None, modality: str
) -> Fingerprint:
    """Sum up what was measured of all cases.

    Args:
        training_set: with its label table.
        facts: of its cases, at least one.
        orientation: of the grid, as of `effvit_med.transforms.Preprocess`.
        modality: DICOM Modality; empty if unknown.
    """
    grids = [network_grid(each.geometry, orientation, (None, None, None)) for each in facts]
    spacing = _spread(grids, lambda grid: grid.spacing_mm)
    sample = np.concatenate([each.sample for each in facts]).astype(np.float64)
    marks = {label.value for label in training_set.table or ()}
    marked = sum(number for each in facts for value, number in each.counts.items() if value in marks)
    low, low_tail, middle, high_tail, high = np.percentile(sample, [0.5, 5, 50, 95, 99.5]).tolist()
    return Fingerprint(
        cases=len(facts),
        groups=len({case.group for case in training_set.cases}),
        modality=modality,
        photographs=all(each.is_photograph for each in facts),
        orientation=orientation,
        shape=_spread(grids, lambda grid: grid.shape),
        spacing_mm=spacing,
        size_mm=_spread(grids, lambda grid: np.multiply(grid.shape, grid.spacing_mm).tolist()),
        anisotropy=max(spacing.median) / min(spacing.median),
        percentiles=(low, low_tail, middle, high_tail, high),
        mean=float(sample.mean()),
        sd=float(sample.std()),
        lowest=min(each.lowest for each in facts),
        highest=max(each.highest for each in facts),
        foreground_share=marked / sum(sum(each.counts.values()) for each in facts),
        structures=tuple(_sum_up(label.name, label.value, facts) for label in training_set.table or ()),
    )


def _sum_up(name: str, value: int, facts: Sequence[CaseFacts]) -> StructureFacts:
    there = [each for each in facts if each.counts.get(value)]
    if not there:
        return StructureFacts(name, 0, 0.0, (0.0, 0.0, 0.0), 0.0)
    volumes = [each.counts[value] * float(np.prod(each.geometry.spacing_mm)) / 1000 for each in there]
    voxels = sum(sum(each.counts.values()) for each in there)
    share = sum(each.counts[value] for each in there) / voxels
    thickness = [each.thickness_mm[value] for each in there if np.isfinite(each.thickness_mm[value])]
    spread = (min(volumes), float(np.median(volumes)), max(volumes))
    return StructureFacts(name, len(there), share, spread, float(np.median(thickness)) if thickness else 0.0)


def _spread(grids: Sequence[Geometry], of: Callable[[Geometry], Sequence[float]]) -> Spread:
    values: npt.NDArray[np.float64] = np.array([of(grid) for grid in grids], np.float64)
    rows = np.round(np.stack([values.min(0), np.median(values, axis=0), values.max(0)]), 6)
    low, median, high = ((float(a), float(b), float(c)) for a, b, c in rows)
    return Spread(low, median, high)
