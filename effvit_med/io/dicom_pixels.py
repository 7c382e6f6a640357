"""The stored pixels of one DICOM file, decoded and scaled to the unit of its modality."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.encaps import generate_frames
from pydicom.pixels import apply_modality_lut, as_pixel_options, get_decoder, pixel_array
from pydicom.tag import Tag

from effvit_med.errors import RefusedError
from effvit_med.io.dicom_codestreams import CHECKED, check_codestream
from effvit_med.io.dicom_elements import PARSE_ERRORS, Elements, quiet_pydicom, split_frames
from effvit_med.io.dicom_extents import RESEND, find_extent, find_missing_decoder, find_syntax, is_deflated
from effvit_med.io.dicom_mosaic import read_tiling
from effvit_med.io.dicom_native import read_native
from effvit_med.io.values import rescale
from effvit_med.volume import Finding

Frame = tuple[Path, int]
"""An image: its file and the number of the frame in it, from 1; 0 for a file that is one image."""

NOTES = {
    "MONOCHROME1": Finding("MONOCHROME1", "The image is displayed inverted (MONOCHROME1); values are kept."),
    "ZERO_SLOPE": Finding("ZERO_SLOPE", "Rescale Slope is 0, which would make all values equal; 1 was taken."),
}
"""What is noted of the values of any slice, in the same words for each."""

_TAGS = [Tag(name) for name in (
    "SOPInstanceUID", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
)]  # fmt: skip
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


def read_plane(path: Path, frame: int = 0) -> Plane:
    """Read, decode and scale one grey image.

    Args:
        path: a DICOM file.
        frame: the number of the frame in it, from 1; 0 for a file that is one image.

    Returns:
        The slice with its values scaled by its own Rescale Slope and Intercept.

    Raises:
        RefusedError: ``UNREADABLE_PIXELS``, ``MISSING_DECODER`` or ``BAD_RESCALE``, naming the file.
    """
    return next(iter(read_planes(path, [frame])))


def read_planes(path: Path, frames: Sequence[int]) -> Iterator[Plane]:
    """Read, decode and scale images of one file, one at a time.

    Args:
        path: a DICOM file.
        frames: numbers of frames in it, from 1; or ``[0]`` for a file that is one image, whose bytes are read once; or
            -1, -2, ... for tiles of a mosaic.

    Yields:
        The slices in the order of ``frames``, each scaled by its own Rescale Slope and Intercept.

    Raises:
        RefusedError: ``UNREADABLE_PIXELS``, ``MISSING_DECODER`` or ``BAD_RESCALE``, naming the file.

    Source:
        DICOM PS3.3 section C.11.1 (Modality LUT), C.7.6.16.2.9 (the same per frame), C.7.5.1.1.2 (Pixel Padding
        Value).
    """
    tiles = [-frame for frame in frames if frame < 0]
    planes = _read_tiles(path, tiles) if tiles else _read_frames(path, frames) if any(frames) else _read_file(path)
    while True:
        try:
            with quiet_pydicom():
                plane = next(planes, None)
        except (*PARSE_ERRORS, RuntimeError) as error:
            raise _unreadable(path, error) from error
        if plane is None:
            return
        yield plane


def have_equal_pixels(images: Sequence[Frame]) -> bool:
    """Whether images are the same: the same bytes, or the same values once decoded.

    Args:
        images: files and frames.

    Raises:
        RefusedError: as of `read_planes`.
    """
    paths = [path for path, _ in images]
    if len({frame for _, frame in images}) == 1:
        try:
            digests = {_hash(path) for path in paths}
        except OSError as error:
            raise _unreadable(paths[0], error) from error
        if len(digests) == 1:
            return True
    first = read_plane(*images[0]).values
    return all(np.array_equal(first, read_plane(*image).values) for image in images[1:])


def _hash(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _read_file(path: Path) -> Iterator[Plane]:
    """The one image of a file."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    native = read_native(content, _TAGS)
    if native is not None:
        yield _scale(path, native[1], native[0], Elements(native[0]), sha256)
        return
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    _check_length(dataset)
    plugin = _choose_decoder(dataset, path)
    if find_syntax(dataset) in CHECKED:
        check_codestream(dataset.PixelData, find_syntax(dataset), dataset.Rows, dataset.Columns)
    raw = np.asarray(pixel_array(dataset, decoding_plugin=plugin))
    yield _scale(path, raw, dataset, Elements(dataset), sha256)


def _read_tiles(path: Path, tiles: Sequence[int]) -> Iterator[Plane]:
    """Slices of a mosaic, which is decoded once."""
    found = read_tiling(path)
    if found is None:
        raise ValueError("the mosaic no longer says how many tiles it has")
    for whole in _read_file(path):
        for tile in tiles:
            padding = None if whole.padding is None else found[1].cut(whole.padding, tile)
            yield replace(whole, values=found[1].cut(whole.values, tile), padding=padding)


def _read_frames(path: Path, frames: Sequence[int]) -> Iterator[Plane]:
    """Frames of a file, of which one at a time is in memory."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        dataset = pydicom.dcmread(file, force=True, stop_before_pixels=True)
        views = split_frames(dataset)
        if max(frames) > len(views):
            raise ValueError(f"frame {max(frames)} is not there")
        plugin = _choose_decoder(dataset, path)
        with closing(_decode_frames(file, dataset, frames, plugin)) as arrays:
            for number, raw in zip(frames, arrays, strict=True):
                yield _scale(path, raw, dataset, views[number - 1], sha256)


def _decode_frames(
    file: BinaryIO, dataset: pydicom.Dataset, frames: Sequence[int], plugin: str
) -> Generator[npt.NDArray[Any], None, None]:
    options = as_pixel_options(dataset)
    syntax = find_syntax(dataset)
    if is_deflated(dataset):
        file.seek(0)
        whole = pydicom.dcmread(file, force=True)
        source: Any = whole
    else:
        extent = find_extent(file, dataset)
        if extent is None:
            raise ValueError("they are absent, or the file is cut off")
        options["pixel_keyword"] = pydicom.datadict.keyword_for_tag(extent.tag)
        options["pixel_vr"] = extent.vr
        options["transfer_syntax_uid"] = syntax
        if syntax in CHECKED:
            file.seek(extent.start)
            for stream in generate_frames(file, number_of_frames=options["number_of_frames"], **_offsets(options)):
                check_codestream(stream, syntax, dataset.Rows, dataset.Columns)
        file.seek(extent.start)
        source = file
    decoder = get_decoder(syntax)
    in_order = list(frames) == list(range(1, int(options["number_of_frames"]) + 1))
    indices = None if in_order else [number - 1 for number in frames]
    for array, _ in decoder.iter_array(
        source, indices=indices, validate=True, decoding_plugin=plugin, **({} if source is not file else options)
    ):
        yield np.asarray(array)


def _offsets(options: dict[str, Any]) -> dict[str, Any]:
    return {"extended_offsets": options["extended_offsets"]} if "extended_offsets" in options else {}


def _scale(path: Path, raw: npt.NDArray[Any], dataset: pydicom.Dataset, elements: Elements, sha256: str) -> Plane:
    """Stored values in the unit of the modality."""
    size = (elements.whole("Rows"), elements.whole("Columns"))
    if raw.shape != size:
        raise ValueError(f"they have shape {raw.shape}, the header {size[0]} by {size[1]}")
    padding = _find_padding(elements, raw)
    findings: list[Finding] = []
    if "ModalityLUTSequence" in dataset:
        values = np.asarray(apply_modality_lut(raw, dataset))
    else:
        slope, intercept, findings = _rescale_parameters(elements, path)
        values = rescale(raw, slope, intercept)
    if elements.text("PhotometricInterpretation") == "MONOCHROME1":
        findings.append(NOTES["MONOCHROME1"])
    padding_value = float(values[padding][0]) if padding is not None else 0.0
    return Plane(values, padding, padding_value, sha256, elements.text("SOPInstanceUID"), tuple(findings))


def _unreadable(path: Path, error: BaseException | str) -> RefusedError:
    if isinstance(error, OSError) and error.strerror:
        reason: object = error.strerror
    else:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
    return RefusedError("UNREADABLE_PIXELS", f"The pixels of {path.name} cannot be read: {reason}.", RESEND)


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

    What no installed decoder reads is refused.
    """
    meta = getattr(dataset, "file_meta", None)
    if meta is None or "TransferSyntaxUID" not in meta:  # read by force: pydicom has found out the encoding
        syntax = find_syntax(dataset)
        dataset.file_meta = meta or pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = syntax
    syntax = find_syntax(dataset)
    if not syntax.is_compressed or syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
        return ""
    flaw = find_missing_decoder(syntax, Elements(dataset).whole("BitsStored") or 0)
    if flaw:
        raise RefusedError(flaw[0], f"{path.name} {flaw[1]}.", flaw[2])
    plugins = get_decoder(syntax).available_plugins
    return next((name for name in _PREFERRED_DECODERS if name in plugins), "")


def _rescale_parameters(elements: Elements, path: Path) -> tuple[float, float, list[Finding]]:
    """Slope and intercept; absent or empty ones are those of the identity."""
    slope, intercept = elements.number("RescaleSlope", 1.0), elements.number("RescaleIntercept", 0.0)
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        message = f"{path.name} has a Rescale Slope or Intercept that is no number."
        raise RefusedError("BAD_RESCALE", message, RESEND)
    if slope == 0:
        return 1.0, intercept, [NOTES["ZERO_SLOPE"]]
    return slope, intercept, []


def _find_padding(elements: Elements, raw: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Where the stored values are padding; None where no pixel is."""
    value, limit = (elements.whole(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None or not np.issubdtype(raw.dtype, np.integer):
        return None
    limits = (value, value if limit is None else limit)
    kind = np.iinfo(raw.dtype)
    span = kind.max - kind.min + 1
    low, high = sorted((limit - kind.min) % span + kind.min for limit in limits)  # some write -2000 as 63536
    padding = raw == low if low == high else (raw >= low) & (raw <= high)
    return padding if padding.any() else None
