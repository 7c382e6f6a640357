"""Where the windows lie that a network sees, and how their answers are blended."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.errors import SettingsError

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Tiling:
    """How a grid is cut into windows.

    Args:
        window: size of a window along each axis of the network's grid. For 2D networks the first is the number of
            slices that go through together.
        overlap: how much of a window its neighbour shares, 0 to 0.9.
        mirror_axes: axes of the grid along which the network has seen mirrored images, so that its windows may be
            mirrored too; None where nothing is known of it.

    Raises:
        SettingsError: if a size is below 1, the overlap is out of range, or an axis is none of the three.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    window: Size
    overlap: float = 0.5
    mirror_axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.mirror_axes is not None and not {0, 1, 2}.issuperset(self.mirror_axes):
            raise SettingsError(f"mirror_axes is {list(self.mirror_axes)}; axes are 0, 1 and 2.")
        if [size >= 1 for size in self.window] != [True] * 3:
            raise SettingsError(f"The window is {self.window}; give three sizes of at least 1.")
        if not 0 <= self.overlap <= 0.9:
            raise SettingsError(f"The overlap is {self.overlap}; it must lie from 0 to 0.9.")


def padded_size(shape: Size, window: Size, stride: Size) -> Size:
    """The size a grid is padded to: at least one window, and whole blocks of the network's output stride.

    Raises:
        SettingsError: if the window is not a whole number of strides.
    """
    if any(size % step for size, step in zip(window, stride, strict=True)):
        raise SettingsError(f"The window {window} must be a multiple of the network's output stride {stride}.")
    sizes = [max(w, math.ceil(n / s) * s) for n, w, s in zip(shape, window, stride, strict=True)]
    return sizes[0], sizes[1], sizes[2]


def fit_window(window: Size, shape: Size, step: Size) -> Size:
    """A window no larger than a grid needs: along each axis the grid's own size, rounded up to whole steps.

    A network that takes images of any size sees a whole image in one go, without a border of air around it that only
    costs time.

    Args:
        window: the largest window.
        shape: of the grid.
        step: what sizes must be whole multiples of; a window that is none stays as it is.

    Examples:
        >>> fit_window((1, 1024, 1024), (1, 960, 999), (1, 32, 32))
        (1, 960, 1024)
    """
    a, b, c = (min(w, math.ceil(n / s) * s) for w, n, s in zip(window, shape, step, strict=True))
    return a, b, c


def place_windows(shape: Size, tiling: Tiling, stride: Size = (1, 1, 1), flat_axes: tuple[int, ...] = ()) -> list[Size]:
    """The first index of each window, ordered along axis 0.

    Windows are spread evenly, at multiples of the stride, so that every voxel is covered and none lies outside.

    Args:
        shape: size of the padded grid (see `padded_size`).
        tiling: window and overlap.
        stride: windows start at multiples of this.
        flat_axes: axes without overlap (the slices of a 2D network, which do not see one another there).

    Examples:
        >>> place_windows((8, 8, 12), Tiling((8, 8, 8), 0.5))
        [(0, 0, 0), (0, 0, 4)]
    """
    starts = []
    for axis, (size, window, step) in enumerate(zip(shape, tiling.window, stride, strict=True)):
        advance = window if axis in flat_axes else max(step, math.floor(window * (1 - tiling.overlap)))
        count = 1 + math.ceil(max(0, size - window) / advance)
        last = size - window
        starts.append(sorted({round(i * last / max(1, count - 1) / step) * step for i in range(count)}))
    return [(a, b, c) for a, b, c in itertools.product(*starts)]


def blending_weight(window: Size, flat_axes: tuple[int, ...] = ()) -> Float[Tensor, "w0 w1 w2"]:
    """How much each voxel of a window counts: a Gaussian with a deviation of an eighth of the window.

    Args:
        window: size of the window, in voxels of the network's output.
        flat_axes: axes along which all voxels count alike (the slices of a 2D network).

    Returns:
        Weights above 0, at most 1.

    Source:
        The Gaussian importance map of Isensee et al., nnU-Net, Nature Methods 18 (2021), Online Methods.
    """
    weight = torch.ones(1, 1, 1)
    for axis, size in enumerate(window):
        places = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
        line = torch.ones(size) if axis in flat_axes else torch.exp(-0.5 * (places / (size / 8)) ** 2)
        weight = weight * line.reshape([-1 if axis == each else 1 for each in range(3)])
    return weight.clamp_min(1e-3)


def blending_lines(
    size: int, starts: Sequence[int], window: int, *, flat: bool = False
) -> dict[int, Float[Tensor, "w"]]:
    """How much each window counts along one axis, so that the shares of all windows sum to 1 at every voxel.

    The weight of a voxel is the product of its three shares. Since windows stand on a grid, these products sum to 1 as
    well: blended scores need no division, and no volume of weights is kept.

    Args:
        size: length of the axis, in voxels of the network's output.
        starts: first voxel of each window; together they cover the axis.
        window: length of a window.
        flat: whether all voxels of a window count alike, as the slices of a 2D network do.

    Returns:
        For each start its (window,) shares, above 0.

    Source:
        The Gaussian importance map of Isensee et al., nnU-Net, Nature Methods 18 (2021), Online Methods, with a
        deviation of an eighth of the window; here made to sum to 1 along each axis.

    Examples:
        >>> lines = blending_lines(6, [0, 2], 4)
        >>> (lines[0][2:] + lines[2][:2]).tolist()
        [1.0, 1.0]
    """
    places = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    line = torch.ones_like(places) if flat else torch.exp(-0.5 * (places / (window / 8)) ** 2)
    total = torch.zeros(size, dtype=torch.float64)
    for start in starts:
        total[start : start + window] += line
    return {start: (line / total[start : start + window]).float() for start in starts}
