"""The frames of a DICOM segmentation: which there are, what is said of each, and their pixels.

highdicom builds the whole object once, with one tiny frame a slice. A binary file has one frame per slice *and*
structure: what is said of them differs only in the structure, so it is encoded once a slice and once a structure and
joined here. The pixels are packed while they are written, so that the file is never in memory.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element
from pydicom.pixels import get_encoder
from pydicom.tag import Tag
from pydicom.uid import RLELossless

from effvit_med.errors import OutputError
from effvit_med.volume.overlaps import take_structure
from effvit_med.volume.pages import count_slab, release_pages
from effvit_med.volume.segmentation import Segmentation

TINY = 4
"""Rows and columns of the frames that highdicom sees; 16 pixels, since it packs fewer than 8 wrongly."""

MAX_FRACTION = 255
FRACTION_MEANING = (
    "Confidence of the label as a part of 255: tanh(d / 2) for the difference d of the two largest scores, at least 1 "
    "where the label is, 0 elsewhere. 0 is a tie of two classes, 255 certain; it is not a calibrated probability."
)
"""What the values of a fractional segmentation mean; at most 1024 characters."""

_PER_FRAME, _PIXEL_DATA = Tag("PerFrameFunctionalGroupsSequence"), Tag("PixelData")
_DERIVATION, _CONTENT = Tag("DerivationImageSequence"), Tag("FrameContentSequence")
_POSITION, _SEGMENT = Tag("PlanePositionSequence"), Tag("SegmentIdentificationSequence")
_ITEM = struct.Struct("<HHI")
_CHARACTERS = "ISO_IR 192"


@dataclass(frozen=True)
class Frame:
    """One frame to write.

    Attributes:
        index: its slice, along array axis 0.
        value: the label value that is 1 in it; of a labelmap 0, since it holds all.
    """

    index: int
    value: int


class PackedFrames(io.BufferedIOBase):
    """The pixel data of a binary segmentation as a file that can be read but is never held: one bit a voxel.

    Args:
        labels: (slices, rows, columns) label values.
        frames: the frames, in the order of the file.
        overlaps: whether a label value can be the sum of those of structures that overlap.

    Source:
        DICOM PS3.5 section 8.1.1 and annex D: frames follow each other bit by bit, the first pixel in the lowest bit,
        without gaps between frames; the whole is padded to an even number of bytes.

    Examples:
        >>> labels = np.zeros((1, 2, 8), np.uint8)
        >>> labels[0, 0, :3] = 5
        >>> PackedFrames(labels, [Frame(0, 5)]).read().hex()
        '0700'
    """

    def __init__(
        self, labels: npt.NDArray[np.unsignedinteger], frames: Sequence[Frame], *, overlaps: bool = False
    ) -> None:
        super().__init__()
        self._labels, self._frames, self._overlaps = labels, frames, overlaps
        bits = len(frames) * labels.shape[1] * labels.shape[2]
        self._length = -(-bits // 16) * 2
        self._at = 0  # where the next read begins
        self._made = 0  # how many bytes came out of the packer
        self._left = b""  # of these, those that were not read yet
        self._packer = self._pack()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True; but going back means to pack again from the start."""
        return True

    def tell(self) -> int:
        """The number of the byte that is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a byte, counted from the start, from here or from the end; returns its number."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        self._at = min(max(0, start + offset), self._length)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes, at most ``size``; empty at the end."""
        if self._at != self._made - len(self._left):
            self._packer, self._made, self._left = self._pack(), 0, b""
            self._take(self._at)
        wanted = self._length - self._at
        taken = self._take(wanted if size is None or size < 0 else min(size, wanted))
        self._at += len(taken)
        return taken

    def _take(self, size: int) -> bytes:
        parts, found = [self._left], len(self._left)
        while found < size:
            part = next(self._packer)
            parts.append(part)
            found += len(part)
            self._made += len(part)
        whole = b"".join(parts) if len(parts) > 1 else self._left
        self._left = whole[size:]
        return whole[:size]

    def _pack(self) -> Iterator[bytes]:
        """The bytes frame by frame; the bits that fill no byte go in front of the next frame."""
        slab, size = count_slab(self._labels), self._labels[0].size
        rest = np.zeros(0, bool)
        for number, frame in enumerate(self._frames):
            bits = take_structure(self._labels[frame.index], frame.value, overlaps=self._overlaps).reshape(-1)
            if size % 8:
                bits = np.concatenate([rest, bits])
                bits, rest = np.split(bits, [len(bits) // 8 * 8])
            yield np.packbits(bits, bitorder="little").tobytes()
            if number % slab == slab - 1:
                release_pages(self._labels)
        yield np.packbits(rest, bitorder="little").tobytes() + b"\0"  # the pad byte is read where it is needed


def mark_slices(counts: npt.NDArray[np.int64], number: int, kind: npt.DTypeLike) -> npt.NDArray[np.unsignedinteger]:
    """Tiny frames that show highdicom which slices hold labels.

    Args:
        counts: (slices, values) voxels.
        number: the segment that the tiny frames are full of.
        kind: their type.

    Returns:
        The (slices, 4, 4) array.
    """
    marks = np.zeros((len(counts), TINY, TINY), kind)
    marks[counts[:, 1:].any(axis=1)] = number
    return marks


def shrink_headers(headers: Sequence[Dataset]) -> list[Dataset]:
    """Copies of the source headers that say the images are as small as the tiny frames."""
    small = []
    for header in headers:
        part = Dataset(header)
        part.Rows = part.Columns = TINY
        small.append(part)
    return small


def fill_binary(
    dataset: Dataset,
    labels: npt.NDArray[np.unsignedinteger],
    counts: npt.NDArray[np.int64],
    values: Sequence[int],
    slices: Sequence[int],
    *,
    overlaps: bool = False,
) -> None:
    """Turn a segmentation of tiny frames into the true one, one frame per structure and slice.

    Args:
        dataset: built by highdicom on tiny frames, all of segment 1; changed in place.
        labels: (slices, rows, columns) label values.
        counts: (slices, values) voxels of each structure.
        values: the label value of each segment, segment 1 first.
        slices: the slice of each tiny frame.
        overlaps: whether a label value can be the sum of those of structures that overlap.

    Raises:
        OutputError: if what highdicom says of a frame has not the form that is known.

    Source:
        DICOM PS3.3 section C.7.6.16 (Multi-frame Functional Groups), C.7.6.17 (Dimension Index Values).
    """
    frames = _join_items(dataset, counts, values, slices)
    _finish(dataset, labels, len(frames))
    correct_ambiguous_vr(dataset, is_little_endian=True)
    dataset[_PIXEL_DATA] = DataElement(_PIXEL_DATA, "OB", PackedFrames(labels, frames, overlaps=overlaps))
    dataset.SegmentsOverlap = "YES" if overlaps else "NO"


def _join_items(
    dataset: Dataset, counts: npt.NDArray[np.int64], values: Sequence[int], slices: Sequence[int]
) -> list[Frame]:
    """Say of every frame what is said of its slice and structure; returns the frames, in the order of the file."""
    is_empty = not counts[:, 1:].any()  # then segment 1 has a frame on every slice, without a voxel
    heads = [_encode_parts(item, len(values)) for item in dataset.PerFrameFunctionalGroupsSequence]
    frames: list[Frame] = []
    items: list[bytes] = []
    for number, value in enumerate(values, 1):
        segment = _encode_segment(number) if len(values) > 1 else b""
        for index, (derivation, content, position) in zip(slices, heads, strict=True):
            if is_empty or counts[index, value]:
                frames.append(Frame(index, value))
                items.append(b"".join((derivation, _with_segment(content, number), position, segment)))
    encoded = b"".join(_ITEM.pack(0xFFFE, 0xE000, len(item)) + item for item in items)
    correct_ambiguous_vr(dataset, is_little_endian=True)
    dataset[_PER_FRAME] = RawDataElement(_PER_FRAME, "SQ", len(encoded), encoded, 0, False, True)
    dataset.set_original_encoding(False, True, dataset._character_set)  # noqa: SLF001 - so it is written as encoded
    return frames


def fill_fractional(
    dataset: Dataset,
    segmentation: Segmentation,
    counts: npt.NDArray[np.int64],
    values: Sequence[int],
    slices: Sequence[int],
) -> None:
    """Turn a segmentation of tiny frames into the true one, one compressed frame per structure and slice.

    Args:
        dataset: built by highdicom on tiny frames, all of segment 1, and compressed; changed in place.
        segmentation: labels with their confidence.
        counts: (slices, values) voxels.
        values: the label value of each segment, segment 1 first.
        slices: the slice of each tiny frame.

    Raises:
        OutputError: if what highdicom says of a frame has not the form that is known.
    """
    frames = _join_items(dataset, counts, values, slices)
    encoder = _FrameEncoder(dataset, segmentation.labels)
    encoded, slab = [], count_slab(segmentation.labels)
    for number, frame in enumerate(frames):
        encoded.append(encoder.encode(draw_fractions(segmentation, frame.index, frame.value)))
        if number % slab == slab - 1:
            release_pages(segmentation.labels)
    _finish(dataset, segmentation.labels, len(encoded))
    dataset.PixelData = encapsulate(encoded)


def draw_fractions(segmentation: Segmentation, index: int, value: int) -> npt.NDArray[np.uint8]:
    """The plane of a fractional segmentation: the confidence where the label is, at least 1; 0 elsewhere.

    Args:
        segmentation: labels with their confidence.
        index: the slice.
        value: the label value.

    Raises:
        OutputError: if there is no confidence map.
    """
    if segmentation.confidence is None:
        raise OutputError("A fractional segmentation needs a confidence map, and there is none.")
    return np.maximum(segmentation.confidence[index], 1) * (segmentation.labels[index] == value)


def fill_labelmap(dataset: Dataset, labels: npt.NDArray[np.unsignedinteger], slices: Sequence[int]) -> None:
    """Turn a segmentation of tiny frames into the true one, one compressed frame per slice.

    Args:
        dataset: built by highdicom on tiny frames and compressed; changed in place.
        labels: (slices, rows, columns) label values.
        slices: the slice of each frame.
    """
    encoder = _FrameEncoder(dataset, labels)
    encoded, slab = [], count_slab(labels)
    for number, index in enumerate(slices):
        encoded.append(encoder.encode(labels[index]))
        if number % slab == slab - 1:
            release_pages(labels)
    _finish(dataset, labels, len(encoded))
    dataset.PixelData = encapsulate(encoded)


class _FrameEncoder:
    """Compresses frames by run lengths.

    Args:
        dataset: says how a pixel is stored.
        labels: of the size of the frames.
    """

    def __init__(self, dataset: Dataset, labels: npt.NDArray[np.unsignedinteger]) -> None:
        bits = int(dataset.BitsAllocated)
        self._encoder = get_encoder(RLELossless)
        # GDCM is much quicker, but ends the whole process where rows times columns is odd
        is_even = "gdcm" in self._encoder.available_plugins and labels[0].size % 2 == 0
        self._plugin = "gdcm" if is_even else "pydicom"
        self._description = {
            "rows": labels.shape[1], "columns": labels.shape[2], "number_of_frames": 1, "samples_per_pixel": 1,
            "bits_allocated": bits, "bits_stored": bits, "pixel_representation": 0,
            "photometric_interpretation": str(dataset.PhotometricInterpretation),
        }  # fmt: skip
        self._kind = np.dtype(f"<u{bits // 8}")

    def encode(self, plane: npt.NDArray[np.unsignedinteger]) -> bytes:
        """A compressed frame."""
        whole = np.ascontiguousarray(plane, dtype=self._kind)
        return self._encoder.encode(whole, encoding_plugin=self._plugin, **self._description)


def _finish(dataset: Dataset, labels: npt.NDArray[Any], frames: int) -> None:
    dataset.Rows, dataset.Columns = labels.shape[1:]
    dataset.NumberOfFrames = frames


def _encode_parts(item: Dataset, segments: int) -> tuple[bytes, bytes, bytes]:
    """What is said of a frame, encoded: derivation, content, position."""
    known = {_DERIVATION, _CONTENT, _POSITION} | ({_SEGMENT} if segments > 1 else set())
    content = _encode(item[_CONTENT])
    values = [int(value) for value in item[_CONTENT].value[0].DimensionIndexValues]
    if set(item.keys()) != known or len(values) != 2 or not content.endswith(struct.pack("<II", *values)):
        raise OutputError(
            f"highdicom describes a frame by {sorted(item.keys())} with the indices {values}, a form that is not "
            "known; install the version of highdicom that constraints.txt names."
        )
    return _encode(item[_DERIVATION]), content, _encode(item[_POSITION])


def _with_segment(content: bytes, number: int) -> bytes:
    """The encoded content of a frame with another segment as first dimension index: the last 8 bytes are both."""
    return content[:-8] + struct.pack("<I", number) + content[-4:]


def _encode_segment(number: int) -> bytes:
    identification = Dataset()
    identification.ReferencedSegmentNumber = number
    return _encode(DataElement(_SEGMENT, "SQ", [identification]))


def _encode(element: DataElement) -> bytes:
    """An element in explicit little endian."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, element, _CHARACTERS)
    return bytes(buffer.getvalue())
