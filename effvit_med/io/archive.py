"""Zip archives, unpacked so that no entry can write outside its folder or fill the disk."""

from __future__ import annotations

import os
import re
import shutil
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

from effvit_med.errors import InputError

MAX_UNPACKED_BYTES = 64 * 2**30
"""More than any study; what unpacks to more is a mistake or an attack."""

MAX_ENTRIES = 200_000
"""More files than any study has."""


_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, LookupError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip  # LookupError: an entry without a name


def unpack_zip(path: Path, folder: Path) -> None:
    """Unpack the files of an archive.

    Each entry goes to a numbered folder of its own under ``folder`` and keeps only the last part of its name, so that
    no name in the archive decides where anything is written.

    Args:
        path: the archive.
        folder: an existing empty folder.

    Raises:
        InputError: if the archive is damaged, encrypted, or unpacks to more than the limits or the free disk space.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_size(path, entries, folder)
            for number, entry in enumerate(entries):
                name = re.sub(r"[^\w.\- ()+=@,]", "_", re.split(r"[/\\]", entry.filename)[-1])[-100:].strip()
                target = folder / f"{number:06d}"
                target.mkdir()
                unpacked = target / (name.lstrip(".") or "file")
                with archive.open(entry) as source, unpacked.open("wb") as output:
                    shutil.copyfileobj(source, output, 2**20)
                _keep_time(unpacked, entry)
    except _DAMAGE as error:
        raise InputError(f"{path} cannot be unpacked: {error}. Unpack it yourself and give the folder.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be unpacked: {error.strerror or error}.") from error


def _keep_time(path: Path, entry: zipfile.ZipInfo) -> None:
    """Give a file the time that the archive has, so that it looks the same whenever it is unpacked."""
    with suppress(ValueError, OverflowError, OSError):
        moment = time.mktime((*entry.date_time, 0, 0, -1))
        os.utime(path, (moment, moment))


def _check_size(path: Path, entries: list[zipfile.ZipInfo], folder: Path) -> None:
    # zipfile never unpacks more of an entry than its declared size, so the sum of these is a true bound.
    total, free = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
    if len(entries) > MAX_ENTRIES:
        raise InputError(f"{path} holds {len(entries)} files; at most {MAX_ENTRIES} are unpacked.")
    if total > min(MAX_UNPACKED_BYTES, free * 0.9):
        raise InputError(
            f"{path} unpacks to {total / 2**30:.1f} GiB; the limit is {MAX_UNPACKED_BYTES / 2**30:.0f} GiB and "
            f"{free / 2**30:.1f} GiB are free on the disk of {folder}."
        )
