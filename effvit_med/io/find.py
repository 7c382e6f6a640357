"""A folder, a file or a zip archive becomes a list of cases; only headers are read."""

from __future__ import annotations

import os
import stat
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from effvit_med.errors import InputError, NoImagesError, RefusedError
from effvit_med.io.archive import unpack_zip
from effvit_med.io.cases import (
    DicomSeries,
    Found,
    NiftiFile,
    PhotographFile,
    ReadOptions,
    RefusedCase,
    SetAside,
)
from effvit_med.io.dicom_directory import list_directory
from effvit_med.io.dicom_header import Header
from effvit_med.io.dicom_headers import read_header
from effvit_med.io.dicom_series import assemble_series
from effvit_med.io.nifti import check_nifti, is_nifti_name, is_own_label_map, name_case
from effvit_med.io.photograph_cases import sort_photographs
from effvit_med.io.photographs import is_photograph_name
from effvit_med.io.settling import wait_until_settled
from effvit_med.volume import Finding

_MOVING = ("STILL_COPIED", "is still being written", "Wait until all files are copied, then start again.")

__all__ = [
    "DicomSeries",
    "Found",
    "NiftiFile",
    "PhotographFile",
    "ReadOptions",
    "RefusedCase",
    "SetAside",
    "find_cases",
    "open_input",
]


@contextmanager
def open_input(
    path: Path,
    options: ReadOptions | None = None,
    *,
    needs_images: bool = True,
    on_file: Callable[[int], None] | None = None,
) -> Iterator[Found]:
    """Find the cases of a folder, a single file or a zip archive.

    Args:
        path: a folder, which is searched with all its folders; an image file; or a ``.zip`` archive, which is
            unpacked to a temporary folder that is removed at the end of the ``with`` block.
        options: what the user accepts that is refused by default.
        needs_images: whether an input without any image is an error.
        on_file: called with the number of files looked at so far.

    Yields:
        The cases, what is refused and what is set aside, the same whatever the files are called.

    Raises:
        InputError: if the path does not exist or cannot be read.
        NoImagesError: if it holds nothing that is an image.

    Examples:
        >>> with open_input(Path("no such folder")) as found:
        ...     pass
        Traceback (most recent call last):
        ...
        effvit_med.errors.InputError: no such folder does not exist.
    """
    path, options = Path(path), options or ReadOptions()
    try:
        path.stat()
        wait_until_settled(lambda: [path] if path.is_file() else [], options.settle_s, options.settle_timeout_s)
        is_archive = path.is_file() and zipfile.is_zipfile(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if is_archive:
        with tempfile.TemporaryDirectory(prefix="effvit-med-") as folder:
            unpack_zip(path, Path(folder))
            found = find_cases(Path(folder), replace(options, settle_s=0), on_file)
            yield _require_images(found, path) if needs_images else found
    else:
        found = find_cases(path, options, on_file)
        yield _require_images(found, path) if needs_images else found


def find_cases(path: Path, options: ReadOptions, on_file: Callable[[int], None] | None = None) -> Found:
    """Find the cases of a folder or a single file; as `open_input`, but an empty result is no error.

    Args:
        path: a folder or a file.
        options: what the user accepts that is refused by default.
        on_file: called with the number of files looked at so far.

    Returns:
        The cases, what is refused and what is set aside.
    """
    headers: list[Header] = []
    niftis: list[Path] = []
    pictures: list[SetAside] = []
    set_aside: list[SetAside] = []
    moving = wait_until_settled(lambda: _regular_files(path), options.settle_s, options.settle_timeout_s)
    for number, each in enumerate(_list(path), start=1):
        if on_file:
            on_file(number)
        if isinstance(each, SetAside):
            set_aside.append(each)
        elif each in moving and is_nifti_name(each):
            set_aside.append(SetAside(each, _MOVING[0], f"{each.name} {_MOVING[1]}."))
        elif is_nifti_name(each):
            niftis.append(each)
        else:
            found = read_header(each)
            if isinstance(found, SetAside) and found.code == "UNKNOWN_FORMAT" and is_photograph_name(each):
                pictures.append(replace(found, code=_MOVING[0]) if each in moving else found)
            elif isinstance(found, SetAside):
                set_aside.append(replace(found, code=_MOVING[0]) if each in moving else found)
            else:
                headers.extend(replace(header, flaw=_MOVING) if each in moving else header for header in found)
    series, refused_series = assemble_series(headers, options)
    taken = {case.case_id for case in series} | {case.case_id for case in refused_series}
    files, refused_files, no_images = _sort_niftis(niftis, taken)
    series = tuple(_note_left_out(case, set_aside) for case in series)
    is_scan = bool(headers or niftis or any(aside.modality or aside.series_instance_uid for aside in set_aside))
    photographs = sort_photographs(pictures, options.photographs, taken, beside_scans=is_scan)
    return Found(
        (*series, *files, *photographs.cases),
        (*refused_series, *refused_files, *photographs.refused),
        (*set_aside, *no_images, *photographs.set_aside),
    )


def _note_left_out(case: DicomSeries, set_aside: Sequence[SetAside]) -> DicomSeries:
    """The series with a finding for each kind of its own files that is set aside, such as a localizer."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for each in set_aside:
        if each.series_instance_uid and each.series_instance_uid == case.series_instance_uid:
            kinds[each.code].append(each.path.name)
    findings = [
        Finding(code, f"{len(names)} file(s) of the series were left out ({code.lower()}): {', '.join(names[:3])}.")
        for code, names in kinds.items()
    ]
    return replace(case, findings=(*case.findings, *findings)) if findings else case


def _require_images(found: Found, path: Path) -> Found:
    if found.cases or found.refused:
        return found
    counts = found.count_set_aside() or "the folder is empty"
    first = f" ({found.set_aside[0].reason})" if len(found.set_aside) == 1 else ""
    raise NoImagesError(f"no images in {path}: {counts}{first}")


def _list(path: Path) -> Iterator[Path | SetAside]:
    """The files to look at: those below a folder, those that a DICOMDIR lists, or the one file."""
    listed = list_directory(path) if path.is_file() else None
    if listed is None:
        yield from _walk(path)
        return
    yield from listed[0]
    yield from listed[1]


def _regular_files(path: Path) -> Iterator[Path]:
    return (each for each in _list(path) if isinstance(each, Path))


def _walk(path: Path) -> Iterator[Path | SetAside]:
    """Every regular file, in a stable order; links are followed, but no folder is entered twice."""
    if not path.is_dir():
        yield _check_regular(path)
        return
    seen: set[tuple[int, int]] = set()
    problems: list[SetAside] = []

    def note(error: OSError) -> None:
        where = Path(error.filename or path)
        problems.append(SetAside(where, "UNREADABLE", f"{where.name} cannot be opened: {error.strerror}."))

    for folder, folders, names in os.walk(path, followlinks=True, onerror=note):
        try:
            status = Path(folder).stat()
        except OSError as error:
            note(error)
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        yield from (_check_regular(Path(folder, name)) for name in sorted(names))
    yield from problems


def _check_regular(path: Path) -> Path | SetAside:
    """The file, unless opening it could hang or fail: broken links, pipes, devices."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return SetAside(path, "NOT_A_FILE", f"{path.name} leads nowhere: {error.strerror}.")
    return path if stat.S_ISREG(mode) else SetAside(path, "NOT_A_FILE", f"{path.name} is no regular file.")


def _sort_niftis(paths: Sequence[Path], taken: set[str]) -> tuple[list[NiftiFile], list[RefusedCase], list[SetAside]]:
    files: list[NiftiFile] = []
    refused: list[RefusedCase] = []
    no_images: list[SetAside] = []
    for path in paths:
        if is_own_label_map(path):
            no_images.append(SetAside(path, "LABEL_MAP", f"{path.name} is a label map with a table beside it."))
            continue
        case_id = name_case(path, taken)
        try:
            geometry, findings = check_nifti(path)
        except RefusedError as error:
            refused.append(RefusedCase(case_id, error.code, error.message, error.remedy, (path,), is_dicom=False))
        except InputError as error:
            no_images.append(SetAside(path, "UNREADABLE", str(error)))
            continue
        else:
            files.append(NiftiFile(case_id, path, geometry, findings))
        taken.add(case_id)
    return files, refused, no_images
