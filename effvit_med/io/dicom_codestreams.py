"""A first look at compressed pixels, before a decoder is trusted with them: some end the process on bad ones."""

from __future__ import annotations

from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
)

_WAVELETS = frozenset({*JPEG2000TransferSyntaxes, HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL})
_JPEG = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1})
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG, DAC
_START_OF_SCAN = 0xDA

CHECKED = _WAVELETS | _JPEG
"""The encodings that `check_codestream` knows."""


def check_codestream(content: bytes, syntax: UID, rows: int, columns: int) -> None:
    """Compare the size that a compressed image says it has with that of the header, before anything is allocated.

    Args:
        content: the encoded image, perhaps with item tags before it.
        syntax: its transfer syntax; nothing is done for one that is not in `CHECKED`.
        rows: of the header.
        columns: of the header.

    Raises:
        ValueError: if the stream is of another kind than the syntax, has no size, or another one.
    """
    if syntax in _WAVELETS:
        _compare("JPEG 2000", _find_wavelet_size(content), rows, columns)
    elif syntax in _JPEG:
        _compare("JPEG", _find_jpeg_size(content), rows, columns)


def _compare(kind: str, size: tuple[int, int] | None, rows: int, columns: int) -> None:
    if size != (rows, columns):
        found = f"{size[0]} by {size[1]} pixels" if size else "no size"
        raise ValueError(f"the {kind} stream has {found}, the header {rows} by {columns}")


def _find_wavelet_size(content: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG 2000 code stream.

    Source:
        ISO/IEC 15444-1 A.5.1: SIZ marker FF51, then Lsiz, Rsiz (2 bytes each), Xsiz, Ysiz, XOsiz, YOsiz (4 each).
    """
    at = content.find(b"\xff\x4f\xff\x51")
    if at < 0:
        return None
    size = [int.from_bytes(content[start : start + 4], "big") for start in range(at + 8, at + 24, 4)]
    return size[1] - size[3], size[0] - size[2]


def _find_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG image, from the first frame header.

    Source:
        ISO/IEC 10918-1 B.1.1.4 (marker segments) and B.2.2: SOF marker, Lf (2 bytes), P (1), Y (2), X (2).
    """
    at = content.find(b"\xff\xd8\xff")
    if at < 0:
        return None
    at += 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _FRAME_MARKERS:
            return int.from_bytes(content[at + 5 : at + 7], "big"), int.from_bytes(content[at + 7 : at + 9], "big")
        if marker == _START_OF_SCAN:
            return None
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None
