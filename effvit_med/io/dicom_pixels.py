"""The stored pixels of one DICOM file, decoded and scaled to the unit of its modality."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.pixels import apply_modality_lut, get_decoder, pixel_array
from pydicom.uid import UID, JPEG2000TransferSyntaxes

from effvit_med.errors import RefusedError
from effvit_med.io.dicom_headers import PARSE_ERRORS, quiet_pydicom
from effvit_med.io.values import rescale
from effvit_med.volume import Finding

_RESEND = "Send or copy the file again."
_PIXEL_DATA = (0x7FE00010, 0x7FE00008, 0x7FE00009)  # Pixel Data, Float Pixel Data, Double Float Pixel Data
_PREFERRED_DECODERS = ("pyjpegls", "pylibjpeg")  # GDCM ends the whole process on some damaged JPEG 2000 streams
_UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class Plane:
    """One decoded slice.

    Attributes:
        values: (rows, columns) numbers in the unit of the modality.
        padding: (rows, columns) True outside the scanned area, or None where the file marks no such pixels.
        padding_value: what those pixels hold in ``values``.
        sha256: hex digest of the file.
        sop_instance_uid: SOP Instance UID (0008,0018).
        findings: what the user should know; the same words for each slice of a series.
    """

    values: npt.NDArray[Any]
    padding: npt.NDArray[np.bool_] | None
    padding_value: float
    sha256: str
    sop_instance_uid: str
    findings: tuple[Finding, ...]


def read_plane(path: Path) -> Plane:
    """Read, decode and scale one single-frame grey image.

    Args:
        path: a DICOM file; its bytes are read once.

    Returns:
        The slice with its values scaled by its own Rescale Slope and Intercept.

    Raises:
        RefusedError: ``UNREADABLE_PIXELS``, ``MISSING_DECODER`` or ``BAD_RESCALE``, naming the file.

    Source:
        DICOM PS3.3 section C.11.1 (Modality LUT), C.7.5.1.1.2 (Pixel Padding Value).
    """
    try:
        with quiet_pydicom():
            return _read(path)
    except (*PARSE_ERRORS, RuntimeError) as error:
        raise _unreadable(path, error) from error


def have_equal_pixels(paths: Sequence[Path]) -> bool:
    """Whether the files hold the same image: the same bytes, or the same values once decoded.

    Args:
        paths: DICOM files.

    Raises:
        RefusedError: as of `read_plane`.
    """
    try:
        digests = {hashlib.sha256(path.read_bytes()).digest() for path in paths}
    except OSError as error:
        raise _unreadable(paths[0], error) from error
    if len(digests) == 1:
        return True
    first = read_plane(paths[0]).values
    return all(np.array_equal(first, read_plane(path).values) for path in paths[1:])


def _read(path: Path) -> Plane:
    content = path.read_bytes()
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    _check_length(dataset)
    plugin = _choose_decoder(dataset, path)
    raw = np.asarray(pixel_array(dataset, decoding_plugin=plugin))
    if raw.shape != (dataset.Rows, dataset.Columns):
        raise ValueError(f"they have shape {raw.shape}, the header {dataset.Rows} by {dataset.Columns}")
    padding = _find_padding(dataset, raw)
    findings: list[Finding] = []
    if "ModalityLUTSequence" in dataset:
        values = np.asarray(apply_modality_lut(raw, dataset))
    else:
        slope, intercept, findings = _rescale_parameters(dataset, path)
        values = rescale(raw, slope, intercept)
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        findings.append(Finding("MONOCHROME1", "The image is displayed inverted (MONOCHROME1); values are kept."))
    padding_value = float(values[padding][0]) if padding is not None else 0.0
    sha256 = hashlib.sha256(content).hexdigest()
    return Plane(values, padding, padding_value, sha256, str(dataset.get("SOPInstanceUID", "")), tuple(findings))


def _unreadable(path: Path, error: BaseException | str) -> RefusedError:
    if isinstance(error, OSError) and error.strerror:
        reason: object = error.strerror
    else:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return RefusedError("UNREADABLE_PIXELS", f"The pixels of {path.name} cannot be read: {reason}.", _RESEND)


def _check_length(dataset: pydicom.Dataset) -> None:
    """Raise ValueError if the file ends before its pixel data do."""
    tag = next((tag for tag in _PIXEL_DATA if tag in dataset), None)
    if tag is None:
        raise ValueError("they are absent, or the file is cut off")
    element = dataset.get_item(tag)
    length, value = getattr(element, "length", _UNDEFINED_LENGTH), element.value or b""
    if length != _UNDEFINED_LENGTH and len(value) < length:
        raise ValueError(f"the file is cut off: {len(value)} of {length} bytes are there")


def _choose_decoder(dataset: pydicom.Dataset, path: Path) -> str:
    """The decoder for a file; empty for pydicom's own choice.

    What no installed decoder reads is refused, and so are JPEG 2000 streams that are larger inside than they say.
    """
    meta = getattr(dataset, "file_meta", None)
    if meta is None or "TransferSyntaxUID" not in meta:  # read by force: pydicom has found out the encoding
        dataset.file_meta = meta = meta or pydicom.dataset.FileMetaDataset()
        implicit, little = dataset.original_encoding
        meta.TransferSyntaxUID = UID(
            pydicom.uid.ImplicitVRLittleEndian
            if implicit
            else (pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian)
        )
    syntax = meta.TransferSyntaxUID
    if not syntax.is_compressed or syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
        return ""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        message = f"{path.name} is encoded as {syntax.name}, which cannot be decoded."
        raise RefusedError("MISSING_DECODER", message, "Convert the series to an uncompressed encoding.") from None
    if not decoder.is_available:
        needs = "; ".join(decoder.missing_dependencies)
        message = f"{path.name} is encoded as {syntax.name}; no decoder is installed."
        raise RefusedError("MISSING_DECODER", message, f"Install one: {needs}.")
    if syntax in JPEG2000TransferSyntaxes:
        _check_jpeg2000_size(dataset)
    return next((name for name in _PREFERRED_DECODERS if name in decoder.available_plugins), "")


def _check_jpeg2000_size(dataset: pydicom.Dataset) -> None:
    """Raise ValueError if the code stream's own size is not that of the header, before anything is allocated.

    Source:
        ISO/IEC 15444-1 A.5.1: SIZ marker FF51, then Lsiz, Rsiz (2 bytes each), Xsiz, Ysiz, XOsiz, YOsiz (4 each).
    """
    content: bytes = dataset.PixelData
    at = content.find(b"\xff\x4f\xff\x51")
    size = [int.from_bytes(content[start : start + 4], "big") for start in range(at + 8, at + 24, 4)]
    columns, rows = size[0] - size[2], size[1] - size[3]
    if at < 0 or (rows, columns) != (dataset.Rows, dataset.Columns):
        found = f"{rows} by {columns} pixels" if at >= 0 else "no size"
        raise ValueError(f"the JPEG 2000 stream has {found}, the header {dataset.Rows} by {dataset.Columns}")


def _rescale_parameters(dataset: pydicom.Dataset, path: Path) -> tuple[float, float, list[Finding]]:
    """Slope and intercept; absent or empty ones are those of the identity."""
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        message = f"{path.name} has a Rescale Slope or Intercept that is no number."
        raise RefusedError("BAD_RESCALE", message, _RESEND)
    if slope == 0:
        message = "Rescale Slope is 0, which would make all values equal; 1 was taken."
        return 1.0, intercept, [Finding("ZERO_SLOPE", message)]
    return slope, intercept, []


def _number(dataset: pydicom.Dataset, name: str, default: float) -> float:
    """A number of the header; the default where it is absent or empty, not a number where it is nonsense."""
    try:
        value = dataset.get(name)
        return default if value is None or value == "" else float(value)
    except (TypeError, ValueError):
        return math.nan


def _find_padding(dataset: pydicom.Dataset, raw: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Where the stored values are padding; None where no pixel is."""
    limits = [dataset.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if not isinstance(limits[0], int) or not np.issubdtype(raw.dtype, np.integer):
        return None
    if not isinstance(limits[1], int):
        limits[1] = limits[0]
    kind = np.iinfo(raw.dtype)
    span = kind.max - kind.min + 1
    low, high = sorted((limit - kind.min) % span + kind.min for limit in limits)  # some write -2000 as 63536
    padding = raw == low if low == high else (raw >= low) & (raw <= high)
    return padding if padding.any() else None
