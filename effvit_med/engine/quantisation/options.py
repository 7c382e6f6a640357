"""What a user may choose of a quantisation, and the functions that it calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from effvit_med.errors import SettingsError

Predict = Callable[[Tensor], Tensor]
"""From (batch, channels, *window) to logits (batch, classes, *window at the output stride)."""

Judge = Callable[[Predict], Mapping[str, float]]
"""Segments its own cases with a Predict and returns Dice by structure; NaN where neither side has a voxel."""

Progress = Callable[[str, int, int], None]
"""Called as progress(phase, done, total)."""

Backend = Literal["openvino", "onnx"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class QuantisationOptions:
    """How to quantise.

    Args:
        backend: ``openvino`` measures best; ``onnx`` is the portable fallback.
        largest_dice_loss: the gate: how much Dice any structure of the judge's cases may lose.
        tiles: how many tiles the ranges of the activations are read from.
        keep_precision: arithmetic of what stays; ONNX Runtime on a CPU has float32 only.
        most_kept: the largest share of the blocks that may be kept for the sake of Dice; more is no INT8 network.
        sensitivity_tiles: how many of the tiles the blocks are compared on.
        only_faster: whether blocks are kept whose INT8 form takes more time on this machine.

    Raises:
        SettingsError: if a name is unknown or a number out of range.

    Examples:
        >>> QuantisationOptions(tiles=8).largest_dice_loss
        0.005
    """

    backend: Backend = "openvino"
    largest_dice_loss: float = 0.005
    tiles: int = 24
    keep_precision: Precision = "bfloat16"
    most_kept: float = 0.5
    sensitivity_tiles: int = 4
    only_faster: bool = True

    def __post_init__(self) -> None:
        for name, value, known in (
            ("backend", self.backend, get_args(Backend)),
            ("keep_precision", self.keep_precision, get_args(Precision)),
        ):
            if value not in known:
                raise SettingsError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")
        if not (0 <= self.largest_dice_loss <= 1 and 0 <= self.most_kept < 1):
            raise SettingsError(
                f"largest_dice_loss is {self.largest_dice_loss} and most_kept {self.most_kept}; the first lies from "
                "0 to 1, the second from 0 up to but not including 1."
            )
        if self.tiles < 1 or self.sensitivity_tiles < 1:
            raise SettingsError(
                f"tiles is {self.tiles} and sensitivity_tiles {self.sensitivity_tiles}; give at least 1 of each."
            )
