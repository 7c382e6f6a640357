"""From the unit of the scanner to the range that a network was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.errors import SettingsError

_HALF = 1 << 16


@dataclass(frozen=True)
class Intensity:
    """How values are scaled.

    ``window`` clips to ``low`` and ``high`` in the scan's unit (HU for CT) and maps them to -1 and 1: for scanners
    with an absolute unit. ``percentile`` clips to the percentiles ``low`` and ``high`` of each volume and then
    subtracts its mean and divides by its standard deviation: for MR.

    Args:
        kind: ``window`` or ``percentile``.
        low: lower bound, in the unit of the scan or as a percentile.
        high: upper bound.

    Raises:
        SettingsError: if the kind is unknown, low is not below high, or a percentile is outside 0 to 100.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    kind: Literal["window", "percentile"] = "window"
    low: float = -200.0
    high: float = 300.0

    def __post_init__(self) -> None:
        if self.kind not in ("window", "percentile"):
            raise SettingsError(f"The intensity kind is {self.kind!r}; it must be 'window' or 'percentile'.")
        if not self.low < self.high:
            raise SettingsError(f"The intensity bounds are {self.low} and {self.high}; the first must be lower.")
        if self.kind == "percentile" and not (self.low >= 0 and self.high <= 100):
            raise SettingsError(f"The percentiles are {self.low} and {self.high}; they must lie from 0 to 100.")


@dataclass(frozen=True)
class Scale:
    """An `Intensity` with the numbers of one volume: clip, subtract, divide.

    Attributes:
        low: values below become this.
        high: values above become this.
        middle: subtracted.
        width: divided by.
    """

    low: float
    high: float
    middle: float
    width: float

    def __call__(self, values: Float[Tensor, "*space"]) -> Float[Tensor, "*space"]:
        """The scaled values, same shape."""
        return values.clamp(self.low, self.high).sub_(self.middle).div_(self.width)


def measure_scale(parts: Callable[[], Iterable[Float[Tensor, "..."]]], settings: Intensity) -> Scale:
    """The scale of a volume that comes in parts.

    The percentiles are exact, those of all values sorted; memory is that of one part.

    Args:
        parts: gives the volume's values part by part; called up to three times, not at all for a window.
        settings: how to scale.

    Returns:
        The scale.
    """
    if settings.kind == "window":
        return Scale(
            settings.low, settings.high, (settings.high + settings.low) / 2, (settings.high - settings.low) / 2
        )
    low, high = _find_ranks(parts, (settings.low, settings.high))
    count, total, squares = 0, 0.0, 0.0
    for values in parts():
        clipped = values.flatten().clamp(low, high).double() - low  # from low on: no digits are lost to an offset
        count += len(clipped)
        total += float(clipped.sum())
        squares += float(clipped.square().sum())
    spread = max(0.0, (squares - total**2 / count) / max(1, count - 1))
    return Scale(low, high, low + total / count, max(1e-6, spread**0.5))


def scale_intensity(values: Float[Tensor, "*space"], settings: Intensity) -> Float[Tensor, "*space"]:
    """Values as the network expects them.

    Args:
        values: any shape, in the unit of the scan.
        settings: how to scale.

    Returns:
        The scaled values, same shape.

    Examples:
        >>> scale_intensity(torch.tensor([-500.0, 50.0, 300.0]), Intensity("window", -200, 300)).tolist()
        [-1.0, 0.0, 1.0]
    """
    return measure_scale(lambda: [values], settings)(values)


def _find_ranks(parts: Callable[[], Iterable[Tensor]], shares: tuple[float, float]) -> tuple[float, float]:
    """The values at two percentiles: counted by the upper half of their bits, then by the lower half."""
    upper = torch.zeros(_HALF, dtype=torch.int64)
    for values in parts():
        upper += torch.bincount((_ordered(values) >> 16) + _HALF // 2, minlength=_HALF)
    ranks = [round(share / 100 * (int(upper.sum()) - 1)) for share in shares]
    buckets = [int(torch.searchsorted(upper.cumsum(0), rank, right=True)) for rank in ranks]
    lower = torch.zeros(2, _HALF, dtype=torch.int64)
    for values in parts():
        keys = _ordered(values)
        for row, bucket in enumerate(buckets):
            inside = keys[(keys >> 16) + _HALF // 2 == bucket]
            lower[row] += torch.bincount(inside & (_HALF - 1), minlength=_HALF)
    found = []
    for rank, bucket, counts in zip(ranks, buckets, lower, strict=True):
        before = int(upper[:bucket].sum())
        last = int(torch.searchsorted(counts.cumsum(0), rank - before, right=True))
        key = torch.tensor(((bucket - _HALF // 2) << 16) | last, dtype=torch.int32)
        found.append(float(_flip(key).view(torch.float32)))
    return found[0], found[1]


def _ordered(values: Tensor) -> Tensor:
    """Whole numbers in the order of the values."""
    return _flip(values.flatten().contiguous().view(torch.int32))


def _flip(bits: Tensor) -> Tensor:
    """The bits of float32 as whole numbers of the same order, and back."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
