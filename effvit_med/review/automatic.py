"""The automatic result that a review starts from, kept beside the journal."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import EffvitError, InputError, RefusedError
from effvit_med.io.atomic import atomic_path
from effvit_med.volume import Geometry, LabelTable, Provenance, Segmentation
from effvit_med.volume.counts import digest_labels

AUTOMATIC_FILE = "automatic.npz"

_LEVEL = 1  # of deflate: labels get as small with it, and ten times as quickly
_LARGEST_SLAB = 2**24  # bytes that are handed to the compressor at once


def refuse_overlaps(segmentation: Segmentation) -> None:
    """Nothing, if no structures overlap.

    Args:
        segmentation: the automatic result.

    Raises:
        RefusedError: ``OVERLAPPING_STRUCTURES``, if some do.
    """
    if segmentation.table.overlaps:
        text = "Structures of this result overlap, and a review changes label maps in which a voxel has one."
        raise RefusedError("OVERLAPPING_STRUCTURES", text, "Correct its DICOM SEG in a program that knows overlap.")


def write_automatic(folder: Path, segmentation: Segmentation) -> dict[str, Any]:
    """Keep labels and confidence in a file that numpy reads.

    Args:
        folder: where to.
        segmentation: the automatic result.

    Returns:
        What `read_automatic` needs beside the file, as plain values: geometry, table, provenance, digests.

    Raises:
        OutputError: if the file could not be written.
    """
    arrays = _arrays_of(segmentation)
    with (
        atomic_path(folder / AUTOMATIC_FILE) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array_header_1_0(
                    stream, {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
                )
                row = array.reshape(-1).view(np.uint8)
                for start in range(0, row.size, _LARGEST_SLAB):
                    stream.write(row[start : start + _LARGEST_SLAB].data)
    provenance = segmentation.provenance.to_dict()
    return {
        "geometry": _describe_geometry(segmentation.geometry),
        "table": segmentation.table.to_dicts(),
        "provenance": json.loads(json.dumps(provenance, default=str)),
        "digests": {name: digest_labels(array) for name, array in arrays.items()},
    }


def read_automatic(folder: Path, described: Mapping[str, Any]) -> Segmentation:
    """The automatic result that was kept.

    Args:
        folder: where it lies.
        described: what `write_automatic` returned.

    Raises:
        InputError: if the file is gone, or is not the one that was kept.
    """
    path = folder / AUTOMATIC_FILE
    try:
        arrays = {name: _read_array(path, name) for name in described["digests"]}
        damaged = [name for name, digest in described["digests"].items() if digest_labels(arrays[name]) != digest]
        if damaged:
            raise InputError(f"{path} is not the file that this review started from: its {damaged[0]} are others.")
        return Segmentation(
            arrays["labels"],
            _restore_geometry(described["geometry"]),
            LabelTable.from_dicts(described["table"]),
            Provenance.from_dict(described["provenance"]),
            arrays.get("confidence"),
        )
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, EffvitError) as error:
        raise InputError(
            f"{path}, the automatic result that the review started from, cannot be used: {error}. Bring the file back, "
            "or start a new review."
        ) from error


def _arrays_of(segmentation: Segmentation) -> dict[str, npt.NDArray[Any]]:
    arrays: dict[str, npt.NDArray[Any]] = {"labels": np.ascontiguousarray(segmentation.labels)}
    if segmentation.confidence is not None:
        arrays["confidence"] = np.ascontiguousarray(segmentation.confidence)
    return arrays


def _read_array(path: Path, name: str) -> npt.NDArray[Any]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _describe_geometry(geometry: Geometry) -> dict[str, Any]:
    return {
        "affine": geometry.affine.tolist(),
        "shape": list(geometry.shape),
        "frame_of_reference_uid": geometry.frame_of_reference_uid,
        "slice_offsets": geometry.slice_offsets,
        "slice_axis": geometry.slice_axis,
    }


def _restore_geometry(plain: Mapping[str, Any]) -> Geometry:
    shape, offsets = plain["shape"], plain["slice_offsets"]
    return Geometry(
        np.array(plain["affine"], np.float64),
        (shape[0], shape[1], shape[2]),
        plain["frame_of_reference_uid"],
        None if offsets is None else tuple(offsets),
        plain["slice_axis"],
    )
