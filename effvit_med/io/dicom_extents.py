"""Whether a file holds all of its pixel data, told from lengths alone, without decoding."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

import pydicom
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGExtended12Bit

from effvit_med.io.dicom_elements import Elements

Flaw = tuple[str, str, str]
"""A code, what is wrong in words that follow the file's name, and a remedy."""

RESEND = "Send or copy the file again."
_PIXEL_TAGS = (0x7FE00010, 0x7FE00008, 0x7FE00009)  # Pixel Data, Float Pixel Data, Double Float Pixel Data
_UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_FLOAT_BITS = {0x7FE00008: 32, 0x7FE00009: 64}


@dataclass(frozen=True)
class Extent:
    """Where the pixel data of a file begin.

    Attributes:
        tag: of their element.
        length: bytes that the element says it has; 2**32 - 1 where it does not say.
        start: of their value in the file.
        vr: OB, OW, ...; OW where the file does not say.
    """

    tag: int
    length: int
    start: int
    vr: str = "OW"


def find_syntax(dataset: pydicom.Dataset) -> UID:
    """The transfer syntax; where the file has no meta header, what pydicom read it as."""
    meta = getattr(dataset, "file_meta", {})
    known = str(meta.get("TransferSyntaxUID", ""))
    if known:
        return UID(known)
    implicit, little = dataset.original_encoding
    if implicit:
        return pydicom.uid.ImplicitVRLittleEndian
    return pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian


def is_deflated(dataset: pydicom.Dataset) -> bool:
    """Whether the data set is compressed as a whole, so that places in the file say nothing."""
    return str(getattr(dataset, "file_meta", {}).get("TransferSyntaxUID", "")) == (
        pydicom.uid.DeflatedExplicitVRLittleEndian
    )


def find_extent(file: BinaryIO, dataset: pydicom.Dataset) -> Extent | None:
    """Where pixel data begin, if the file stands before them; None if it does not."""
    start = file.tell()
    head = file.read(12)
    implicit, little = dataset.original_encoding
    order = "<" if little else ">"
    if len(head) < 8:
        return None
    group, element = struct.unpack(order + "HH", head[:4])
    tag = group << 16 | element
    if tag not in _PIXEL_TAGS:
        return None
    if implicit:
        return Extent(tag, struct.unpack(order + "L", head[4:8])[0], start + 8)
    if len(head) < 12:
        return None
    return Extent(tag, struct.unpack(order + "L", head[8:12])[0], start + 12, head[4:6].decode("latin-1"))


def find_flaw(file: BinaryIO, size: int, extent: Extent | None, dataset: pydicom.Dataset, frames: int) -> Flaw | None:
    """What makes the pixels of a file unreadable, as far as lengths and the header tell.

    Args:
        file: open for reading; where it stands is left open.
        size: bytes of the whole file.
        extent: where its pixel data begin, or None where none follow the header.
        dataset: its header.
        frames: the number of its frames.

    Source:
        DICOM PS3.5 sections 8.1 (native pixel data) and A.4 (encapsulated, with item and delimiter tags).
    """
    if extent is None:
        return "UNREADABLE_PIXELS", "has no pixel data; the file may be cut off", RESEND
    syntax = find_syntax(dataset)
    if syntax.is_private or not (syntax.is_transfer_syntax and syntax.name != str(syntax)):
        named = f" ({syntax})" if syntax.is_valid else ""
        words = f"is encoded in a way that this program does not know{named}"
        return "MISSING_DECODER", words, "Convert the series to an uncompressed encoding."
    elements = Elements(dataset)
    bits, stored = elements.whole("BitsAllocated") or 0, elements.whole("BitsStored") or 0
    floats = _FLOAT_BITS.get(extent.tag)
    if not floats and not (bits in {1, 8, 16, 32, 64} and 1 <= stored <= bits):
        words = f"has {stored} Bits Stored in {bits} Bits Allocated, which no reader can decode"
        return "UNREADABLE_PIXELS", words, "Export the series again from the source system."
    if syntax.is_compressed and syntax != pydicom.uid.DeflatedExplicitVRLittleEndian:
        return find_missing_decoder(syntax, stored) or _find_cut_fragments(file, size, extent)
    rows, columns = elements.whole("Rows") or 0, elements.whole("Columns") or 0
    needed = (rows * columns * (elements.whole("SamplesPerPixel") or 1) * frames * (floats or bits) + 7) // 8
    there = min(extent.length, max(0, size - extent.start))
    if there < needed or (extent.length != _UNDEFINED_LENGTH and size - extent.start < extent.length):
        needed = max(needed, extent.length if extent.length != _UNDEFINED_LENGTH else 0)
        words = f"is cut off: {there} of {needed} bytes of pixel data are there"
        return "UNREADABLE_PIXELS", words, RESEND
    return None


def find_missing_decoder(syntax: UID, bits: int) -> Flaw | None:
    """The flaw of an encoding that no installed decoder reads; None if one does.

    Args:
        syntax: of compressed pixels.
        bits: Bits Stored. Of lossy JPEG with more than 8, GDCM and Pillow read none.
    """
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        words = f"is encoded as {syntax.name}, which cannot be decoded"
        return "MISSING_DECODER", words, "Convert the series to an uncompressed encoding."
    if syntax == JPEGExtended12Bit and bits > 8 and "pylibjpeg" not in decoder.available_plugins:
        words = f"is encoded as {syntax.name} with {bits} bits; no decoder is installed"
        return "MISSING_DECODER", words, "Install pylibjpeg-libjpeg (its licence is GPL), or convert the series."
    if decoder.is_available:
        return None
    needs = "; ".join(decoder.missing_dependencies)
    return "MISSING_DECODER", f"is encoded as {syntax.name}; no decoder is installed", f"Install one: {needs}."


def _find_cut_fragments(file: BinaryIO, size: int, extent: Extent) -> Flaw | None:
    """Walk over the fragments by their lengths; a missing last delimiter alone is forgiven."""
    if extent.length != _UNDEFINED_LENGTH:
        return "UNREADABLE_PIXELS", "says that it is compressed, but its pixel data are not in fragments", RESEND
    at, fragments = extent.start, 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        if head[:4] == _DELIMITER:
            break
        if head[:4] != _ITEM:
            return "UNREADABLE_PIXELS", "says that it is compressed, but its pixel data are not in fragments", RESEND
        at += 8 + int.from_bytes(head[4:], "little")
        fragments += 1
    if at > size or fragments < 2:  # the first item is the offset table
        return "UNREADABLE_PIXELS", f"is cut off within its compressed pixel data, after {size} bytes", RESEND
    return None
