"""What can be counted in a segmentation: volumes and the intensities under each structure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import GeometryError
from effvit_med.volume.counts import find_labelled
from effvit_med.volume.labels import Code, Label
from effvit_med.volume.pages import count_slab, release_pages
from effvit_med.volume.segmentation import Segmentation
from effvit_med.volume.volume import SPACING_ASSUMED, Volume

NOT_FOUND = "not found by the model"
NOT_FINITE = "some values under the structure are not finite numbers"
NO_CONFIDENCE = "the segmentation has no confidence map"

_SAME_GRID_MM = 0.01


@dataclass(frozen=True)
class Measurement:
    """What was measured of one structure.

    Attributes:
        structure: name of the structure, such as ``kidney_left``.
        value: its number in the label array.
        type: what the structure is, as a code.
        laterality: its side as a code, or None where a side makes no sense.
        voxels: number of voxels, or of pixels of a photograph; None if the structure was not found.
        volume_ml: volume in millilitres, or None if the structure was not found, or in a photograph.
        mean: mean of the voxel values in ``unit``, or None.
        sd: standard deviation of the voxel values over the whole structure (divided by the number of voxels), in
            ``unit``, or None.
        minimum: smallest voxel value in ``unit``, or None.
        maximum: largest voxel value in ``unit``, or None.
        unit: ``HU`` for CT, else empty: the unit is not known.
        mean_confidence: mean over the structure of how clearly its voxels were decided, from 0 (a tie of two classes)
            to 1 (certain), see `Segmentation`; None if the structure was not found or there is no confidence map.
        cut_by_field_of_view: whether the structure touches a border of the scan, so that a part may be missing.
        reason: why numbers are None; empty where all are there, but for the confidence.
        confidence_reason: why ``mean_confidence`` is None; empty where it is there.
        area_mm2: of a photograph whose file says how large a pixel is: the area in square millimetres; else None.
    """

    structure: str
    value: int
    type: Code
    laterality: Code | None = None
    voxels: int | None = None
    volume_ml: float | None = None
    mean: float | None = None
    sd: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    unit: str = ""
    mean_confidence: float | None = None
    cut_by_field_of_view: bool = False
    reason: str = ""
    confidence_reason: str = ""
    area_mm2: float | None = None


@dataclass
class _Moments:
    """Count, mean, sum of squared departures from the mean, smallest and largest value of each label value."""

    count: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    smallest: npt.NDArray[np.float64]
    largest: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, size: int) -> _Moments:
        return cls(np.zeros(size), np.zeros(size), np.zeros(size), np.full(size, np.inf), np.full(size, -np.inf))

    def add(self, labels: npt.NDArray[np.unsignedinteger], values: npt.NDArray[np.float64]) -> None:
        """Take in one slice: ``labels`` and ``values`` of its voxels, both (n,), in any order."""
        order = np.argsort(labels, kind="stable")
        labels, values = labels[order], values[order]
        starts = np.flatnonzero(np.diff(labels, prepend=0))
        rows = labels[starts]
        count = np.diff(starts, append=len(labels)).astype(np.float64)
        mean = np.add.reduceat(values, starts) / count
        squares = np.add.reduceat((values - np.repeat(mean, count.astype(np.intp))) ** 2, starts)
        total = self.count[rows] + count
        step = mean - self.mean[rows]
        self.squares[rows] += squares + step**2 * self.count[rows] * count / total
        self.mean[rows] += step * count / total
        self.count[rows] = total
        self.smallest[rows] = np.minimum(self.smallest[rows], np.minimum.reduceat(values, starts))
        self.largest[rows] = np.maximum(self.largest[rows], np.maximum.reduceat(values, starts))


def measure(volume: Volume, segmentation: Segmentation) -> tuple[Measurement, ...]:
    """The measurements of every structure of the label table, in its order.

    A volume is the sum over slices of the number of voxels times the true volume of a voxel of that slice, so that it
    is right for slices at unequal distances and for a tilted gantry. A structure that is not there has None for
    every number and a reason, never 0: a scan that does not show the liver says nothing about its size. A photograph
    has no volumes: its pixels are counted, and their area is told where the file says how large a pixel is.

    Args:
        volume: the scan or photograph.
        segmentation: labels on the grid of the scan.

    Returns:
        One measurement per structure.

    Raises:
        GeometryError: if the labels do not lie on the grid of the scan.

    Source:
        Chan, Golub, LeVeque 1983, "Algorithms for computing the sample variance", equation 2.1 (means and sums of
        squares of parts are joined without loss of digits).

    Examples:
        >>> from effvit_med.volume import Geometry, LabelTable, Provenance
        >>> scan = Volume(np.full((2, 8, 8), 40), Geometry(np.diag([5.0, 1.0, 1.0, 1.0]), (2, 8, 8)), "CT")
        >>> table = LabelTable((Label(1, "liver", Code("10200004", "Liver")),))
        >>> labels = np.zeros((2, 8, 8), np.uint8)
        >>> labels[0, 2:4, 2:7] = 1
        >>> made = Provenance("example", "1", "", {}, {}, "cpu", "2024-01-01T00:00:00+00:00")
        >>> liver = measure(scan, Segmentation(labels, scan.geometry, table, made))[0]
        >>> liver.voxels, round(liver.volume_ml, 4), liver.mean, liver.unit, liver.cut_by_field_of_view
        (10, 0.05, 40.0, 'HU', True)
    """
    distance = volume.geometry.max_distance_mm(segmentation.geometry)
    if distance > _SAME_GRID_MM:
        raise GeometryError(
            f"The labels {segmentation.geometry.shape} lie up to {distance:.3g} mm away from the voxels of the scan "
            f"{volume.geometry.shape}; measure on the grid the labels were made for."
        )
    size = max((label.value for label in segmentation.table), default=0) + 1
    sums = _sum_up(volume.array, segmentation, size)
    flat = volume.is_photograph
    at_border = _values_at_border(segmentation.labels, (1, 2) if flat else (0, 1, 2))
    unit = "HU" if volume.modality == "CT" else ""
    rows = tuple(_row(label, sums, unit, cut=label.value in at_border) for label in segmentation.table)
    return tuple(_as_area(row, volume) for row in rows) if flat else rows


@dataclass(frozen=True)
class _Sums:
    """What one sweep over the scan gives, by label value.

    Attributes:
        moments: of the voxel values.
        volumes_mm3: volume.
        confidence: sum of the confidence over the voxels, or None where there is no confidence map.
    """

    moments: _Moments
    volumes_mm3: npt.NDArray[np.float64]
    confidence: npt.NDArray[np.float64] | None


def _sum_up(array: npt.NDArray[np.number], segmentation: Segmentation, size: int) -> _Sums:
    """The sums of every label value below ``size``, slice by slice; only voxels near labels are touched."""
    geometry, confidence = segmentation.geometry, segmentation.confidence
    moments, volumes_mm3, certain = _Moments.empty(size), np.zeros(size), np.zeros(size)
    maps = [segmentation.labels, array, *([] if confidence is None else [confidence])]
    stacks = [np.moveaxis(each, geometry.slice_axis, 0) for each in maps]
    slab = count_slab(stacks[1])
    for k, voxel_mm3 in enumerate(geometry.voxel_volumes_mm3()):
        found, *others = _take_labelled([stack[k] for stack in stacks])
        if found.size:
            volumes_mm3 += np.bincount(found, minlength=size) * voxel_mm3
            with np.errstate(invalid="ignore"):
                moments.add(found, others[0].astype(np.float64))
            if confidence is not None:
                certain += np.bincount(found, weights=others[1], minlength=size)
        if k % slab == slab - 1 or k == len(stacks[0]) - 1:
            for each in maps:
                release_pages(each)
    return _Sums(moments, volumes_mm3, None if confidence is None else certain)


def _take_labelled(planes: list[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """The values of each plane at the voxels that have a label; the first plane holds the labels."""
    flat = [np.ascontiguousarray(plane).reshape(-1) for plane in planes]
    where, group = find_labelled(flat[0])
    near = [each.reshape(-1, group)[where].reshape(-1) for each in flat]
    inside = near[0] > 0
    return [each[inside] for each in near]


def _values_at_border(labels: npt.NDArray[np.unsignedinteger], axes: tuple[int, ...]) -> set[int]:
    """The label values in the outermost layer of voxels, on either side of the axes."""
    sides = [np.bincount(labels.take(end, axis).reshape(-1)) for axis in axes for end in (0, -1)]
    release_pages(labels)
    return {int(value) for side in sides for value in np.flatnonzero(side)}


def _as_area(row: Measurement, photograph: Volume) -> Measurement:
    """The row of a structure with its area in place of its volume."""
    findings = photograph.source.findings if photograph.source else ()
    known = row.voxels is not None and not any(finding.code == SPACING_ASSUMED for finding in findings)
    _, down, across = photograph.geometry.spacing_mm
    return replace(row, volume_ml=None, area_mm2=(row.voxels or 0) * down * across if known else None)


def _row(label: Label, sums: _Sums, unit: str, *, cut: bool) -> Measurement:
    moments, value = sums.moments, label.value
    blank = Measurement(label.name, value, label.type, label.laterality, unit=unit)
    count = int(moments.count[value])
    if count == 0:
        return replace(blank, reason=NOT_FOUND, confidence_reason=NOT_FOUND)
    found = replace(blank, voxels=count, volume_ml=float(sums.volumes_mm3[value]) / 1000, cut_by_field_of_view=cut)
    if sums.confidence is None:
        found = replace(found, confidence_reason=NO_CONFIDENCE)
    else:
        found = replace(found, mean_confidence=float(sums.confidence[value]) / count / 255)
    mean = float(moments.mean[value])
    if not np.isfinite(mean):
        return replace(found, reason=NOT_FINITE)
    return replace(
        found,
        mean=mean,
        sd=float(np.sqrt(moments.squares[value] / count)),
        minimum=float(moments.smallest[value]),
        maximum=float(moments.largest[value]),
    )
