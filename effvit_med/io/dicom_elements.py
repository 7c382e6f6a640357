"""Values of DICOM elements as plain text and numbers, whatever nonsense a file holds, and their place in frames."""

from __future__ import annotations

import copy
import logging
import math
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import Tag

# What pydicom raises on files that are cut off, scrambled or lie about lengths; all mean "cannot be read".
PARSE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

Value = TypeVar("Value")

_PLAIN_TEXTS = frozenset({"AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UI"})
_SHARED_GROUPS, _FRAME_GROUPS = 0x52009229, 0x52009230
_DEPTH = 3  # a macro, its item, and one sequence inside it (diffusion gradients)
_CONVERTED = (0x00209170, 0x00209171)  # attributes that a legacy converted image keeps of its single frames
_OTHER_IMAGES = (0x00089124, 0x00081140, 0x00082112, 0x00209172)  # sequences that describe what an image came from


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from warning and logging: it quotes header values, and those may name the patient."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


@lru_cache(maxsize=4096)
def share(value: Value) -> Value:
    """An equal value that was seen before, so that a thousand headers hold it once."""
    return value


class Elements:
    """The elements that hold for one image: of a file, or of one frame of it.

    Args:
        dataset: the header of the file.
        groups: what the functional groups say of the frame; it wins over the file.
    """

    def __init__(self, dataset: pydicom.Dataset, groups: Mapping[int, pydicom.Dataset] | None = None) -> None:
        self._dataset = dataset
        self._elements = {int(tag): element for tag, element in dataset.items()}  # plain numbers compare faster
        self._groups = groups or {}

    def of_frame(self, groups: Mapping[int, pydicom.Dataset]) -> Elements:
        """The same with other functional groups."""
        other = copy.copy(self)
        other._groups = groups  # noqa: SLF001  it is a copy of this one
        return other

    def values(self, tag: str | int) -> list[Any]:
        """The values of an element, an empty list where it is absent, empty or cannot be parsed."""
        number = _tag_of(tag)
        holder = self._groups.get(number, self._dataset)
        try:
            element = self._elements.get(number) if holder is self._dataset else holder.get_item(number)
            if element is None:
                return []
            plain = _parse_plainly(element) if isinstance(element, RawDataElement) else None
            if plain is not None:
                return plain
            value = holder[number].value
        except PARSE_ERRORS:
            return []
        if value is None or value == "":
            return []
        return list(value) if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]

    def text(self, tag: str | int) -> str:
        """The values as text, joined by backslashes."""
        number = _tag_of(tag)
        if number not in self._elements and number not in self._groups:
            return ""
        values = (value.decode("latin-1") if isinstance(value, bytes) else str(value) for value in self.values(tag))
        return "\\".join(value.strip(" \x00") for value in values)

    def numbers(self, tag: str | int, count: int) -> tuple[float, ...] | None:
        """So many finite numbers, or None."""
        try:
            numbers = tuple(float(value) for value in self.values(tag))
        except (TypeError, ValueError):
            return None
        return numbers if len(numbers) == count and all(math.isfinite(number) for number in numbers) else None

    def number(self, tag: str | int, default: float) -> float:
        """A number; the default where it is absent or empty, not a number where it is nonsense."""
        values = self.values(tag)
        try:
            return float(values[0]) if values else default
        except (TypeError, ValueError):
            return math.nan

    def whole(self, tag: str | int) -> int | None:
        """A whole number, or None."""
        try:
            return int(self.values(tag)[0])
        except (IndexError, TypeError, ValueError, OverflowError):
            return None


def _parse_plainly(element: RawDataElement) -> list[Any] | None:
    """The values of an element that is plain ASCII text or 16-bit numbers, many times faster than pydicom does it.

    None for anything else, which is left to pydicom.
    """
    content = element.value
    if not isinstance(content, bytes):
        return None
    kind = element.VR or _kind_of(int(element.tag))
    if kind in _PLAIN_TEXTS and content.isascii():
        text = content.decode("ascii").strip(" \x00")
        return text.split("\\") if text else []
    if kind == "US" and len(content) == 2:
        return [int.from_bytes(content, "little" if element.is_little_endian else "big")]
    return None


@lru_cache(maxsize=1024)
def _kind_of(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return ""


@lru_cache
def _tag_of(name: str | int) -> int:
    return int(Tag(name))


def split_frames(dataset: pydicom.Dataset) -> list[Elements]:
    """The elements that hold for each frame of an image with functional groups, in the order of its frames.

    Args:
        dataset: a header with Shared and Per-Frame Functional Groups Sequence.

    Returns:
        One per item of the Per-Frame sequence; empty where there is none. What a frame's own groups say wins over the
        shared groups, and these over the top of the file.

    Source:
        DICOM PS3.3 section C.7.6.16.1 (functional groups), A.70 (legacy converted images).
    """
    try:
        shared = {} if _SHARED_GROUPS not in dataset else _flatten(dataset[_SHARED_GROUPS].value)
        items = list(dataset[_FRAME_GROUPS].value) if _FRAME_GROUPS in dataset else []
        top = Elements(dataset)
        return [top.of_frame({**shared, **_flatten([item])}) for item in items]
    except PARSE_ERRORS:
        return []


def _flatten(items: Any) -> dict[int, Any]:
    """The elements of functional groups by tag, each with the data set that holds it."""
    found: dict[int, Any] = {}
    for item in list(items)[:1]:
        _collect(item, found, _DEPTH)
    return found


def _collect(item: pydicom.Dataset, found: dict[int, Any], depth: int) -> None:
    for tag in sorted(item.keys(), key=lambda each: each in _CONVERTED):  # macros win over converted attributes
        if tag in _OTHER_IMAGES or (tag.is_private and depth == _DEPTH):
            continue
        try:
            element = item[tag]
        except PARSE_ERRORS:
            continue
        if element.VR != "SQ":
            found.setdefault(int(tag), item)
        elif depth > 1:
            for each in list(element.value)[:1]:
                _collect(each, found, depth - 1)
