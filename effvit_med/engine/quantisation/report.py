"""What a quantisation did, block by block, and what it cost in Dice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class BlockChoice:
    """One block of a network and what became of it.

    Attributes:
        name: its path in the torch module tree; ``head.level_2`` joins what the decoder does at one resolution.
        layers: convolutions and matrix products with weights in it.
        error_alone: with this block alone in INT8, how far the logits move: |change| / |logits|, the mean over the
            classes taken off; NaN where it was kept from the start.
        disagreement_alone: the share of voxels whose label changes then; NaN likewise.
        int8: whether it is INT8 in the result.
        reason: why.
        milliseconds_saved: CPU time that its INT8 form saves of one tile, in the network that is otherwise INT8;
            below 0 where it costs time, NaN where it was not timed.
    """

    name: str
    layers: int
    error_alone: float
    disagreement_alone: float
    int8: bool
    reason: str
    milliseconds_saved: float = math.nan


@dataclass(frozen=True)
class QuantisationReport:
    """What was quantised and what it cost.

    Attributes:
        backend: ``openvino`` or ``onnx``.
        choices: all blocks, in the network's order.
        dice_before: the judge's Dice by structure with the float32 network.
        dice_after: the same with the file that was written.
        tiles: tiles that the ranges of the activations were read from.
        seconds: wall time of everything.
        keep_precision: arithmetic of what is not INT8.
        milliseconds: CPU time of one tile: ``float32`` and the kept precision for the network without INT8,
            and ``int8`` for the result.
    """

    backend: str
    choices: tuple[BlockChoice, ...]
    dice_before: Mapping[str, float]
    dice_after: Mapping[str, float]
    tiles: int
    seconds: float
    keep_precision: str = "float32"
    milliseconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        """The largest loss of Dice of any structure; see `dice_loss`."""
        return dice_loss(self.dice_before, self.dice_after)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        return {**_plain(asdict(self)), "dice_loss": self.loss}

    def to_markdown(self) -> str:
        """Two tables: the blocks, and Dice before and after."""
        all_layers = sum(choice.layers for choice in self.choices)
        int8_layers = sum(choice.layers for choice in self.choices if choice.int8)
        lines = [
            f"INT8 by {self.backend}: {int8_layers} of {all_layers} layers, the rest in {self.keep_precision}.",
            f"Calibrated on {self.tiles} tiles, in {self.seconds:.0f} s.",
            "",
            "| block | layers | choice | error alone | labels changed alone | ms saved | reason |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {each.name} | {each.layers} | {'INT8' if each.int8 else 'kept'} | {_number(each.error_alone, '.4f')} | "
            f"{_number(each.disagreement_alone, '.5f')} | {_number(each.milliseconds_saved, '.1f')} | {each.reason} |"
            for each in self.choices
        ]
        lines += ["", "| structure | Dice before | Dice after |", "| --- | --- | --- |"]
        lines += [
            f"| {name} | {_number(before, '.4f')} | {_number(self.dice_after.get(name, math.nan), '.4f')} |"
            for name, before in self.dice_before.items()
        ]
        if self.milliseconds:
            times = ", ".join(f"{name} {value:.0f} ms" for name, value in self.milliseconds.items())
            lines += ["", f"CPU time of one tile: {times}."]
        return "\n".join(lines) + "\n"


def dice_loss(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The largest loss of Dice of any structure, at least 0; a structure that was lost, or made up, loses all.

    Args:
        before: Dice by structure; NaN where neither the labels nor the reference have a voxel.
        after: the same of the changed network.

    Examples:
        >>> round(dice_loss({"liver": 0.95, "aorta": 0.9}, {"liver": 0.96, "aorta": 0.88}), 3)
        0.02
    """
    losses = [_whole(score) - _whole(after.get(name, 0.0)) for name, score in before.items()]
    return max(0.0, *losses) if losses else 0.0


def _whole(score: float) -> float:
    return 1.0 if math.isnan(score) else score  # both empty: they agree


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
