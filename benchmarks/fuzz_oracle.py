"""What may become of any file: read, or refused in words, and in the right place. All else is an offence."""

from __future__ import annotations

import struct
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom

from benchmarks.seg_readback import corners_mm
from effvit_med.errors import EffvitError
from effvit_med.io import DicomSeries, Found, NiftiFile, ReadOptions, open_input, read_case
from effvit_med.io.cases import Case
from effvit_med.volume import Geometry, Volume

MOST_CASES = 6
"""Of one input; the rest is found but not decoded."""

_LEFT_OUT_WITH_WORDS = frozenset({"DUPLICATE_FILE", "DUPLICATE_POSITION"})


@dataclass(frozen=True)
class Outcome:
    """What became of an input.

    Attributes:
        status: ``read``, ``findings``, ``refused``, ``set aside``, or ``offence``.
        offence: what kind, such as ``exception``, ``geometry`` or ``dropped``; empty otherwise.
        detail: where and what.
    """

    status: str
    offence: str = ""
    detail: str = ""


class _OffenceError(Exception):
    """A rule was broken."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def judge_input(path: Path, home: Path) -> Outcome:
    """Read everything that an input holds, and hold it against the files themselves.

    Args:
        path: what is opened.
        home: the folder that holds all of it; no file elsewhere may be read, but for what an archive was unpacked to.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with open_input(path) as found:
                return _judge(found, path, home)
    except EffvitError as error:
        return _check_text(str(error)) or Outcome("refused")
    except _OffenceError as error:
        return Outcome("offence", error.kind, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return Outcome("offence", "warning" if isinstance(error, Warning) else "exception", _locate(error))


def _judge(found: Found, path: Path, home: Path) -> Outcome:
    for text in (*(each.reason for each in found.set_aside), *(each.message for each in found.refused)):
        bad = _check_text(text)
        if bad:
            return bad
    _account(found, path, home)
    states = {"refused"} if found.refused else set()
    for case in found.cases[:MOST_CASES]:
        try:
            volume = read_case(case, ReadOptions())
        except EffvitError as error:
            states.add("refused")
            bad = _check_text(str(error))
            if bad:
                return bad
            continue
        _check_place(case, volume)
        states.add("findings" if volume.source and volume.source.findings else "read")
    return Outcome(next((each for each in ("findings", "read", "refused") if each in states), "set aside"))


def _check_text(text: str) -> Outcome | None:
    """Running out of memory on a file of some kilobytes is no answer, even where it is caught."""
    return Outcome("offence", "memory", text) if "MemoryError" in text or "Unable to allocate" in text else None


def _locate(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "effvit_med" in frame.filename] or frames
    last = frames[-1]
    return (
        f"{type(error).__name__} in {Path(ours[-1].filename).name}:{ours[-1].name} "
        f"({Path(last.filename).name}:{last.lineno}): {' '.join(str(error).split())[:200]}"
    )


def _account(found: Found, path: Path, home: Path) -> None:
    """Every file is a slice, set aside, or part of what was refused or named as a copy; and none lies elsewhere."""
    used = {file for case in found.cases for file in _files_of(case)}
    aside = {each.path for each in found.set_aside}
    inside = home.resolve()
    is_archive = path.is_file() and zipfile.is_zipfile(path)
    if not is_archive:
        for file in used:
            if not file.resolve().is_relative_to(inside):
                raise _OffenceError("escape", f"{file.name} lies outside the input")
    if found.refused or path.name == "DICOMDIR" or is_archive:
        return
    codes = {finding.code for case in found.cases if isinstance(case, DicomSeries) for finding in case.findings}
    present = {file for file in home.rglob("*") if file.is_file()} if path.is_dir() else {path}
    missing = present - used - aside
    if missing and not codes & _LEFT_OUT_WITH_WORDS:
        raise _OffenceError("dropped", f"{len(missing)} file(s) are neither read, refused nor set aside")


def _files_of(case: Case) -> Sequence[Path]:
    return case.files if isinstance(case, DicomSeries) else (case.path,)


def _check_place(case: Case, volume: Volume) -> None:
    if not np.isfinite(volume.array).all():
        raise _OffenceError("values", "the volume holds values that are not finite")
    if isinstance(case, NiftiFile):
        with np.errstate(all="ignore"):
            _check_nifti(case.path, volume)
        return
    if not isinstance(case, DicomSeries):  # a photograph lies nowhere
        return
    spacing = volume.geometry.spacing_mm
    tolerance = float(np.hypot(0.25 * spacing[0], 0.25 * min(spacing[1:]))) + 0.01
    if min(getattr(case, "frames", ()), default=0) < 0:  # tiles of a mosaic, whose places no tag gives
        return
    for index, truth in enumerate(_true_corners(case)):
        rows, columns = volume.geometry.shape[1:]
        claimed = _claimed(volume.geometry, [(index, r, c) for r in (0, rows - 1) for c in (0, columns - 1)])
        distance = float(np.linalg.norm(claimed - truth, axis=1).max())
        if not distance <= tolerance:
            raise _OffenceError("geometry", f"slice {index} lies {distance:.3g} mm from where its file says")


def _claimed(geometry: Geometry, index: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """World points of indices, worked out from the affine and slice offsets alone."""
    points = np.array(index, np.float64)
    if geometry.slice_offsets is not None:
        axis = geometry.slice_axis
        points[:, axis] = np.array(geometry.slice_offsets)[points[:, axis].astype(int)]
    affine = np.asarray(geometry.affine)
    return np.asarray(points @ affine[:3, :3].T + affine[:3, 3])


def _true_corners(case: DicomSeries) -> Iterator[npt.NDArray[np.float64]]:
    """The corners of each slice as pydicom reads them from its file."""
    numbers = getattr(case, "frames", ()) or (0,) * len(case.files)
    known: dict[Path, Any] = {}
    for path, number in zip(case.files, numbers, strict=True):
        if path not in known:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                known[path] = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        dataset = known[path]
        place = _group(dataset, number, "PlanePositionSequence", "ImagePositionPatient")
        turn = _group(dataset, number, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = _group(dataset, number, "PixelMeasuresSequence", "PixelSpacing")
        size = int(dataset.Rows), int(dataset.Columns)
        yield corners_mm([float(v) for v in place], [float(v) for v in turn], [float(v) for v in spacing], size)


def _group(dataset: Any, number: int, sequence: str, keyword: str) -> Any:
    """A value of a frame: its own, else that of all frames, else that of the image."""
    if number:
        own = dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = dataset.get("SharedFunctionalGroupsSequence") or []
        for item in (*own[number - 1 : number], *shared[:1]):
            if sequence in item and len(item[sequence].value) and keyword in item[sequence].value[0]:
                return item[sequence].value[0][keyword].value
    return dataset[keyword].value


def _check_nifti(path: Path, volume: Volume) -> None:
    """The volume lies where sform or qform says; where these differ, or neither is there, a finding says so."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = zlib.decompressobj(31).decompress(content, 600)
    truths = nifti_affines(content)
    codes = {finding.code for finding in volume.source.findings} if volume.source else set()
    if codes & {"NO_GEOMETRY", "BAD_AFFINE"}:
        return
    last = [[(s - 1) * (corner >> axis & 1) for axis, s in enumerate(volume.geometry.shape)] for corner in range(8)]
    ours = _claimed(volume.geometry, last)
    away = [float(np.abs(np.array(last) @ truth[:3, :3].T + truth[:3, 3] - ours).max()) for truth in truths]
    allowed = 0.25 * min(volume.geometry.spacing_mm) + 0.01 + 1e-6 * float(np.abs(ours).max())
    wrong = [distance for distance in away if not distance <= allowed]
    if not away or len(wrong) == len(away) or (wrong and "AFFINES_DIFFER" not in codes):
        raise _OffenceError("geometry", f"corners lie {away} mm from where sform and qform place them")


def nifti_affines(content: bytes) -> list[npt.NDArray[np.float64]]:
    """The affines to LPS mm that a NIfTI header gives, that of the sform first, worked out from its bytes.

    Args:
        content: the first 544 bytes of a file.

    Source:
        NIfTI-1 and NIfTI-2 headers (nifti1.h, nifti2.h): methods 3 and 2 of orientation.
    """
    second = content[4:7] == b"n+2"
    size = 540 if second else 348
    order = "<" if struct.unpack_from("<i", content)[0] == size else ">"
    codes_at, quaternion_at, matrix_at, sizes_at = (344, 352, 400, 104) if second else (252, 256, 280, 76)
    kind, number = ("i", "d") if second else ("h", "f")
    qform, sform = struct.unpack_from(f"{order}2{kind}", content, codes_at)
    b, c, d, x, y, z = struct.unpack_from(f"{order}6{number}", content, quaternion_at)
    sizes = struct.unpack_from(f"{order}4{number}", content, sizes_at)
    (units,) = struct.unpack_from(f"{order}i", content, 500) if second else (content[123],)
    mm = {1: 1000.0, 3: 0.001}.get(units & 7, 1.0)  # metres, micrometres
    flip = np.diag([-mm, -mm, mm, 1])
    found = []
    if sform > 0:
        matrix = np.array(struct.unpack_from(f"{order}12{number}", content, matrix_at), np.float64).reshape(3, 4)
        found.append(flip @ np.vstack([matrix, [0, 0, 0, 1]]))
    if qform > 0:
        a = np.sqrt(max(0.0, 1 - (b * b + c * c + d * d)))
        turn = np.array([
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ])  # fmt: skip
        affine = np.eye(4)
        affine[:3, :3] = turn * [sizes[1], sizes[2], sizes[3] * (-1 if sizes[0] < 0 else 1)]
        affine[:3, 3] = x, y, z
        found.append(flip @ affine)
    return found
