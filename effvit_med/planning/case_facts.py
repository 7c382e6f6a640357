"""What is measured of one case before anything is planned: where it lies, what values it has, what is marked in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import RefusedError
from effvit_med.io.photographs import is_photograph_name
from effvit_med.io.read import read_scan, read_truth
from effvit_med.planning.training_set import TrainingCase
from effvit_med.volume import Finding, Geometry, Volume

SAME_PLACE_MM = 0.1
"""How far the voxels of an image and of its label map may lie apart, as in training."""

SAMPLE = 4096
"""Values of marked voxels that are kept of a case."""

MANY_VALUES = 24
"""A label map of more values, which nothing names, numbers single objects and not structures."""


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """What was measured of one case.

    Attributes:
        case_id: its name.
        geometry: where its voxels lie.
        is_photograph: whether it is a picture without a scanner's geometry.
        image_digest: of the voxel values of the image.
        label_digest: of those of the label map.
        lowest: the smallest value of the image.
        highest: the largest.
        counts: voxels of each label value that is there, 0 included.
        thickness_mm: of each structure, that of a round cord, or in one slice a strip, of its volume and surface.
        sample: values of marked voxels, evenly drawn; of all voxels where nothing is marked.
        findings: what the reader noticed, and what is odd but no reason to stop.
    """

    case_id: str
    geometry: Geometry
    is_photograph: bool
    image_digest: str
    label_digest: str
    lowest: float
    highest: float
    counts: Mapping[int, int]
    thickness_mm: Mapping[int, float]
    sample: npt.NDArray[np.float32]
    findings: tuple[Finding, ...] = ()


def measure_case(case: TrainingCase, known: frozenset[int] | None, ignore: int | None = None) -> CaseFacts:
    """Read a case, check it, and measure it.

    Args:
        case: which.
        known: the label values that mean something, 0 and the ignored one included; None if any may be there.
        ignore: the label value of voxels about which nothing is said; it counts as no structure.

    Raises:
        InputError: if the image or the label map cannot be read.
        RefusedError: ``NOT_ONE_GRID``, ``NOT_LABELS``, ``UNKNOWN_LABEL``, ``INSTANCES``, ``CONSTANT_IMAGE``, and those
            of the readers.
    """
    image = read_scan(case.image)
    label = read_truth(case.label, image.geometry)
    _require_one_grid(case, image.geometry, label.geometry)
    labels = _as_labels(case, label.array)
    values, numbers = np.unique(labels, return_counts=True)
    counts = {int(value): int(number) for value, number in zip(values, numbers, strict=True)}
    _require_known(case, counts, known)
    lowest, highest = float(image.array.min()), float(image.array.max())
    if lowest == highest:
        text = f"{case.image.name} has the value {lowest:g} in every voxel."
        raise RefusedError("CONSTANT_IMAGE", text, "Replace it, or leave it out.")
    structures = [value for value in counts if value not in (0, ignore)]
    marked = np.isin(labels, structures)
    sample = image.array[marked] if structures else image.array.ravel()
    step = max(1, len(sample) // SAMPLE)
    return CaseFacts(
        case_id=case.case_id,
        geometry=image.geometry,
        is_photograph=is_photograph_name(case.image),
        image_digest=_digest(image.array),
        label_digest=_digest(labels),
        lowest=lowest,
        highest=highest,
        counts=counts,
        thickness_mm={value: _thickness(labels == value, image.geometry) for value in structures},
        sample=sample[::step][:SAMPLE].astype(np.float32),
        findings=tuple(_find_oddities(case, image, structures)),
    )


def _require_one_grid(case: TrainingCase, image: Geometry, label: Geometry) -> None:
    names = f"{case.image.name} and {case.label.name}"
    remedy = "Bring the label map onto the image's grid, with the nearest neighbour and not with interpolation."
    if image.shape != label.shape:
        told = f"{names} have {_by(image.shape)} and {_by(label.shape)} voxels."
        raise RefusedError("NOT_ONE_GRID", told, remedy)
    distance_mm = image.max_distance_mm(label)
    if distance_mm > SAME_PLACE_MM:
        raise RefusedError("NOT_ONE_GRID", f"{names} lie {distance_mm:.2f} mm apart.", remedy)


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _as_labels(case: TrainingCase, array: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 65535 or not np.array_equal(array, np.rint(array)):
        text = f"{case.label.name} holds values from {low:g} to {high:g}; labels are whole numbers from 0 to 65535."
        raise RefusedError("NOT_LABELS", text, "Write it again as whole numbers, one for each structure.")
    return array.astype(np.uint16)


def _require_known(case: TrainingCase, counts: Mapping[int, int], known: frozenset[int] | None) -> None:
    if known is None:
        if len(counts) > MANY_VALUES + 1:
            text = f"{case.label.name} has {len(counts) - 1} label values: it seems to number single objects."
            remedy = "Give every voxel of a kind one value, or name what all values mean with --structure."
            raise RefusedError("INSTANCES", text, remedy)
        return
    unknown = {value: counts[value] for value in counts if value not in known}
    if unknown:
        told = ", ".join(f"{value} ({number} voxels)" for value, number in list(unknown.items())[:5])
        text = f"{case.label.name} has the label values {told}; known are {sorted(known)}."
        raise RefusedError("UNKNOWN_LABEL", text, "Correct the label map, or name the values with --structure.")


def _find_oddities(case: TrainingCase, image: Volume, structures: list[int]) -> list[Finding]:
    source = image.source
    found = [f for f in (source.findings if source else ()) if f.code not in ("NO_MODALITY", "NO_SPACING")]
    if not structures:
        found.append(Finding("NOTHING_MARKED", f"{case.label.name} marks nothing; is that right?"))
    return found


def _thickness(mask: npt.NDArray[np.bool_], geometry: Geometry) -> float:
    """Of a cord (or strip) of equal volume and surface, in mm; the edge of the image is no surface.

    A cord of the diameter d has 4 / d of surface per volume, a strip of the width w has 2 / w. A surface made of the
    faces of voxels is on average 3 / 2 times the smooth one, an outline made of pixels 4 / pi times.
    """
    spacing = geometry.spacing_mm
    for axis in range(3):  # only the box around it
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        window = slice(max(0, int(there[0]) - 1), int(there[-1]) + 2)
        mask = mask[(slice(None),) * axis + (window,)]
    surface = 0.0
    for axis in range(3):
        area = float(np.prod([spacing[other] for other in range(3) if other != axis]))
        surface += area * int(np.count_nonzero(np.diff(mask, axis=axis)))
    volume = float(np.prod(spacing)) * int(np.count_nonzero(mask))
    factor = 2 * 4 / np.pi if min(geometry.shape) == 1 else 4 * 3 / 2
    return float(factor * volume / surface) if surface else float("inf")


def _digest(array: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256(str(array.shape).encode())
    digest.update(np.ascontiguousarray(array, dtype=np.float32 if array.dtype.kind == "f" else np.int32).tobytes())
    return digest.hexdigest()
