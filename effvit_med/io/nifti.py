"""NIfTI files: a volume out of one, a label map into one. Only here, and only inside, is anything RAS."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from effvit_med.errors import GeometryError, InputError, OutputError, RefusedError
from effvit_med.io.atomic import atomic_path, write_json
from effvit_med.io.grids import as_stored, square_up
from effvit_med.io.nifti_extent import REMAKE, check_length, voxel_start
from effvit_med.io.spill import SPILL_MB
from effvit_med.io.streams import UNPACK_ERRORS, Compressor, HashedFile
from effvit_med.io.values import PlaneStack, replace_non_finite, rescale
from effvit_med.volume import NOT_FOR_CLINICAL_USE, Finding, Geometry, Segmentation, Source, SourceFile, Volume
from effvit_med.volume.pages import count_slab, release_pages

MAX_BYTES = 32 * 2**30
"""A single volume of more bytes is refused before anything is allocated."""

AFFINE_TOLERANCE = 0.1
"""sform and qform may place a corner this part of a voxel apart; headers hold float32."""

PIXDIM_TOLERANCE = 0.01
"""Voxel sizes in the header may differ from those of the affine by this part; the affine decides."""

SHEAR_TOLERANCE_DEGREES = 0.01
"""A qform cannot hold shear; beyond this angle only the sform is written."""

_SPACE_UNITS = 0b111  # of xyzt_units; the other bits are of time
_MM_OF_UNIT = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}  # 2 is mm, 0 is not said: mm, as all programs take it

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LABEL_INTENT = "label"
_NO_MODALITY = Finding("NO_MODALITY", "A NIfTI file does not say of which modality it is.")
_VOXEL_START = 352  # behind the header of 348 bytes and four that say that nothing else follows
CONFIDENCE_DESCRIPTION = "255*tanh(margin of best two logits/2); research use only, not clinical"
"""At most 79 characters fit into the header."""

_CHUNK = 2**24


def is_nifti_name(path: Path) -> bool:
    """Whether a file is called ``.nii`` or ``.nii.gz``, in any case."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def stem(path: Path) -> str:
    """The file name without ``.nii`` or ``.nii.gz``."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def name_case(path: Path, taken: AbstractSet[str] = frozenset()) -> str:
    """A case name from a file name: safe as a folder name and not among those taken.

    Args:
        path: a NIfTI file.
        taken: names in use; letter case makes no difference.

    Returns:
        Letters, digits, ``.``, ``_`` and ``-``, at most 80 characters and a number where needed.

    Examples:
        >>> name_case(Path("liver 01.nii.gz")), name_case(Path("a.nii"), {"A"})
        ('liver_01', 'a_2')
    """
    base = re.sub(r"[^A-Za-z0-9._-]", "_", stem(path)).strip(".")[:80] or "case"
    lower = {name.lower() for name in taken}
    name, number = base, 1
    while name.lower() in lower:
        number += 1
        name = f"{base}_{number}"
    return name


def labels_path(path: Path) -> Path:
    """The JSON file beside a label map that says what its values mean."""
    return path.with_name(f"{stem(path)}.labels.json")


def is_own_label_map(path: Path) -> bool:
    """Whether a label table lies beside the file, as `write_nifti` leaves it."""
    return labels_path(path).is_file()


def check_nifti(path: Path) -> tuple[Geometry, tuple[Finding, ...]]:
    """Check the header and the length of a NIfTI file, without reading voxels.

    Args:
        path: the file.

    Returns:
        Where its voxels lie, and the findings of `read_nifti` that the header shows.

    Raises:
        InputError: if it cannot be read or is no NIfTI file.
        RefusedError: as of `read_nifti`, as far as the header shows it.
    """
    try:
        with HashedFile(path) as file:
            header = _read_header(file, path)
            geometry, findings = _refine(header, path)
            check_length(file, header, geometry.shape, path)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    return geometry, (*findings, *_note_suffix(path, file), _NO_MODALITY)


def _note_suffix(path: Path, file: HashedFile) -> tuple[Finding, ...]:
    if path.name.lower().endswith(".gz") == file.is_compressed:
        return ()
    return (Finding("WRONG_SUFFIX", f"{path.name}: the name does not say rightly whether it is compressed."),)


def read_nifti(path: Path, case_id: str = "", spill_mb: int = SPILL_MB) -> Volume:
    """Read a NIfTI file that holds one volume.

    The array keeps the axis order of the file. It is int16 where all values are whole numbers in its range, else
    float32; ``scl_slope`` and ``scl_inter`` are applied.

    Args:
        path: ``.nii`` or ``.nii.gz``, NIfTI-1 or NIfTI-2.
        case_id: name of the case; by default from the file name.
        spill_mb: above this many MiB of voxels the array lies in a temporary file and cannot be written to.

    Returns:
        The volume; its modality is empty, as NIfTI does not say it.

    Raises:
        InputError: if the file cannot be read or is no NIfTI file.
        RefusedError: ``UNREADABLE_PIXELS``, ``MULTI_VOLUME``, ``NOT_GRAYSCALE``, ``BAD_GEOMETRY``, ``TOO_LARGE``.
        OutputError: if the temporary file does not fit onto its disk.

    Source:
        The NIfTI-1 header, nifti1.h: methods 1 to 3 of orientation, scl_slope.
    """
    path = Path(path)
    try:
        with HashedFile(path) as file:
            header = _read_header(file, path)
            geometry, findings = _refine(header, path)
            stack = _read_voxels(file.stream, header, geometry.shape, path, spill_mb)
            sha256 = file.finish()
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    findings.extend([*_note_suffix(path, file), *replace_non_finite(stack), _NO_MODALITY])
    source = Source(case_id or name_case(path), "NIfTI", (SourceFile(path, sha256),), findings=tuple(findings))
    return Volume(stack.array.T, geometry, "", source)


def write_nifti(segmentation: Segmentation, path: Path) -> None:
    """Write labels on the grid of the scan, and beside them what the values mean.

    The axes stand in the order of the scan's file; labels of a DICOM series in the order that NIfTI tools give such
    a series: column, row, slice. The table goes to ``<name>.labels.json`` in the same folder. The same labels give
    the same bytes.

    Args:
        segmentation: labels with their grid.
        path: ``.nii`` or ``.nii.gz``; its folder must exist.

    Raises:
        OutputError: if the name has another ending, the grid has unequal slice distances (which NIfTI cannot hold),
            or the files cannot be written.

    Source:
        The NIfTI-1 header, nifti1.h: method 2 (qform) and 3 (sform); intent code 1002, label.
    """
    path = Path(path)
    labels, geometry = as_stored(segmentation.labels, segmentation)
    header = _make_header(labels, geometry, path)
    header.set_intent(_LABEL_INTENT)
    _write_image(labels, header, path, runs=True)
    write_json(labels_path(path), {"notice": NOT_FOR_CLINICAL_USE, "labels": segmentation.table.to_dicts()})


def write_confidence(confidence: npt.NDArray[np.uint8], segmentation: Segmentation, path: Path) -> None:
    """Write how clearly each voxel was decided, on the grid and in the axis order of `write_nifti`.

    Args:
        confidence: of the shape of the labels, 0 (a tie of two classes) to 255 (certain); see
            `effvit_med.volume.Segmentation`.
        segmentation: the labels it belongs to.
        path: ``.nii`` or ``.nii.gz``, such as ``segmentation.confidence.nii.gz``; its folder must exist.

    Raises:
        GeometryError: if the confidence is not uint8 of the shape of the labels.
        OutputError: as of `write_nifti`.
    """
    path = Path(path)
    if confidence.shape != segmentation.labels.shape or confidence.dtype != np.uint8:
        raise GeometryError(
            f"The confidence has shape {confidence.shape} and type {confidence.dtype}; it must be uint8 of the labels' "
            f"shape {segmentation.labels.shape}."
        )
    stored, geometry = as_stored(confidence, segmentation)
    header = _make_header(stored, geometry, path)
    header["descrip"] = CONFIDENCE_DESCRIPTION.encode()
    _write_image(stored, header, path, runs=True)


def write_volume(volume: Volume, path: Path) -> None:
    """Write a scan as NIfTI, in its own grid and axis order. The same scan gives the same bytes.

    Args:
        volume: the scan.
        path: ``.nii`` or ``.nii.gz``; its folder must exist.

    Raises:
        OutputError: if the name has another ending, the grid has unequal slice distances (which NIfTI cannot hold),
            or the file cannot be written.
    """
    path = Path(path)
    _write_image(volume.array, _make_header(volume.array, volume.geometry, path), path)


def _make_header(array: npt.NDArray[Any], geometry: Geometry, path: Path) -> Any:
    """A NIfTI-1 header with sform, and with qform where the grid is not sheared."""
    if not is_nifti_name(path):
        raise OutputError(f"{path.name} must end in .nii or .nii.gz.")
    if not geometry.is_regular:
        raise OutputError(f"{path.name}: NIfTI cannot hold unequal slice distances; write a DICOM segmentation.")
    geometry = square_up(geometry)
    affine = _RAS_TO_LPS @ geometry.affine
    try:
        image = nibabel.Nifti1Image(array, affine, dtype=array.dtype)
    except (HeaderDataError, ValueError) as error:
        message = f"{path.name}: NIfTI cannot hold {array.dtype} values of shape {array.shape}."
        raise OutputError(message) from error
    image.set_sform(affine, code="scanner")
    sheared = geometry.shear_degrees > SHEAR_TOLERANCE_DEGREES
    image.set_qform(None if sheared else affine, code="unknown" if sheared else "scanner")
    header = image.header
    header.set_xyzt_units("mm")
    header["descrip"] = NOT_FOR_CLINICAL_USE.encode()
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = _VOXEL_START, 1, 0
    return header


def _write_image(array: npt.NDArray[Any], header: Any, path: Path, *, runs: bool = False) -> None:
    """Write header and voxels, the first axis fastest, plane by plane."""
    kind, slab = header.get_data_dtype(), count_slab(array, 2)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        output = Compressor(file, compress=path.name.lower().endswith(".gz"), runs=runs)
        output.write(header.binaryblock.ljust(_VOXEL_START, b"\0"))
        for index in range(array.shape[2]):
            output.write(np.ascontiguousarray(array[:, :, index].T, kind).data.cast("B"))
            if index % slab == slab - 1:
                release_pages(array)
        output.finish()


def _read_header(file: HashedFile, path: Path) -> Any:
    """The NIfTI-1 or NIfTI-2 header at the start of a file."""
    try:
        start = file.head(348)
        if 540 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big")):
            start = file.head(540)
    except UNPACK_ERRORS as error:
        raise InputError(f"{path.name} cannot be unpacked: {error}.") from error
    if not start:
        raise InputError(f"{path.name} is empty.")
    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    kind = nibabel.Nifti2Header if 540 in sizes else nibabel.Nifti1Header
    length = 540 if 540 in sizes else 348
    if not sizes & {348, 540} or len(start) < length:
        raise InputError(f"{path.name} is no NIfTI file, or its header is cut off.")
    magic = start[4:12] if length == 540 else start[344:348]
    if not magic.startswith(b"n+2\0\r\n\x1a\n" if length == 540 else b"n+1\0"):
        raise InputError(f"{path.name} has no NIfTI mark in its header ({magic!r}); .hdr/.img pairs are not read.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind(start[:length], check=False)
    except (HeaderDataError, WrapStructError, ValueError) as error:
        raise InputError(f"{path.name} has a damaged NIfTI header: {error}.") from error


def _refine(header: Any, path: Path) -> tuple[Geometry, list[Finding]]:
    """The grid of a header."""
    dimensions = [int(value) for value in header["dim"]]
    rank = dimensions[0]
    sizes = dimensions[1 : rank + 1] if 1 <= rank <= 7 else []
    if rank not in range(1, 8) or min(sizes) < 1:
        raise RefusedError("UNREADABLE_PIXELS", f"{path.name} has the sizes {dimensions} in its header.", REMAKE)
    if rank < 2 or math.prod(sizes[3:]) > 1:
        message = f"{path.name} has the shape {tuple(sizes)}; one two- or three-dimensional volume is needed."
        raise RefusedError("MULTI_VOLUME", message, "Split it into one file per volume.")
    try:
        kind = header.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        message = f"{path.name} has the unknown data type {int(header['datatype'])}."
        raise RefusedError("UNREADABLE_PIXELS", message, REMAKE) from error
    if kind.names is not None or kind.kind not in "iuf" or kind.itemsize > 8:
        message = f"{path.name} holds values of type {kind}; real numbers of at most 64 bits are needed."
        raise RefusedError("NOT_GRAYSCALE", message, "Convert it to an integer or floating-point image.")
    shape = (sizes[0], sizes[1], sizes[2] if rank > 2 else 1)
    if math.prod(shape) * kind.itemsize > MAX_BYTES:
        message = f"{path.name} claims {shape} voxels, more than {MAX_BYTES / 2**30:.0f} GiB."
        raise RefusedError("TOO_LARGE", message, "Crop or resample the volume.")
    with np.errstate(all="ignore"):  # values that are not numbers are found below
        affine, findings = _choose_affine(header, shape, path)
        unit = int(header["xyzt_units"]) & _SPACE_UNITS
    if unit in _MM_OF_UNIT:
        name, mm = _MM_OF_UNIT[unit]
        affine[:3] *= mm
        message = f"{path.name}: the header gives lengths in {name}; they were taken as {mm:g} mm each."
        findings.append(Finding("UNITS", message))
    try:
        return Geometry(_RAS_TO_LPS @ affine, shape, slice_axis=2), findings
    except GeometryError as error:
        raise RefusedError("BAD_GEOMETRY", f"{path.name}: {error}", "Correct its sform and qform.") from error


def _choose_affine(
    header: Any, shape: tuple[int, int, int], path: Path
) -> tuple[npt.NDArray[np.float64], list[Finding]]:
    """The RAS affine: the sform if set and usable, else the qform, else a guess from the voxel sizes."""
    rank = min(3, int(header["dim"][0]))
    affines: dict[str, npt.NDArray[np.float64]] = {}
    findings: list[Finding] = []
    for name, code, get in (("sform", "sform_code", header.get_sform), ("qform", "qform_code", header.get_qform)):
        if int(header[code]) <= 0:
            continue
        try:
            affine = np.array(get(), dtype=np.float64)
            Geometry(affine, (1, 1, 1))
        except (GeometryError, HeaderDataError, ValueError):
            findings.append(Finding("BAD_AFFINE", f"{path.name}: the {name} is no usable matrix and was left out."))
        else:
            affines[name] = affine
    if len(affines) == 2:
        grids = [Geometry(affine, shape) for affine in affines.values()]
        apart = grids[0].max_distance_mm(grids[1])
        if apart > AFFINE_TOLERANCE * min(grids[0].spacing_mm):
            message = f"{path.name}: sform and qform place voxels up to {apart:.3g} mm apart; the sform was taken."
            findings.append(Finding("AFFINES_DIFFER", message))
    if affines:
        affine = next(iter(affines.values()))
        lengths, declared = np.linalg.norm(affine[:3, :3], axis=0), np.abs(header["pixdim"][1 : 1 + rank])
        if not np.allclose(declared, lengths[:rank], rtol=PIXDIM_TOLERANCE):
            message = f"{path.name}: pixdim says {declared.tolist()} mm, the affine {lengths.round(4).tolist()} mm."
            findings.append(Finding("PIXDIM_DIFFERS", f"{message} The affine was taken."))
        return affine, findings
    if findings:
        message = f"{path.name}: neither sform nor qform is a usable matrix."
        raise RefusedError("BAD_GEOMETRY", message, "Correct its sform and qform.")
    sizes_mm = [abs(float(size)) or 1.0 for size in header["pixdim"][1:4]]
    sizes_mm = [size if math.isfinite(size) else 1.0 for size in sizes_mm]
    message = (
        f"{path.name} has neither sform nor qform: its axes were taken to grow to the patient's right, front and head. "
        "Left and right may be swapped."
    )
    return np.diag([*sizes_mm, 1.0]), [Finding("NO_GEOMETRY", message)]


def _read_voxels(stream: BinaryIO, header: Any, shape: tuple[int, int, int], path: Path, spill_mb: int) -> PlaneStack:
    """The scaled values plane by plane, as a (k, j, i) stack; nothing is allocated that the file does not hold."""
    kind: np.dtype[Any] = header.get_data_dtype()
    slope, inter = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if slope == 0 or not (math.isfinite(slope) and math.isfinite(inter)):
        slope, inter = 1.0, 0.0
    plane_bytes = shape[0] * shape[1] * kind.itemsize
    stack = PlaneStack(shape[2], spill_mb)
    try:
        _read_exactly(stream, voxel_start(header))
        for index in range(shape[2]):
            content = _read_exactly(stream, plane_bytes)
            if len(content) < plane_bytes:
                found, needed = index * plane_bytes + len(content), shape[2] * plane_bytes
                message = f"{path.name} has {found} of {needed} bytes of voxels; it is cut off."
                raise RefusedError("UNREADABLE_PIXELS", message, REMAKE)
            raw = np.frombuffer(content, kind).reshape(shape[1], shape[0])
            stack.put(index, rescale(raw, slope, inter))
        stream.read(1)  # at the end of a compressed stream this checks its checksum
    except UNPACK_ERRORS as error:
        message = f"{path.name} cannot be unpacked: {error}."
        raise RefusedError("UNREADABLE_PIXELS", message, REMAKE) from error
    return stack


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    """That many bytes, or as many as there are; a false size costs no memory."""
    parts, left = [], size
    while left > 0 and (part := stream.read(min(_CHUNK, left))):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
