"""What a correction changes: which voxels, from which value, to which value; exact, and small as text."""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import GeometryError, InputError

LabelArray = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
IntArray = npt.NDArray[np.int64]

_FORMAT = b"VC1"
_FIELDS = 6  # gaps and lengths of the runs of voxels; values and lengths of the runs of before, and of after
_LEVEL = 6  # of zlib


@dataclass(frozen=True, eq=False)
class VoxelChange:
    """Voxels of a label array that take another value.

    Args:
        flat: (n,) int64 indices into the array in C order, strictly increasing.
        before: (n,) the values that they have.
        after: (n,) the values that they get; each differs from the one before.

    Raises:
        GeometryError: if the three are not of one length, the indices do not increase, or a voxel does not change.

    Examples:
        >>> labels = np.zeros((2, 4, 4), np.uint8)
        >>> change = VoxelChange.of(labels, np.array([5, 4, 31]), 3)
        >>> change.apply(labels)
        >>> int(labels.sum()), VoxelChange.from_text(change.to_text()).flat.tolist()
        (9, [4, 5, 31])
        >>> change.revert(labels)
        >>> bool(labels.any())
        False
    """

    flat: IntArray
    before: LabelArray
    after: LabelArray

    def __post_init__(self) -> None:
        if not self.flat.shape == self.before.shape == self.after.shape == (self.flat.size,):
            raise GeometryError(
                f"A change has {self.flat.shape} places, {self.before.shape} values before and {self.after.shape} "
                "after; give one of each per voxel."
            )
        if self.flat.size and (self.flat[0] < 0 or (np.diff(self.flat) <= 0).any()):
            raise GeometryError("The places of a change are not strictly increasing indices from 0.")
        if (self.before == self.after).any():
            raise GeometryError("A change holds voxels whose value stays the same; leave them out.")

    def __len__(self) -> int:
        return int(self.flat.size)

    @classmethod
    def of(cls, labels: LabelArray, flat: npt.ArrayLike, after: npt.ArrayLike) -> VoxelChange:
        """What giving values to voxels would change.

        Args:
            labels: the array, contiguous in C order; it stays as it is.
            flat: indices into it in C order, in any order; of a voxel named twice the last value counts.
            after: one value for all, or one for each index.

        Returns:
            The voxels whose value really changes.

        Raises:
            GeometryError: if an index lies outside, the array is not contiguous, or the values do not fit.
        """
        places, values = _pair(labels, flat, after)
        if not (np.diff(places) > 0).all():  # sorting takes longest of all, and most are sorted
            flipped = values[::-1]
            places, last = np.unique(places[::-1], return_index=True)
            values = flipped[last]
        before = flat_view(labels)[places]
        differs = before != values
        if differs.all():
            return cls(places, before, values)
        return cls(places[differs], before[differs], values[differs])

    def where(self, kept: npt.NDArray[np.bool_]) -> VoxelChange:
        """The part of the change that a mask of its voxels keeps."""
        return VoxelChange(self.flat[kept], self.before[kept], self.after[kept])

    def reverse(self) -> VoxelChange:
        """The change that takes this one back."""
        return VoxelChange(self.flat, self.after, self.before)

    def fits(self, labels: LabelArray) -> bool:
        """Whether the voxels of an array have the values that they have before this change."""
        view = flat_view(labels)
        return not self.flat.size or bool(self.flat[-1] < view.size and np.array_equal(view[self.flat], self.before))

    def apply(self, labels: LabelArray) -> None:
        """Give the voxels of an array the values after the change.

        Raises:
            GeometryError: if they do not have the values before it; then nothing is written.
        """
        if not self.fits(labels):
            raise GeometryError(
                f"A change of {len(self)} voxels does not fit the labels: some have another value than the one that "
                "it starts from. Something else has written into them."
            )
        flat_view(labels)[self.flat] = self.after

    def revert(self, labels: LabelArray) -> None:
        """Give the voxels of an array the values before the change.

        Raises:
            GeometryError: if they do not have the values after it; then nothing is written.
        """
        self.reverse().apply(labels)

    def to_text(self) -> str:
        """The change as ASCII text: runs of neighbouring voxels and of equal values, packed."""
        starts, lengths = _find_runs(np.diff(self.flat, prepend=self.flat[:1] - 2) != 1, self.flat)
        ends = starts + lengths
        gaps = starts - np.concatenate([[0], ends[:-1]]) if starts.size else starts
        arrays = [gaps, lengths]
        for values in (self.before, self.after):
            arrays += _find_runs(np.diff(values, prepend=values[:1]) != 0, values)
        sized = [_pack(array) for array in arrays]
        kind = b"\x02" if self.before.dtype == np.uint16 else b"\x01"
        return base64.b64encode(zlib.compress(_FORMAT + kind + b"".join(sized), _LEVEL)).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> VoxelChange:
        """The change that a text was made of.

        Raises:
            InputError: if the text is damaged.
        """
        try:
            content = zlib.decompress(base64.b64decode(text, validate=True))
            if content[:3] != _FORMAT or content[3] not in (1, 2):
                raise ValueError(f"it begins with {content[:4]!r}")
            gaps, lengths, *values = _unpack_all(content[4:])
            starts = np.cumsum(gaps) + np.cumsum(lengths) - lengths
            flat = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))
            dtype = np.uint16 if content[3] == 2 else np.uint8
            before = np.repeat(values[0].astype(dtype), values[1])
            after = np.repeat(values[2].astype(dtype), values[3])
            return cls(flat, before, after)
        except (ValueError, binascii.Error, zlib.error, IndexError, GeometryError) as error:
            raise InputError(f"The text of a change of voxels is damaged: {error}.") from error


def flat_view(labels: LabelArray) -> LabelArray:
    """The array as one row in C order, sharing its memory.

    Raises:
        GeometryError: if the array is not contiguous, so that a row would be a copy.
    """
    if not labels.flags.c_contiguous:
        raise GeometryError("The label array is a view that is not contiguous; give the array of the session itself.")
    return labels.reshape(-1)


def check_places(labels: LabelArray, places: npt.NDArray[Any]) -> None:
    """Make sure that indices in C order lie inside an array.

    Raises:
        GeometryError: if one does not, or they are no whole numbers.
    """
    if places.size and not np.issubdtype(places.dtype, np.integer):
        raise GeometryError(f"The indices of voxels have type {places.dtype}; give whole numbers.")
    if places.size and (int(places.min()) < 0 or int(places.max()) >= labels.size):
        raise GeometryError(
            f"Indices from {places.min()} to {places.max()} do not lie in labels of {labels.size} voxels."
        )


def _pair(labels: LabelArray, flat: npt.ArrayLike, values: npt.ArrayLike) -> tuple[IntArray, LabelArray]:
    """Indices and values of equal length, the values in the type of the labels."""
    places = np.asarray(flat).reshape(-1)
    check_places(labels, places)
    places = places.astype(np.int64)
    given = np.asarray(values)
    largest = np.iinfo(labels.dtype).max
    if given.size and not (np.issubdtype(given.dtype, np.integer) and given.min() >= 0 and given.max() <= largest):
        raise GeometryError(f"Label values must be whole numbers from 0 to {largest}.")
    if given.ndim and given.size != places.size:
        raise GeometryError(f"There are {places.size} voxels and {given.size} values; give one value, or one for each.")
    return places, np.broadcast_to(given.reshape(-1).astype(labels.dtype), places.shape)


def _find_runs(breaks: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], IntArray]:
    """The first value of each run, and the lengths of the runs; the first element always begins one."""
    if not values.size:
        return values, np.zeros(0, np.int64)
    begins = np.flatnonzero(np.concatenate([[True], breaks[1:]]))
    return values[begins], np.diff(begins, append=values.size)


def _pack(array: npt.NDArray[Any]) -> bytes:
    """An array of whole numbers from 0 in the narrowest type, after its width and length."""
    kind = np.min_scalar_type(int(array.max()) if array.size else 0)
    content = array.astype(kind.newbyteorder("<"))
    return bytes([kind.itemsize]) + array.size.to_bytes(8, "little") + content.tobytes()


def _unpack_all(content: bytes) -> list[IntArray]:
    arrays: list[IntArray] = []
    place = 0
    for _ in range(_FIELDS):
        width, size = content[place], int.from_bytes(content[place + 1 : place + 9], "little")
        stop = place + 9 + width * size
        if width not in (1, 2, 4, 8) or stop > len(content):
            raise ValueError(f"it is cut at byte {place}")
        arrays.append(np.frombuffer(content[place + 9 : stop], f"<u{width}").astype(np.int64))
        place = stop
    if place != len(content):
        raise ValueError(f"{len(content) - place} bytes follow its end")
    return arrays
