"""Byte streams: what is read is hashed on the way, what is compressed is written on the way."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

_GZIP_MARK = b"\x1f\x8b"
_CHUNK = 2**20


def _unpack_errors() -> tuple[type[Exception], ...]:
    known = (EOFError, OSError, zlib.error)
    try:
        return (*known, import_module("isal.isal_zlib").error)
    except ImportError:
        return known


UNPACK_ERRORS = _unpack_errors()
"""What reading a damaged file raises, compressed or not."""

_ZLIB_LEVEL = 6
_ISAL_LEVEL = 2


class HashedFile:
    """A file that is read once, from start to end, and hashed on the way.

    Args:
        path: the file.

    Raises:
        OSError: if it cannot be opened.

    Attributes:
        is_compressed: whether it is gzip, whatever its name says.
        stream: its content, unpacked if it is compressed; it can only be read forwards.
    """

    def __init__(self, path: Path) -> None:
        self._raw = _HashingReader(path)
        buffered = io.BufferedReader(self._raw, _CHUNK)
        self.is_compressed = buffered.peek(2)[:2] == _GZIP_MARK
        self._buffered = buffered
        self.stream: BinaryIO = _open_gzip(buffered) if self.is_compressed else buffered

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self._buffered.close()

    def head(self, size: int) -> bytes:
        """The first bytes of the content; the stream stays where it is. Call it before anything is read.

        Args:
            size: at most this many bytes.

        Raises:
            OSError: if the file cannot be read.
            zlib.error: if its start is no gzip.
        """
        start = self._buffered.peek(size)
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, size) if self.is_compressed else start[:size]

    def finish(self) -> str:
        """Read what is left of the file; the SHA-256 of all its bytes as hex digits."""
        while self._raw.read(_CHUNK):
            pass
        return self._raw.digest.hexdigest()


class _HashingReader(io.RawIOBase):
    """The bytes of a file, each of which is hashed as it is read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self.digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        taken = self._file.readinto(buffer)
        self.digest.update(memoryview(buffer)[:taken])
        return taken

    def close(self) -> None:
        self._file.close()
        super().close()


def _open_gzip(file: BinaryIO) -> BinaryIO:
    try:
        kind: Any = import_module("isal.igzip").IGzipFile
    except ImportError:
        kind = gzip.GzipFile
    return cast("BinaryIO", kind(fileobj=file))


class Compressor:
    """A file to write to, compressed as gzip if asked for; equal content gives equal bytes.

    ``isal`` compresses ten times faster than zlib and is used where it is installed; the two give different bytes of
    the same content.

    Args:
        file: to write to; it stays open.
        compress: whether to compress at all.
        runs: whether long runs of one value are most of the content, as in label maps.
    """

    def __init__(self, file: BinaryIO, *, compress: bool, runs: bool = False) -> None:
        self._file = file
        self._packer: Any = _make_packer(runs=runs) if compress else None

    def write(self, content: Any) -> None:
        """Write bytes, or an array of bytes that lies in one piece."""
        self._file.write(content if self._packer is None else self._packer.compress(content))

    def finish(self) -> None:
        """Write what is still held back."""
        if self._packer is not None:
            self._file.write(self._packer.flush())


def _make_packer(*, runs: bool) -> Any:
    """What makes a gzip stream without name and time."""
    try:
        isal = import_module("isal.isal_zlib")
    except ImportError:
        strategy = zlib.Z_RLE if runs else zlib.Z_DEFAULT_STRATEGY
        return zlib.compressobj(_ZLIB_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9, strategy)
    return isal.compressobj(_ISAL_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
