"""A DICOMDIR given as input: the files that it lists."""

from __future__ import annotations

import re
from pathlib import Path

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from effvit_med.io.cases import SetAside
from effvit_med.io.dicom_elements import PARSE_ERRORS, Elements, quiet_pydicom

_NAME = "DICOMDIR"


def list_directory(path: Path) -> tuple[list[Path], list[SetAside]] | None:
    """The files that a DICOMDIR lists, each once.

    Names are looked for below the folder of the DICOMDIR as they are, else in any case and with a version number, as
    some copies of discs have them. What lies outside that folder is not touched.

    Args:
        path: a file.

    Returns:
        The files that are there, and the DICOMDIR's other records with reasons; None if it is no DICOMDIR.

    Source:
        DICOM PS3.3 section F.3.2.2 (Referenced File ID), PS3.10 section 8 (file IDs).
    """
    try:
        with quiet_pydicom():
            meta = pydicom.filereader.read_file_meta_info(path)
            if str(meta.get("MediaStorageSOPClassUID", "")) != MediaStorageDirectoryStorage:
                return None
            records = list(pydicom.dcmread(path, force=True).get("DirectoryRecordSequence") or ())
            names = [[str(part).strip() for part in Elements(each).values("ReferencedFileID")] for each in records]
    except PARSE_ERRORS:
        return None
    found: dict[Path, None] = {}
    missing: list[SetAside] = []
    for parts in filter(None, names):
        if not all(re.fullmatch(r"[^/\\\0]+", part) and set(part) != {"."} for part in parts):
            missing.append(SetAside(path, "MISSING_FILE", f"{path.name} lists a file outside its own folder."))
            continue
        file = _look_up(path.parent, parts)
        if file is None:
            listed = SetAside(
                path.parent.joinpath(*parts), "MISSING_FILE", f"{path.name} lists {parts[-1]}: not there."
            )
            missing.append(listed)
        elif file.resolve() != path.resolve():
            found[file] = None
    return list(found), missing


def _look_up(folder: Path, parts: list[str]) -> Path | None:
    """The file of a record, inside the folder also after links are followed."""
    place = folder
    for part in parts:
        straight = place / part
        place = straight if straight.exists() else _find_name(place, part)
    inside = place.resolve().is_relative_to(folder.resolve())
    return place if inside and place.is_file() else None


def _find_name(folder: Path, name: str) -> Path:
    """An entry of that name in any case, also with a dot or a version number as on ISO 9660 discs."""
    wanted = name.casefold().rstrip(".")
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        entries = []
    near = (entry for entry in entries if re.sub(r"\.?(;\d+)?$", "", entry.name.casefold()) == wanted)
    return next(near, folder / name)
