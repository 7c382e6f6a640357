"""A picture file opened safely: its header, which way it is stored, its pixels as the file has them."""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from effvit_med.errors import InputError, RefusedError
from effvit_med.io.photograph_spacing import Spacing, find_spacing

MAX_PIXELS = 178_956_970
"""A picture of more pixels is refused before anything is decoded; Pillow's own limit."""

DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})
"""Pillow's modes of one channel of more than 8 bits."""

ORIENTATIONS = {1: "PL", 2: "PR", 3: "AR", 4: "AL", 5: "LP", 6: "RP", 7: "RA", 8: "LA"}
"""Which way the rows and then the columns grow, by the orientation of Exif. Source: Exif 2.3, tag 0x0112."""

_BITS_PER_SAMPLE = 258  # of TIFF

# what Pillow's readers raise on damaged files
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError,
           ZeroDivisionError, AttributeError, AssertionError, RuntimeError, struct.error, zlib.error)  # fmt: skip


@contextmanager
def opened(path: Path) -> Iterator[tuple[Image.Image, str]]:
    """A picture whose header was read and whose pixels were not.

    Args:
        path: PNG, JPEG or TIFF.

    Yields:
        The picture, and the SHA-256 of its file.

    Raises:
        InputError: if the file cannot be read or is no PNG, JPEG or TIFF file.
        RefusedError: ``MULTI_VOLUME``, ``TOO_LARGE``, ``UNREADABLE_PIXELS``.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, on odd metadata and large pictures
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with _open(file, path) as image:
                _check_image(image, path)
                yield image, sha256
    except OSError as error:
        raise InputError(f"{path.name} cannot be read: {error.strerror or error}.") from error


def _open(file: Any, path: Path) -> Image.Image:
    try:
        return Image.open(file, formats=["PNG", "JPEG", "TIFF"])
    except UnidentifiedImageError as error:
        raise InputError(f"{path.name} is no PNG, JPEG or TIFF file, or its header is damaged.") from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far too many") from error
    except _DAMAGE as error:
        raise InputError(f"{path.name} has a damaged header: {_first_line(error)}.") from error


def _check_image(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"{width} x {height}")
    if width < 1 or height < 1:
        raise RefusedError("UNREADABLE_PIXELS", f"{path.name} has the size {width} x {height}.", "Save it again.")
    with damage_told(path):
        pages = int(getattr(image, "n_frames", 1))
    if pages > 1 and image.format != "MPO":  # a camera's JPEG with previews behind the picture
        message = f"{path.name} holds {pages} pictures; one is needed."
        raise RefusedError("MULTI_VOLUME", message, "Save each picture as a file of its own.")


def _too_large(path: Path, size: str) -> RefusedError:
    message = f"{path.name} claims {size} pixels, more than {MAX_PIXELS // 10**6} million."
    return RefusedError("TOO_LARGE", message, "Crop it or save it smaller.")


@dataclass(frozen=True)
class Header:
    """What is known of a picture before its pixels are decoded.

    Attributes:
        size: (height, width) as stored.
        orientation: of Exif, 1 to 8.
        spacing: of the pixels.
        format: such as ``PNG``.
        deep: whether Pillow makes 8 bits out of more, as it does for colours.
    """

    size: tuple[int, int]
    orientation: int
    spacing: Spacing
    format: str
    deep: bool


def read_header(image: Image.Image, path: Path) -> Header:
    """What is known of a picture before its pixels are decoded.

    Args:
        image: opened and not decoded yet.
        path: its file, for messages.

    Raises:
        RefusedError: ``UNREADABLE_PIXELS``, if its tags cannot be read.
    """
    with damage_told(path):
        width, height = image.size
        orientation = find_orientation(image)
        if image.format == "TIFF" and orientation > 4:  # Pillow tells the size of the upright picture
            width, height = height, width
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
        tiles = getattr(image, "tile", ())
        raw = str(tiles[0][3]) if tiles else ""  # such as RGB;16B of a PNG
        deep = any(int(each) > 8 for each in (bits if isinstance(bits, tuple) else (bits,))) or ";16" in raw
        kind = (image.format or "").replace("MPO", "JPEG")
        return Header((height, width), orientation, find_spacing(image), kind, deep and image.mode not in DEEP)


def find_orientation(image: Image.Image) -> int:
    """The orientation that the Exif of a picture says: 1, upright, to 8.

    Args:
        image: opened. The Exif of a PNG may stand behind its pixels and is found once they are decoded.
    """
    found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)  # not that of PNG, which decodes all pixels
    return found if found in ORIENTATIONS else 1


def as_stored(pixels: npt.NDArray[Any], header: Header) -> npt.NDArray[Any]:
    """Pixels as the file has them: those of a TIFF that says it is turned are turned upright by Pillow.

    Args:
        pixels: (height, width) or (height, width, channels) as Pillow decoded them.
        header: of the picture.
    """
    if header.format != "TIFF" or header.orientation == 1:
        return pixels
    letters = ORIENTATIONS[header.orientation]
    rows, columns = letters[0], letters[1]
    turned = pixels.swapaxes(0, 1) if rows in "LR" else pixels
    if rows in "AR":
        turned = turned[::-1]
    return turned[:, ::-1] if columns in "AR" else turned


def native(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The values in the byte order of this machine."""
    return values.astype(values.dtype.newbyteorder("="), copy=False)


@contextmanager
def damage_told(path: Path) -> Iterator[None]:
    """What Pillow raises inside the block becomes a refusal.

    Args:
        path: the file, for the message.

    Raises:
        RefusedError: ``UNREADABLE_PIXELS``, ``TOO_LARGE``.
    """
    try:
        yield
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far too many") from error
    except _DAMAGE as error:
        message = f"{path.name} cannot be decoded: {_first_line(error)}."
        raise RefusedError("UNREADABLE_PIXELS", message, "Copy it again, or save it anew.") from error


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(".")
