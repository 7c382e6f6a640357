"""A folder, a file or a zip archive becomes a list of cases; only headers are read."""

from __future__ import annotations

import os
import stat
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from effvit_med.errors import InputError, NoImagesError, RefusedError
from effvit_med.io.archive import unpack_zip
from effvit_med.io.cases import (
    DicomSeries,
    Found,
    NiftiFile,
    ReadOptions,
    RefusedCase,
    SetAside,
)
from effvit_med.io.dicom_headers import Header, read_header
from effvit_med.io.dicom_series import assemble_series
from effvit_med.io.nifti import check_nifti, is_nifti_name, is_own_label_map, name_case

__all__ = ["DicomSeries", "Found", "NiftiFile", "ReadOptions", "RefusedCase", "SetAside", "find_cases", "open_input"]


@contextmanager
def open_input(path: Path, options: ReadOptions | None = None) -> Iterator[Found]:
    """Find the cases of a folder, a single file or a zip archive.

    Args:
        path: a folder, which is searched with all its folders; an image file; or a ``.zip`` archive, which is
            unpacked to a temporary folder that is removed at the end of the ``with`` block.
        options: what the user accepts that is refused by default.

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
        is_archive = path.is_file() and zipfile.is_zipfile(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if is_archive:
        with tempfile.TemporaryDirectory(prefix="effvit-med-") as folder:
            unpack_zip(path, Path(folder))
            yield _require_images(find_cases(Path(folder), options), path)
    else:
        yield _require_images(find_cases(path, options), path)


def find_cases(path: Path, options: ReadOptions) -> Found:
    """Find the cases of a folder or a single file; as `open_input`, but an empty result is no error.

    Args:
        path: a folder or a file.
        options: what the user accepts that is refused by default.

    Returns:
        The cases, what is refused and what is set aside.
    """
    headers: list[Header] = []
    niftis: list[Path] = []
    set_aside: list[SetAside] = []
    for each in _walk(path):
        if isinstance(each, SetAside):
            set_aside.append(each)
        elif is_nifti_name(each):
            niftis.append(each)
        else:
            header = read_header(each)
            if isinstance(header, Header):
                headers.append(header)
            else:
                set_aside.append(header)
    series, refused_series = assemble_series(headers, options)
    taken = {case.case_id for case in series} | {case.case_id for case in refused_series}
    files, refused_files, no_images = _sort_niftis(niftis, taken)
    return Found((*series, *files), (*refused_series, *refused_files), (*set_aside, *no_images))


def _require_images(found: Found, path: Path) -> Found:
    if found.cases or found.refused:
        return found
    counts = found.count_set_aside() or "the folder is empty"
    first = f" ({found.set_aside[0].reason})" if len(found.set_aside) == 1 else ""
    raise NoImagesError(f"no images in {path}: {counts}{first}")


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
            check_nifti(path)
        except RefusedError as error:
            message = str(error).removeprefix(f"{error.code}: ").removesuffix(error.remedy).strip()
            refused.append(RefusedCase(case_id, error.code, message, error.remedy, (path,)))
        except InputError as error:
            no_images.append(SetAside(path, "UNREADABLE", str(error)))
            continue
        else:
            files.append(NiftiFile(case_id, path))
        taken.add(case_id)
    return files, refused, no_images
