"""Where a result is likely wrong, as a list of places to look at: the most expected wrong volume first.

The confidence of a voxel is 255 * tanh(d / 2) of the lead of its label (`Segmentation`); between two classes that is a
chance of (1 - confidence / 255) / 2 that the label is wrong, if the network knows how sure it is. Every border has a
thin shell of doubt, which is of no use to anybody. So doubt is summed over cells of a few mm, and only cells that are
clearly more doubtful than most of them make a place to look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from effvit_med.errors import GeometryError
from effvit_med.review.doubt_cells import DoubtCells, sum_cells, take_part, voxel_ml_of
from effvit_med.volume.geometry import Geometry
from effvit_med.volume.labels import LabelTable
from effvit_med.volume.quality import CaseQuality
from effvit_med.volume.volume import Finding

Labels = npt.NDArray[np.unsignedinteger]
Confidence = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Slices = tuple[slice, slice, slice]

LEAST_CORE = 0.1
"""Share of a cell's doubt that must lie in voxels whose six neighbours are in doubt, too; a thin shell has none."""
LEAST_DOUBT = 0.1
"""Mean chance of error in a cell below which it is nothing to look at."""
NO_DOUBT = 0.005
"""Cells below are sure. Nearly all others lie on borders."""
TIMES_USUAL = 2.0
"""How many times as doubtful as the usual doubtful cell a cell must be."""
LARGEST_MM = 50.0
"""Longer places are cut in two, so that one fits into a picture."""
MOST_NEEDED = 0.3
"""A cell that is so doubtful is looked at in any case; a tie of two classes is 0.5."""
LEAST_ML = 0.05
"""Places that are expected to hold less wrong volume are not worth a look: a ball of 4.6 mm, if it is all wrong."""
MOST = 100
"""At most so many places by confidence."""

PLACED = ("FRAGMENTS", "HOLES", "TOUCHES_EDGE", "MIRRORED_LATERALITY", "VOLUME_UNUSUAL", "LOW_CONFIDENCE")
"""Codes of `judge_case` that speak against a structure and of which a place can be shown."""


@dataclass(frozen=True)
class Doubt:
    """A place to look at.

    Attributes:
        value: the structure that is in doubt most there; 0 where only background is.
        index: a voxel of the place, the most doubtful one for a place by confidence.
        box: what holds the place, as (start, stop) along each axis.
        expected_wrong_ml: volume that is expected to be labelled wrongly there. For a rule about parts or holes half of
            what the rule speaks of; for any other rule what the confidence says of the structure as a whole.
        reason: ``CONFIDENCE``, or the code of the rule.
        message: one sentence for the reader, without the name of the structure.
    """

    value: int
    index: tuple[int, int, int]
    box: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    expected_wrong_ml: float
    reason: str
    message: str

    @property
    def slices(self) -> Slices:
        """The box for indexing an array."""
        return tuple(slice(start, stop) for start, stop in self.box)  # type: ignore[return-value]


def find_doubts(
    labels: Labels,
    confidence: Confidence | None,
    geometry: Geometry,
    *,
    settled: Mask | None = None,
    reasons: Iterable[tuple[int, Finding]] = (),
) -> tuple[Doubt, ...]:
    """The places to look at, the most expected wrong volume first.

    Args:
        labels: as they are now.
        confidence: of the first result; None if there is none, then only the rules speak.
        geometry: of both.
        settled: voxels that a reader has agreed to or corrected; they are in no doubt.
        reasons: what rules say of structures, see `list_reasons`.

    Returns:
        Each place once; where two are equal, the one that comes first in the array.

    Raises:
        GeometryError: if the shapes differ.

    Examples:
        >>> labels, confidence = np.zeros((2, 20, 40, 40), np.uint8)
        >>> labels[5:15, 10:30, 10:30], confidence[:] = 1, 255
        >>> confidence[8:12, 24:36, 12:24] = 51
        >>> doubt, = find_doubts(labels, confidence, Geometry(np.eye(4), labels.shape))
        >>> doubt.value, doubt.box, round(doubt.expected_wrong_ml, 2), doubt.reason
        (1, ((8, 12), (24, 36), (12, 24)), 0.23, 'CONFIDENCE')
    """
    _check_shapes(geometry, labels, confidence, settled)
    found = []
    if confidence is not None:
        found += _find_by_confidence(labels, confidence, geometry, settled)
    for value, finding in reasons:
        found += _place_reason(value, finding, labels, confidence, geometry, settled)
    return tuple(sorted(found, key=lambda doubt: (-doubt.expected_wrong_ml, doubt.index, doubt.reason)))


def measure_strip(
    labels: Labels,
    confidence: Confidence,
    geometry: Geometry,
    axis: int,
    value: int | None = None,
    *,
    settled: Mask | None = None,
) -> npt.NDArray[np.float64]:
    """The volume that is expected to be labelled wrongly in each slice.

    Args:
        labels: as they are now.
        confidence: of the first result.
        geometry: of both.
        axis: along which the slices lie.
        value: counts only voxels with this label; None counts all.
        settled: voxels that are in no doubt any more.

    Returns:
        mL per slice, shape (slices,).

    Raises:
        GeometryError: if the shapes differ or the axis is not 0, 1 or 2.

    Examples:
        >>> labels, confidence = np.ones((2, 3, 10, 10), np.uint8)
        >>> confidence[:] = [[[255]], [[0]], [[51]]]
        >>> measure_strip(labels, confidence, Geometry(np.eye(4), labels.shape), 0).round(3).tolist()
        [0.0, 0.05, 0.04]
    """
    _check_shapes(geometry, labels, confidence, settled)
    if axis not in (0, 1, 2):
        raise GeometryError(f"axis is {axis}; it must be 0, 1 or 2.")
    along = geometry.slice_axis
    others = [other for other in range(3) if other != along]
    strip = np.zeros(geometry.shape[axis])
    for number, volume_ml in enumerate(geometry.voxel_volumes_mm3() / 1000):
        doubt = 255 - _plane(confidence, along, number)
        if value is not None:
            doubt = doubt * (_plane(labels, along, number) == value)
        if settled is not None:
            doubt = doubt * ~_plane(settled, along, number)
        if axis == along:
            strip[number] = doubt.sum(dtype=np.int64) * volume_ml
        else:
            strip += doubt.sum(axis=1 - others.index(axis), dtype=np.int64) * volume_ml
    return np.asarray(strip / 510)


def list_reasons(quality: CaseQuality, table: LabelTable) -> tuple[tuple[int, Finding], ...]:
    """What the rules say against structures, for `find_doubts`; what was only not judged is left out.

    Args:
        quality: the verdict of `judge_case`.
        table: of the labels.
    """
    values = {label.name: label.value for label in table}
    return tuple(
        (values[row.structure], finding)
        for row in quality.structures
        if row.structure in values
        for finding in row.reasons
        if finding.code in PLACED
    )


def _check_shapes(geometry: Geometry, *arrays: npt.NDArray[np.generic] | None) -> None:
    for array in arrays:
        if array is not None and array.shape != geometry.shape:
            raise GeometryError(f"An array has shape {array.shape}, the geometry {geometry.shape}; they must be equal.")


def _plane(array: npt.NDArray[Any], axis: int, number: int) -> npt.NDArray[Any]:
    return array[(slice(None),) * axis + (number,)]


def _find_by_confidence(
    labels: Labels, confidence: Confidence, geometry: Geometry, settled: Mask | None
) -> list[Doubt]:
    cells = sum_cells(confidence, geometry, settled)
    share = cells.doubt_ml / cells.volume_ml
    usual = share[share > NO_DOUBT]
    least = LEAST_DOUBT if not usual.size else min(max(LEAST_DOUBT, TIMES_USUAL * float(np.median(usual))), MOST_NEEDED)
    parts, _ = ndimage.label((share >= least) & (cells.core_ml >= LEAST_CORE * cells.doubt_ml))
    longest = [max(1, int(LARGEST_MM / spacing / (edge[1] if len(edge) > 1 else 1)))
               for spacing, edge in zip(geometry.spacing_mm, cells.edges, strict=True)]  # fmt: skip
    places: list[npt.NDArray[np.intp]] = []
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        members = np.argwhere(parts[box] == number) + [part.start for part in box]
        places += _split(members, longest)
    sums = [float(cells.doubt_ml[tuple(members.T)].sum(dtype=np.float64)) for members in places]
    worth = [number for number in range(len(places)) if sums[number] >= LEAST_ML]
    largest = sorted(worth, key=lambda number: -sums[number])[:MOST]
    return [_describe(places[number], sums[number], cells, labels, confidence) for number in largest]


def _split(members: npt.NDArray[np.intp], longest: Sequence[int]) -> list[npt.NDArray[np.intp]]:
    """Cells in groups, none of which is longer than allowed along any axis."""
    extent = (np.ptp(members, axis=0) + 1) / np.asarray(longest)
    axis = int(extent.argmax())
    if extent[axis] <= 1:
        return [members]
    middle = members[:, axis].min() + (np.ptp(members[:, axis]) + 1) // 2
    low = members[:, axis] < middle
    return [*_split(members[low], longest), *_split(members[~low], longest)]


def _describe(
    members: npt.NDArray[np.intp], wrong_ml: float, cells: DoubtCells, labels: Labels, confidence: Confidence
) -> Doubt:
    box = cells.box(members.min(axis=0), members.max(axis=0), labels.shape)
    inside, unsure = labels[box], 255 - confidence[box]
    votes = np.bincount(inside.reshape(-1), weights=unsure.reshape(-1))
    votes[0] = 0
    value = int(votes.argmax()) if votes.any() else 0
    worst = members[int(cells.doubt_ml[tuple(members.T)].argmax())]
    cell = cells.box(worst, worst, labels.shape)
    level = confidence[cell]
    candidates = np.argwhere(level == level.min())
    middle = (np.asarray(level.shape) - 1) / 2
    nearest = candidates[int(np.linalg.norm(candidates - middle, axis=1).argmin())]
    what = "labelled wrongly" if value else "missed: no structure is labelled here"
    return Doubt(
        value=value,
        index=_as_index(nearest + [part.start for part in cell]),
        box=_as_box(box),
        expected_wrong_ml=wrong_ml,
        reason="CONFIDENCE",
        message=f"The network was unsure; about {wrong_ml:.2g} mL may be {what}.",
    )


def _place_reason(
    value: int,
    finding: Finding,
    labels: Labels,
    confidence: Confidence | None,
    geometry: Geometry,
    settled: Mask | None,
) -> list[Doubt]:
    """Where to look for what a rule says of a structure; nothing where the structure is gone or settled."""
    mine = np.zeros(labels.shape, bool)
    for number, plane in enumerate(labels):
        np.equal(plane, value, out=mine[number])
        if settled is not None:
            mine[number] &= ~settled[number]
    whole = _find_box(mine)
    if whole is None:
        return []
    crop, start, half = mine[whole], [part.start for part in whole], True
    if finding.code == "FRAGMENTS":
        parts, count = ndimage.label(crop)
        sizes = np.bincount(parts.reshape(-1))[1:]
        place = parts == int(np.argsort(-sizes, kind="stable")[1]) + 1 if count > 1 else None
    elif finding.code == "HOLES":
        parts, count = ndimage.label(ndimage.binary_fill_holes(crop) & ~crop)
        place = parts == int(np.bincount(parts.reshape(-1))[1:].argmax()) + 1 if count else None
    elif finding.code == "TOUCHES_EDGE":
        place, half = _touching(crop, whole, labels.shape), False
    else:
        place, half = crop, False
    found = None if place is None else _find_box(place)
    if place is None or found is None:
        return []
    box = _shift(found, start)
    if half:
        wrong_ml = float((place[found] * take_part(voxel_ml_of(geometry), box)).sum(dtype=np.float64)) / 2
    elif confidence is not None and finding.code != "TOUCHES_EDGE":
        doubt = (255 - confidence[whole]) * crop
        wrong_ml = float((doubt * take_part(voxel_ml_of(geometry), whole)).sum(dtype=np.float64)) / 510
    else:
        wrong_ml = 0.0
    index = _find_inside(place[found]) + [part.start for part in box]
    return [Doubt(value, _as_index(index), _as_box(box), wrong_ml, finding.code, finding.message)]


def _touching(crop: Mask, box: Slices, shape: tuple[int, ...]) -> Mask | None:
    """The voxels of a structure in the outermost plane of the scan in which it has most."""
    best: Mask | None = None
    for axis, (part, size) in enumerate(zip(box, shape, strict=True)):
        for touches, number in ((part.start == 0, 0), (part.stop == size, -1)):
            if touches:
                plane = np.zeros_like(crop)
                where = (slice(None),) * axis + (number,)
                plane[where] = crop[where]
                best = plane if best is None or plane.sum() > best.sum() else best
    return best


def _shift(box: Slices, start: Sequence[int]) -> Slices:
    return tuple(slice(part.start + at, part.stop + at) for part, at in zip(box, start, strict=True))  # type: ignore[return-value]


def _find_box(mask: Mask) -> Slices | None:
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if not hit.size:
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return (box[0], box[1], box[2])


def _find_inside(mask: Mask) -> npt.NDArray[np.intp]:
    """The voxel of a mask that is nearest to its middle."""
    places = np.argwhere(mask)
    return places[int(np.linalg.norm(places - places.mean(axis=0), axis=1).argmin())]


def _as_index(index: npt.NDArray[np.intp]) -> tuple[int, int, int]:
    return (int(index[0]), int(index[1]), int(index[2]))


def _as_box(box: Slices) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    return tuple((part.start, part.stop) for part in box)  # type: ignore[return-value]
