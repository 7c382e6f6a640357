"""Read the image files of ITK programs: NRRD and MetaImage (``.mha``), and label maps of NRRD and NIfTI."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import numpy.typing as npt

from effvit_med.errors import GeometryError, InputError, RefusedError, SettingsError
from effvit_med.io.nifti import is_nifti_name, labels_path, name_case, read_nifti
from effvit_med.io.values import PlaneStack, replace_non_finite
from effvit_med.volume import (
    Code,
    Finding,
    Geometry,
    Label,
    LabelTable,
    Provenance,
    Segmentation,
    Source,
    SourceFile,
    Volume,
)
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE

_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
    "las": (1, -1, 1),
}
_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_HEADER_BYTES = 2**16
_COLOURS = ((221, 130, 101), (157, 108, 162), (185, 102, 83), (111, 184, 210), (216, 101, 79), (128, 174, 128))


def read_nrrd(path: Path) -> Volume:
    """Read an NRRD file that holds one volume; the array keeps the axis order of the file.

    Args:
        path: ``.nrrd`` with its data inside.

    Returns:
        The volume; its modality is empty.

    Raises:
        InputError: if the file cannot be read or is no NRRD file.
        RefusedError: ``MULTI_VOLUME``, ``BAD_GEOMETRY``, ``NOT_GRAYSCALE``.

    Source:
        Definition of NRRD file format, version 5: space, space directions, space origin.
    """
    path = Path(path)
    array, header = _load_nrrd(path)
    geometry, findings = _place_nrrd(header, array.shape, path)
    return _make_volume(array, geometry, path, findings, "NRRD")


def read_metaimage(path: Path) -> Volume:
    """Read a MetaImage file with its data inside; the array keeps the axis order of the file.

    Args:
        path: ``.mha``.

    Returns:
        The volume; its modality is empty.

    Raises:
        InputError: if the file cannot be read or is no MetaImage file.
        RefusedError: ``MULTI_VOLUME``, ``BAD_GEOMETRY``, ``NOT_GRAYSCALE``, ``UNREADABLE_PIXELS``.

    Source:
        The MetaIO documentation: ObjectType, TransformMatrix, Offset, ElementSpacing, ElementType, ElementDataFile.
        Each row of TransformMatrix is the direction of one axis, as ITK writes it (LPS).
    """
    path = Path(path)
    header, content = _split_metaimage(path)
    sizes = _numbers(header, "DimSize", path)
    if len(sizes) != 3 or min(sizes) < 1:
        message = f"{path.name} has the sizes {sizes}; one three-dimensional volume is needed."
        raise RefusedError("MULTI_VOLUME", message, "Write one file per volume.")
    kind = _META_TYPES.get(header.get("ElementType", ""))
    if kind is None or header.get("ElementNumberOfChannels", "1") != "1":
        message = (
            f"{path.name} holds {header.get('ElementType')} with {header.get('ElementNumberOfChannels', '1')} channels."
        )
        raise RefusedError("NOT_GRAYSCALE", message, "Convert it to one channel of numbers.")
    big = header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB", "False")).lower() == "true"
    dtype = np.dtype(f"{'>' if big else '<'}{kind}")
    shape = (int(sizes[0]), int(sizes[1]), int(sizes[2]))
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if header.get("CompressedData", "False").lower() == "true":
        try:
            content = zlib.decompressobj().decompress(content, wanted)
        except zlib.error as error:
            raise RefusedError(
                "UNREADABLE_PIXELS", f"{path.name} cannot be unpacked: {error}.", "Copy it again."
            ) from error
    if len(content) < wanted:
        message = f"{path.name} has {len(content)} of {wanted} bytes of voxels."
        raise RefusedError("UNREADABLE_PIXELS", message, "Copy it again.")
    array = np.frombuffer(content, dtype, count=wanted // dtype.itemsize).reshape(shape, order="F")
    affine = np.eye(4)
    spacing = _numbers(header, "ElementSpacing", path, (1.0, 1.0, 1.0))
    matrix = _numbers(header, "TransformMatrix", path, tuple(np.eye(3).ravel()))
    offset = _numbers(header, "Offset", path, (0.0, 0.0, 0.0))
    if (len(spacing), len(matrix), len(offset)) != (3, 9, 3):
        message = f"{path.name}: ElementSpacing, TransformMatrix and Offset must hold 3, 9 and 3 numbers."
        raise RefusedError("BAD_GEOMETRY", message, "Write it again.")
    affine[:3, :3] = np.reshape(matrix, (3, 3)).T * spacing
    affine[:3, 3] = offset
    findings = []
    if "TransformMatrix" not in header:
        text = f"{path.name} says no TransformMatrix: its axes were taken to grow to the left, back and head."
        findings.append(Finding("NO_GEOMETRY", text))
    return _make_volume(array, _geometry(affine, shape, path), path, findings, "MetaImage")


def is_label_map(path: Path) -> bool:
    """Whether a file is a label map with its table: ``.seg.nrrd``, or NIfTI with a ``.labels.json`` beside it.

    Args:
        path: any file.
    """
    if is_nifti_name(path):
        return labels_path(path).is_file()
    return path.name.lower().endswith(".seg.nrrd")


def read_label_map(path: Path) -> Segmentation:
    """Read a label map with the meaning of its values; see `is_label_map`.

    Args:
        path: ``.seg.nrrd``, ``.nii`` or ``.nii.gz``.

    Returns:
        The labels in the axis order of the file. The provenance has no bundle: it names the file.

    Raises:
        InputError: if the file cannot be read, holds values that are no labels, or its table is damaged.
        RefusedError: as of `read_nrrd` and `effvit_med.io.read_nifti`; ``OVERLAPPING_SEGMENTS``.
    """
    path = Path(path)
    if is_nifti_name(path):
        volume = read_nifti(path)
        table = read_json_table(labels_path(path))
        array = volume.array
    else:
        array, header = _load_nrrd(path)
        if array.ndim > 3:
            message = f"{path.name} holds segments that overlap, in {array.ndim} dimensions."
            raise RefusedError("OVERLAPPING_SEGMENTS", message, "Export it as a label map.")
        geometry, findings = _place_nrrd(header, array.shape, path)
        volume = _make_volume(array, geometry, path, findings, "NRRD")
        try:
            table = _read_segments(header, array)
        except (ValueError, IndexError, SettingsError) as error:
            raise InputError(f"{path.name} has segments that cannot be understood: {error}.") from error
    return as_segmentation(volume, array, table)


def as_segmentation(volume: Volume, array: npt.NDArray[Any], table: LabelTable | None = None) -> Segmentation:
    """The values of a file as labels.

    Args:
        volume: what was read, for its place and source.
        array: the values.
        table: what they mean; by default a table with a name and colour for each value found.

    Raises:
        InputError: if a value is no whole number from 0 to 65535, or is not in the table.
    """
    name = volume.source.files[0].path.name if volume.source else "the array"
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 65535 or not np.array_equal(array, np.rint(array)):
        raise InputError(f"{name} holds values from {low:g} to {high:g}; labels are whole numbers from 0 to 65535.")
    labels = array.astype(np.uint8) if high < 256 else array.astype(np.uint16)
    table = table or plain_table(np.unique(labels).tolist())
    findings = volume.source.findings if volume.source else ()
    provenance = Provenance("", "", "", {}, {}, "", "", volume.source, findings=findings)
    try:
        return Segmentation(labels, volume.geometry, table, provenance)
    except GeometryError as error:
        raise InputError(f"{name}: {error}") from error


def plain_table(values: list[int]) -> LabelTable:
    """A table for values of which nothing is known.

    Args:
        values: found in the labels; 0 is left out.

    Examples:
        >>> [label.name for label in plain_table([0, 3])]
        ['label 3']
    """
    return LabelTable(tuple(_plain_label(value) for value in values if value > 0))


def _plain_label(value: int) -> Label:
    return Label(value, f"label {value}", ANATOMICAL_STRUCTURE, colour=_COLOURS[(value - 1) % len(_COLOURS)])


def _load_nrrd(path: Path) -> tuple[npt.NDArray[Any], Mapping[str, Any]]:
    try:
        array, header = nrrd.read(str(path), index_order="F")
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    except (nrrd.NRRDError, ValueError, KeyError, StopIteration, zlib.error, EOFError) as error:
        raise InputError(f"{path.name} is no readable NRRD file: {' '.join(str(error).split())[:200]}") from error
    return array, header


def _place_nrrd(header: Mapping[str, Any], shape: tuple[int, ...], path: Path) -> tuple[Geometry, list[Finding]]:
    if len(shape) != 3:
        message = f"{path.name} has the shape {shape}; one three-dimensional volume is needed."
        raise RefusedError("MULTI_VOLUME", message, "Write one file per volume.")
    affine = np.eye(4)
    space = str(header.get("space", "")).lower()
    if "space directions" not in header or space not in _TO_LPS:
        steps = np.nan_to_num(np.array(header.get("spacings", (1.0, 1.0, 1.0)), dtype=np.float64), nan=1.0)
        affine[:3, :3] = np.diag(steps)
        text = f"{path.name} does not say where it lies: its axes were taken to grow to the left, back and head."
        return _geometry(affine, shape, path), [Finding("NO_GEOMETRY", text)]
    signs = np.array(_TO_LPS[space], dtype=np.float64)
    affine[:3, :3] = np.array(header["space directions"], dtype=np.float64).T * signs[:, None]
    affine[:3, 3] = np.array(header.get("space origin", (0, 0, 0)), dtype=np.float64) * signs
    return _geometry(affine, shape, path), []


def _geometry(affine: npt.NDArray[np.float64], shape: tuple[int, ...], path: Path) -> Geometry:
    try:
        return Geometry(affine, (shape[0], shape[1], shape[2]), slice_axis=2)
    except GeometryError as error:
        raise RefusedError("BAD_GEOMETRY", f"{path.name}: {error}", "Correct its directions.") from error


def _make_volume(array: npt.NDArray[Any], geometry: Geometry, path: Path, findings: list[Finding], kind: str) -> Volume:
    if array.dtype.kind not in "iuf":
        raise RefusedError(
            "NOT_GRAYSCALE", f"{path.name} holds values of type {array.dtype}.", "Convert it to numbers."
        )
    stack = PlaneStack(array.shape[2])
    for index in range(array.shape[2]):
        stack.put(index, array[:, :, index].T)
    findings = [*findings, *replace_non_finite(stack)]
    files = (SourceFile(path, _digest(path)),)
    return Volume(stack.array.T, geometry, "", Source(name_case(path), kind, files, findings=tuple(findings)))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split_metaimage(path: Path) -> tuple[dict[str, str], bytes]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    header: dict[str, str] = {}
    begin = 0
    while "ElementDataFile" not in header:
        end = content.find(b"\n", begin, _HEADER_BYTES)
        name, separator, value = content[begin:end].decode("latin-1").partition("=")
        if end < 0 or not separator:
            raise InputError(f"{path.name} is no MetaImage file: its header has no ElementDataFile.")
        header[name.strip()] = value.strip()
        begin = end + 1
    if header["ElementDataFile"] != "LOCAL":
        raise InputError(f"{path.name} keeps its voxels in another file; only .mha with voxels inside is read.")
    return header, content[begin:]


def _numbers(header: Mapping[str, str], name: str, path: Path, default: tuple[float, ...] = ()) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in header[name].split()) if name in header else default
    except ValueError as error:
        raise InputError(f"{path.name}: {name} is {header[name][:80]!r}, no list of numbers.") from error


def read_json_table(path: Path) -> LabelTable:
    """The label table of a ``.labels.json`` file, as it lies beside label maps.

    Args:
        path: the file.

    Raises:
        InputError: if it is no label table.
    """
    try:
        return LabelTable.from_dicts(json.loads(path.read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, KeyError, TypeError, SettingsError) as error:
        raise InputError(f"{path.name} is no label table.") from error


def _read_segments(header: Mapping[str, Any], array: npt.NDArray[Any]) -> LabelTable:
    """The segments that 3D Slicer's keys describe; values without one get a plain row."""
    rows: dict[int, Label] = {}
    number = 0
    while f"Segment{number}_LabelValue" in header:
        prefix = f"Segment{number}_"
        value = int(header[f"{prefix}LabelValue"])
        name = str(header.get(f"{prefix}Name", f"label {value}"))
        if name in {label.name for label in rows.values()}:
            name = f"{name} ({value})"
        colour = [round(float(part) * 255) for part in str(header.get(f"{prefix}Color", "1 0 0")).split()]
        category, kind, side = _read_terminology(str(header.get(f"{prefix}Tags", "")))
        rows[value] = Label(value, name, kind, category, side, (colour[0], colour[1], colour[2]))
        number += 1
    for value in np.unique(array).astype(int).tolist():
        if value > 0 and value not in rows:
            rows[value] = _plain_label(value)
    return LabelTable(tuple(rows.values()))


def _read_terminology(tags: str) -> tuple[Code, Code, Code | None]:
    entries = [tag.partition(":")[2] for tag in tags.split("|") if tag.startswith("TerminologyEntry:")]
    parts = entries[0].split("~") if entries else []
    codes: list[Code | None] = []
    for part in parts[1:4]:
        scheme, _, rest = part.partition("^")
        value, _, meaning = rest.partition("^")
        codes.append(Code(value, meaning, scheme) if value else None)
    codes += [None] * (3 - len(codes))
    return codes[0] or ANATOMICAL_STRUCTURE, codes[1] or ANATOMICAL_STRUCTURE, codes[2]
