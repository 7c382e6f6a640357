"""From the unit of the scanner to the range that a network was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.errors import SettingsError


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
    if settings.kind == "window":
        middle, half = (settings.high + settings.low) / 2, (settings.high - settings.low) / 2
        return (values.clamp(settings.low, settings.high) - middle) / half
    low, high = (_percentile(values, share) for share in (settings.low, settings.high))
    clipped = values.clamp(low, high)
    return (clipped - clipped.mean()) / clipped.std().clamp_min(1e-6)


def _percentile(values: Float[Tensor, "*space"], share: float) -> float:
    flat = values.flatten()
    rank = round(share / 100 * (len(flat) - 1)) + 1
    return float(torch.kthvalue(flat, rank).values)
