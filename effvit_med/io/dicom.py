"""A DICOM series becomes a volume: the pixels of its files on the grid that its headers gave."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effvit_med.errors import RefusedError
from effvit_med.io.cases import DicomSeries
from effvit_med.io.dicom_pixels import Plane, read_planes
from effvit_med.io.spill import SPILL_MB
from effvit_med.io.values import PlaneStack, replace_non_finite
from effvit_med.volume import Finding, Source, SourceFile, Volume


def read_series(series: DicomSeries, spill_mb: int = SPILL_MB) -> Volume:
    """Decode the pixels of a series.

    Each slice is scaled by its own Rescale Slope and Intercept. The array is int16 where all values are whole numbers
    in its range, else float32. Its axes are slice, row, column; the slices lie in the order of ``series.files``.

    Args:
        series: as `effvit_med.io.find.open_input` gives it.
        spill_mb: above this many MiB of voxels the array lies in a temporary file and cannot be written to.

    Returns:
        The volume, with the SHA-256 of every file and the findings of headers and pixels.

    Raises:
        RefusedError: ``UNREADABLE_PIXELS``, ``MISSING_DECODER`` or ``BAD_RESCALE``, naming the file.
        OutputError: if the temporary file does not fit onto its disk.
    """
    count, rows, columns = series.geometry.shape
    images = series.images
    stack = PlaneStack(count, spill_mb)
    files: list[SourceFile | None] = [None] * count
    findings: dict[Finding, None] = dict.fromkeys(series.findings)
    padding: list[tuple[npt.NDArray[np.uint8] | None, float]] = [(None, 0.0)] * count
    for index, plane in _read_slices(series):
        (path, frame), uid = images[index], series.sop_instance_uids[index]
        if plane.values.shape != (rows, columns) or plane.sop_instance_uid != uid:
            message = f"{path.name} is no longer the image that was found when the folder was searched."
            raise RefusedError("UNREADABLE_PIXELS", message, "Wait until all files are copied, then start again.")
        stack.put(index, plane.values)
        files[index] = SourceFile(path, plane.sha256, uid, max(0, frame))
        findings.update(dict.fromkeys(plane.findings))
        if plane.padding is not None:
            padding[index] = (np.packbits(plane.padding), plane.padding_value)
    for finding in (*_fill_padding(stack, padding), *replace_non_finite(stack)):
        findings[finding] = None
    source = Source(
        case_id=series.case_id,
        kind="DICOM",
        files=tuple(file for file in files if file),
        study_instance_uid=series.study_instance_uid,
        series_instance_uid=series.series_instance_uid,
        findings=tuple(findings),
    )
    return Volume(stack.array, series.geometry, series.modality, source)


def _read_slices(series: DicomSeries) -> Iterator[tuple[int, Plane]]:
    """The index and the pixels of each slice; all frames of a file one after another."""
    by_file: dict[Path, list[int]] = defaultdict(list)
    for index, path in enumerate(series.files):
        by_file[path].append(index)
    images = series.images
    for path, indices in by_file.items():
        indices.sort(key=lambda index: images[index][1])
        yield from zip(indices, read_planes(path, [images[index][1] for index in indices]), strict=True)


def _fill_padding(
    stack: PlaneStack, padding: Sequence[tuple[npt.NDArray[np.uint8] | None, float]]
) -> tuple[Finding, ...]:
    """Set padding pixels, in place, to the smallest value of all others; packed masks, one per slice."""
    padded = [index for index, (packed, _) in enumerate(padding) if packed is not None]
    if not padded:
        return ()

    def unpack(index: int) -> npt.NDArray[np.bool_]:
        packed, plane = padding[index][0], stack.plane(index)
        if packed is None:
            return np.zeros(plane.shape, bool)
        return np.unpackbits(packed, count=plane.size).reshape(plane.shape).astype(bool)

    lowest = [valid.min() for index in range(stack.count) if (valid := stack.plane(index)[~unpack(index)]).size]
    if not lowest:
        return ()
    fill = min(lowest)
    total = 0
    for index in padded:
        mask = unpack(index)
        stack.put(index, np.where(mask, fill, stack.plane(index)))
        total += int(mask.sum())
    values = ", ".join(sorted({f"{padding[index][1]:g}" for index in padded}))
    message = f"{total} of {stack.size} voxels are padding (value {values}); they were set to {float(fill):g}."
    return (Finding("PADDING", message),)
