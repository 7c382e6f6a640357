"""Whether a NIfTI file holds all of its voxels, told from lengths alone where they tell it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from effvit_med.errors import RefusedError
from effvit_med.io.streams import UNPACK_ERRORS, HashedFile

REMAKE = "Copy or convert the file again."
_CHUNK = 2**20


def voxel_start(header: Any) -> int:
    """Where the voxels begin in a file; right after the header where it says nonsense."""
    size, offset = int(header["sizeof_hdr"]), header["vox_offset"]
    return int(offset) if math.isfinite(offset) and offset >= size else size


def check_length(file: HashedFile, header: Any, shape: tuple[int, int, int], path: Path) -> None:
    """Refuse a file that ends before its voxels do.

    A compressed file notes its length at its end; where that says too little the file is cut off, or made of several
    parts of which the last is noted, and only then it is unpacked to count.

    Args:
        file: of which no more than its head was looked at.
        header: its header.
        shape: the sizes of its volume.
        path: where it lies.

    Raises:
        OSError: if the file cannot be read.
        RefusedError: ``UNREADABLE_PIXELS``.

    Source:
        RFC 1952 section 2.3.1: ISIZE, the unpacked length modulo 2**32.
    """
    needed = voxel_start(header) + math.prod(shape) * header.get_data_dtype().itemsize
    there = path.stat().st_size
    if file.is_compressed:
        with path.open("rb") as ending:
            ending.seek(max(0, there - 4))
            noted = int.from_bytes(ending.read(4), "little")
        if needed >= 2**32 or noted == needed:
            return
        there = _unpacked_length(file, needed, path)
    if there < needed:
        raise RefusedError("UNREADABLE_PIXELS", f"{path.name} is cut off: {there} of {needed} bytes.", REMAKE)


def _unpacked_length(file: HashedFile, needed: int, path: Path) -> int:
    there = 0
    try:
        while there < needed and (part := file.stream.read(min(_CHUNK, needed - there))):
            there += len(part)
    except UNPACK_ERRORS as error:
        raise RefusedError("UNREADABLE_PIXELS", f"{path.name} cannot be unpacked: {error}.", REMAKE) from error
    return there
