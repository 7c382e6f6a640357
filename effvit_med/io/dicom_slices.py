"""From the positions of slices to a grid: order, step, shear, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from effvit_med.errors import GeometryError, RefusedError
from effvit_med.io.cases import ReadOptions
from effvit_med.io.dicom_header import Header
from effvit_med.volume import Finding, Geometry

FloatArray = npt.NDArray[np.float64]

SAME_POSITION_MM = 0.01
"""Images closer than this along the normal lie at one position; no scanner makes slices so close."""

STEP_TOLERANCE = 0.02
"""A slice may lie this part of a step off the regular grid: positions rounded to 0.1 mm at 7 mm steps pass, and the
error stays far below the half voxel that nearest-neighbour resampling makes anyway."""

STEP_TOLERANCE_MM = 0.02
"""The same for thin slices, where headers rounded to 0.01 mm weigh more; never more than a quarter of a step."""

LATERAL_TOLERANCE = 0.2
"""A slice may lie this part of a pixel beside the straight line through all slices; headers round positions."""

ORIENTATION_JITTER = 1e-4
"""Direction cosines may differ by this within a volume: 0.03 mm at the far end of a 256 mm image."""

ORTHOGONALITY = 1e-3
"""Squared lengths and inner product of the directions may miss 1 and 0 by this; beyond they are no rotation."""

SHEAR_DEGREES = 0.1
"""From this angle between slice line and normal on the tilt is reported; it is always in the affine."""

THICKNESS_TOLERANCE = 0.1
"""Thickness and distance of slices may part by this much where a scan goes over from thin slices to thick ones."""

MAX_SHEAR_DEGREES = 45.0
"""No gantry tilts this far; the positions cannot be those of one stack."""

DEFAULT_THICKNESS_MM = 1.0
"""For a single slice whose header gives no thickness."""

RESEND_OR_ALLOW = (
    "Send the series again, or read it on the scanner's own workstation and export it complete. To go on without the "
    "missing slices, allow gaps."
)
"""What to do where slices are missing."""


@dataclass(frozen=True)
class Stack:
    """Headers of one volume in the order of array axis 0, with their grid.

    Attributes:
        headers: one per slice.
        geometry: the grid; axes slice, row, column.
        findings: what the user should know of it.
    """

    headers: tuple[Header, ...]
    geometry: Geometry
    findings: tuple[Finding, ...]


def common_orientation(headers: Sequence[Header]) -> FloatArray:
    """The directions along a row and down a column that all headers share.

    Args:
        headers: with orientations, at least one.

    Returns:
        (2, 3) direction cosines, the median over the headers.

    Raises:
        RefusedError: ``BAD_GEOMETRY`` if they are not two perpendicular unit vectors, ``MIXED_ORIENTATION`` if an
            image is turned against the others.
    """
    each = np.array([header.orientation for header in headers], dtype=np.float64)
    common = np.median(each, axis=0)
    row, column = common[:3], common[3:]
    products = np.array([row @ row, column @ column, row @ column])
    if np.abs(products - [1, 1, 0]).max() > ORTHOGONALITY:
        message = f"Image Orientation {common.round(6).tolist()} is not two perpendicular unit vectors."
        raise RefusedError("BAD_GEOMETRY", message, "Export the series again from the source system.")
    away = np.abs(each - common).max(axis=1)
    worst = int(away.argmax())
    if away[worst] > ORIENTATION_JITTER:
        message = (
            f"{headers[worst].path.name} is turned against the other slices: its direction cosines differ by "
            f"{away[worst]:.2g}, tolerated is {ORIENTATION_JITTER:g}."
        )
        raise RefusedError("MIXED_ORIENTATION", message, "Leave that image out or export the series again.")
    row = row / np.linalg.norm(row)
    column = column - row * (row @ column)
    return np.stack([row, column / np.linalg.norm(column)])


def distances_along_normal(headers: Sequence[Header], orientation: FloatArray) -> FloatArray:
    """How far each image lies along the normal, the cross product of row and column direction.

    Args:
        headers: with positions.
        orientation: (2, 3) direction cosines.

    Returns:
        (number of headers,) distances in mm from the origin of the patient system.

    Source:
        DICOM PS3.3 section C.7.6.2.1.1.
    """
    normal = np.cross(orientation[0], orientation[1])
    positions = np.array([header.position for header in headers], dtype=np.float64)
    return np.asarray(positions @ (normal / np.linalg.norm(normal)), dtype=np.float64)


def place_slices(headers: Sequence[Header], options: ReadOptions) -> Stack:
    """The grid of images that all lie at different positions.

    Args:
        headers: in any order, with position, orientation and pixel spacing.
        options: what the user accepts.

    Returns:
        The headers in order, their grid and findings.

    Raises:
        RefusedError: ``BAD_GEOMETRY``, ``MIXED_ORIENTATION``, ``NOT_ONE_LINE`` or ``MISSING_SLICES``.

    Source:
        DICOM PS3.3 section C.7.6.2.1.1 (equation C.7.6.2.1-1), with the step between slices as third column.
    """
    orientation = common_orientation(headers)
    order = np.argsort(distances_along_normal(headers, orientation), kind="stable")
    headers = tuple(headers[index] for index in order)
    distances = distances_along_normal(headers, orientation)
    positions = np.array([header.position for header in headers], dtype=np.float64)
    between_rows, between_columns = _pixel_spacing(headers)
    if len(headers) == 1:
        spacing, step = _place_single(headers[0], orientation)
    else:
        spacing = _space_slices(headers, distances, options)
        step = (positions[-1] - positions[0]) / spacing.offsets[-1]
        _check_line(headers, positions, distances, min(between_rows, between_columns))
    affine = np.eye(4)
    affine[:3, :3] = np.stack([step, orientation[1] * between_rows, orientation[0] * between_columns], axis=1)
    affine[:3, 3] = positions[0]
    shape = (len(headers), headers[0].rows, headers[0].columns)
    try:
        geometry = Geometry(affine, shape, headers[0].frame_of_reference_uid)
        if not spacing.regular:
            geometry = replace(geometry, slice_offsets=tuple(spacing.offsets))
    except GeometryError as error:
        raise RefusedError("BAD_GEOMETRY", str(error), "Export the series again from the source system.") from error
    return Stack(headers, geometry, spacing.findings + _shear_findings(step, orientation))


@dataclass(frozen=True)
class _Spacing:
    """Places of slices in units of the nominal step."""

    offsets: FloatArray
    regular: bool
    findings: tuple[Finding, ...] = ()


def _pixel_spacing(headers: Sequence[Header]) -> tuple[float, float]:
    each = [header.pixel_spacing or (0.0, 0.0) for header in headers]
    spacing: FloatArray = np.median(np.array(each, dtype=np.float64), axis=0)
    if not (spacing > 0).all():
        message = f"Pixel Spacing is {spacing.tolist()} in {headers[0].path.name}; both values must be above 0."
        raise RefusedError("BAD_GEOMETRY", message, "Export the series again from the source system.")
    return float(spacing[0]), float(spacing[1])


def _place_single(header: Header, orientation: FloatArray) -> tuple[_Spacing, FloatArray]:
    thickness = header.slice_thickness
    findings = [Finding("SINGLE_SLICE", f"The series has one slice, {header.path.name}.")]
    if thickness is None:
        thickness = DEFAULT_THICKNESS_MM
        findings.append(
            Finding("NO_THICKNESS", f"{header.path.name} gives no Slice Thickness; {thickness:g} mm taken.")
        )
    normal = np.cross(orientation[0], orientation[1])
    return _Spacing(np.zeros(1), True, tuple(findings)), normal / np.linalg.norm(normal) * thickness


def _tolerance_mm(step_mm: float) -> float:
    return min(max(STEP_TOLERANCE * step_mm, STEP_TOLERANCE_MM), step_mm / 4)


def _space_slices(headers: Sequence[Header], distances: FloatArray, options: ReadOptions) -> _Spacing:
    """Regular slices, or slices at their true places; missing ones only where the user allows it."""
    count = len(distances)
    along = distances - distances[0]
    mean = float(along[-1]) / (count - 1)
    jitter = float(np.abs(along - np.arange(count) * mean).max())
    if jitter <= _tolerance_mm(mean):
        findings: tuple[Finding, ...] = ()
        if jitter > 0.005 * mean:
            message = f"Slices lie up to {jitter:.3g} mm off a regular grid of {mean:.4g} mm; taken as regular."
            findings = (Finding("SPACING_JITTER", message),)
        return _Spacing(np.arange(float(count)), True, findings)
    steps = np.diff(along)
    nominal = float(np.sort(steps)[(count - 2) // 2])  # the lower median: a true step even where half are gaps
    widths = np.rint(steps / nominal)
    places = np.concatenate([[0.0], np.cumsum(widths)])
    refined = float(along[-1] / places[-1]) if places[-1] else nominal
    on_grid = widths.min() >= 1 and np.abs(along - places * refined).max() <= _tolerance_mm(refined)
    if on_grid and not _are_thick(headers, steps, widths):
        message = _describe_gaps(headers, distances, widths)
        if "gaps" not in options.allow:
            raise RefusedError("MISSING_SLICES", message, RESEND_OR_ALLOW)
        return _Spacing(along / refined, False, (Finding("MISSING_SLICES", message),))
    odd = int(np.abs(steps - nominal).argmax())
    message = (
        f"The slice distances differ: {steps[odd]:.4g} mm before {headers[odd + 1].path.name} at "
        f"{distances[odd + 1]:.2f} mm along the normal, {nominal:.4g} mm elsewhere."
    )
    unit = mean if (widths == 1).all() else nominal
    return _Spacing(along / unit, False, (Finding("IRREGULAR_SPACING", message),))


def _are_thick(headers: Sequence[Header], steps: FloatArray, widths: FloatArray) -> bool:
    """Whether wide steps lie between slices that are thicker by as much, so that nothing is missing between them."""
    if any(header.slice_thickness is None for header in headers):
        return False
    thickness = np.array([header.slice_thickness for header in headers], dtype=np.float64)
    filled = (thickness[1:] + thickness[:-1]) / 2 / steps
    narrow = float(np.median(filled[widths == 1]))
    return bool((np.abs(filled[widths > 1] / narrow - 1) < THICKNESS_TOLERANCE).all())


def _describe_gaps(headers: Sequence[Header], distances: FloatArray, widths: FloatArray) -> str:
    gaps = np.flatnonzero(widths > 1)
    parts = [
        f"{int(widths[gap]) - 1} between {headers[gap].path.name} at {distances[gap]:.2f} mm and "
        f"{headers[gap + 1].path.name} at {distances[gap + 1]:.2f} mm"
        for gap in gaps[:3]
    ]
    more = f" and in {len(gaps) - 3} more gaps" if len(gaps) > 3 else ""
    missing = int((widths - 1).sum())
    return f"{missing} slice{'s are' if missing > 1 else ' is'} missing: {', '.join(parts)}{more}."


def _check_line(headers: Sequence[Header], positions: FloatArray, distances: FloatArray, pixel_mm: float) -> None:
    """Refuse slices that do not lie on one straight line."""
    along = (distances - distances[0]) / (distances[-1] - distances[0])
    line = positions[0] + along[:, None] * (positions[-1] - positions[0])
    if np.linalg.norm(positions - line, axis=1).max() <= LATERAL_TOLERANCE * pixel_mm:
        return
    # The ends may be at fault themselves, so the slice to name is the one farthest from a robust line.
    slopes = np.diff(positions, axis=0) / np.diff(distances)[:, None]
    rest = positions - distances[:, None] * np.median(slopes, axis=0)
    away = np.linalg.norm(rest - np.median(rest, axis=0), axis=1)
    odd = int(away.argmax())
    message = (
        f"The slices do not lie on one line: {headers[odd].path.name} at {distances[odd]:.2f} mm along the normal "
        f"is shifted sideways by {away[odd]:.2f} mm; tolerated is {LATERAL_TOLERANCE * pixel_mm:.2g} mm."
    )
    raise RefusedError("NOT_ONE_LINE", message, "Leave that image out or export the series again.")


def _shear_findings(step: FloatArray, orientation: FloatArray) -> tuple[Finding, ...]:
    normal = np.cross(orientation[0], orientation[1])
    cosine = float(step @ normal / (np.linalg.norm(step) * np.linalg.norm(normal)))
    degrees = float(np.degrees(np.arccos(min(1.0, cosine))))
    if degrees > MAX_SHEAR_DEGREES:
        message = f"The line through the slices is {degrees:.1f} degrees off their normal."
        raise RefusedError("NOT_ONE_LINE", message, "Export the series again from the source system.")
    if degrees <= SHEAR_DEGREES:
        return ()
    message = f"The slices are sheared by {degrees:.1f} degrees (gantry tilt); the grid keeps their true places."
    return (Finding("SHEARED", message),)
