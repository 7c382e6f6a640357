"""What lies beyond the edge of an image: its own mirror image, for a network that sees more than there is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def cut_mirrored(values: Tensor, starts: Sequence[int], stops: Sequence[int]) -> Tensor:
    """A block of an image that goes on beyond its edges as its own mirror image, again and again.

    A window that is larger than the image would otherwise hold air, and a normalisation that takes its mean and
    deviation from the window (instance norm) would give other values to the same voxels in a larger window. Mirrored,
    every window has about the image's own.

    Args:
        values: (channels, *space); only the part that is asked for is read, so it may lie in a mapped file.
        starts: the first index along each spatial axis; below 0 before the image.
        stops: one more than the last, along each spatial axis.

    Returns:
        (channels, stops - starts); a view of the values where the block lies within them.

    Examples:
        >>> cut_mirrored(torch.tensor([[1, 2, 3]]), [-2], [5])
        tensor([[2, 1, 1, 2, 3, 3, 2]])
    """
    ranges = zip(starts, stops, values.shape[1:], strict=True)
    places = [mirrored_places(start, stop, size) for start, stop, size in ranges]
    lows = [int(place.min()) for place in places]
    block = values[(slice(None), *(slice(low, int(place.max()) + 1) for low, place in zip(lows, places, strict=True)))]
    for axis, (low, place) in enumerate(zip(lows, places, strict=True), start=1):
        if len(place) != block.shape[axis] or int(place[0]) > int(place[-1]):
            block = block.index_select(axis, (place - low).to(block.device))
    return block


def mirrored_places(start: int, stop: int, size: int) -> Tensor:
    """The index of an image that stands at each place of an axis which goes on as its own mirror image.

    Args:
        start: the first place; below 0 before the image.
        stop: one more than the last.
        size: of the image along the axis.

    Examples:
        >>> mirrored_places(-1, 4, 2).tolist()
        [0, 0, 1, 1, 0]
    """
    places = torch.arange(start, stop) % (2 * size)
    return torch.where(places < size, places, 2 * size - 1 - places)
