"""Which blocks INT8 hurts, which it slows down, and which are kept for it.

Source:
    Li et al., BRECQ (arXiv 2102.05426): a block is the unit at which the error of quantisation is looked at. Lee et
    al., Q-HyViT (arXiv 2303.12557): in hybrid vision transformers the choice is made layer by layer. Here it is made
    block by block, and it is between INT8 and the kept precision only. Unlike BRECQ no rounding is learnt and unlike
    Q-HyViT no granularity or scheme is searched: weights have one step for each output channel, activations one for
    each tensor, and ranges are what NNCF or ONNX Runtime reads from the tiles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effvit_med.engine.quantisation.blocks import Candidate
from effvit_med.engine.quantisation.options import Judge, Precision, Predict, QuantisationOptions
from effvit_med.engine.quantisation.report import dice_loss
from effvit_med.errors import OutputError

_REPEATS = 5
#: A block counts as slower in INT8 only where giving it back saves this part of the whole time.
_CLEAR = 0.01


@dataclass(frozen=True)
class Effect:
    """What INT8 in one block does to the whole network.

    Attributes:
        error: |change of the logits| / |logits|, over all tiles, each voxel's mean over the classes taken off.
        disagreement: share of voxels whose label changes.
    """

    error: float
    disagreement: float


@dataclass(frozen=True)
class Selection:
    """Which blocks are INT8 in the end.

    Attributes:
        int8: names of blocks.
        kept: blocks given back for the sake of Dice, worst first, with the loss of Dice before each was.
        dice: the judge's Dice by structure of the result.
    """

    int8: frozenset[str]
    kept: Mapping[str, float]
    dice: Mapping[str, float]


def measure_blocks(
    candidate: Candidate, tiles: Sequence[Tensor], on_block: Callable[[int, int], None] | None = None
) -> dict[str, Effect]:
    """The effect of each block alone in INT8, everything else in float32.

    Args:
        candidate: the network.
        tiles: (batch, channels, *window).
        on_block: called as on_block(done, total).

    Returns:
        Effects by name, of all blocks that are not fixed.
    """
    exact = _run(candidate.predict(frozenset(), "float32"), tiles)
    names = [block.name for block in candidate.blocks if not block.fixed]
    effects = {}
    for done, name in enumerate(names, start=1):
        changed = _run(candidate.predict(frozenset([name]), "float32"), tiles)
        effects[name] = compare_logits(exact, changed)
        if on_block:
            on_block(done, len(names))
    return effects


def compare_logits(exact: Tensor, changed: Tensor) -> Effect:
    """How far logits moved, and how many labels with them.

    Args:
        exact: (batch, classes, *space) logits; what is common to all classes changes no label and is taken off.
        changed: the same of the changed network.

    Examples:
        >>> compare_logits(torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[[2.0], [0.0]]]))
        Effect(error=0.0, disagreement=0.0)
    """
    before, after = (each - each.mean(dim=1, keepdim=True) for each in (exact, changed))
    size = float(before.norm())
    error = float((after - before).norm()) / size if size else float("inf")
    return Effect(error, float((exact.argmax(dim=1) != changed.argmax(dim=1)).float().mean()))


def measure_times(
    candidate: Candidate, tile: Tensor, precision: Precision, on_block: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """The CPU milliseconds that each block's INT8 form saves of one tile, in the network that is otherwise INT8.

    Args:
        candidate: the network.
        tile: (1, channels, *window).
        precision: of what is not INT8.
        on_block: called as on_block(done, total).

    Returns:
        Milliseconds by name, of all blocks that are not fixed; below 0 where INT8 costs time.
    """
    names = [block.name for block in candidate.blocks if not block.fixed]
    saved = {}
    for done, name in enumerate(names, start=1):
        saved[name] = _time_saved(candidate, frozenset(names), name, tile, precision)[0]
        if on_block:
            on_block(done, len(names))
    return saved


def _time_saved(
    candidate: Candidate, names: frozenset[str], name: str, tile: Tensor, precision: Precision
) -> tuple[float, float]:
    """The milliseconds that INT8 in one block saves of a network with ``names`` in INT8, and those of that network."""
    pair = [candidate.predict(names - {name}, precision), candidate.predict(names, precision)]
    without, whole = time_side_by_side(pair, tile)
    return without - whole, whole


def time_side_by_side(predicts: Sequence[Predict], tile: Tensor) -> list[float]:
    """The least CPU milliseconds that each of some networks took for one tile, in several turns of all of them.

    Other programs on the machine only ever add to a time, and turns let them hit all networks alike.

    Args:
        predicts: the networks.
        tile: (1, channels, *window).
    """
    times: list[list[float]] = [[] for _ in predicts]
    for turn in range(_REPEATS + 1):
        for predict, found in zip(predicts, times, strict=True):
            start = time.process_time()
            predict(tile)
            if turn:  # the first warms up
                found.append(1000 * (time.process_time() - start))
    return [min(found) for found in times]


def find_slower(candidate: Candidate, saved: Mapping[str, float], tile: Tensor, precision: Precision) -> frozenset[str]:
    """The blocks whose INT8 form clearly costs time, twice, if the network without INT8 in all of them is faster.

    Args:
        candidate: the network.
        saved: milliseconds by block, from `measure_times`; what looks slow there is timed again.
        tile: (1, channels, *window).
        precision: of what is not INT8.
    """
    names = frozenset(saved)
    slower = set()
    for name in sorted(each for each in names if saved[each] < 0):
        again, whole = _time_saved(candidate, names, name, tile, precision)
        if max(again, saved[name]) < -_CLEAR * whole:
            slower.add(name)
    if not slower or slower == names:
        return frozenset()
    pair = [candidate.predict(names - slower, precision), candidate.predict(names, precision)]
    after, before = time_side_by_side(pair, tile)
    return frozenset(slower) if after < before else frozenset()


def select_blocks(
    candidate: Candidate,
    effects: Mapping[str, Effect],
    slower: frozenset[str],
    judging: tuple[Judge, Mapping[str, float]],
    options: QuantisationOptions,
) -> Selection:
    """The largest set of INT8 blocks that the judge lets pass, found by giving back the worst block until it does.

    Args:
        candidate: the network.
        effects: of each block alone.
        slower: blocks that are kept because INT8 makes them slower.
        judging: the judge, and its Dice by structure of the float32 network.
        options: the gate, the precision of what is kept, and how much may be kept.

    Raises:
        OutputError: if the gate still refuses with as many blocks kept as may be; it names the losses.
    """
    judge, before = judging
    int8 = frozenset(effects) - slower
    worst_first = sorted(int8, key=lambda name: (effects[name].error, name), reverse=True)
    allowed = min(int(options.most_kept * len(effects)), len(int8) - 1)
    kept: dict[str, float] = {}
    while True:
        dice = dict(judge(candidate.predict(int8, options.keep_precision)))
        loss = dice_loss(before, dice)
        if loss <= options.largest_dice_loss:
            return Selection(int8, kept, dice)
        if len(kept) >= allowed:
            raise OutputError(_refusal(before, dice, kept, options))
        worst = worst_first[len(kept)]
        kept[worst] = loss
        int8 -= {worst}


def _refusal(
    before: Mapping[str, float], after: Mapping[str, float], kept: Mapping[str, float], options: QuantisationOptions
) -> str:
    loss = dice_loss(before, after)
    figures = ", ".join(f"{name} {score:.4f} to {after.get(name, 0.0):.4f}" for name, score in before.items())
    tried = f"with {', '.join(kept)} kept in {options.keep_precision}" if kept else "with no block kept"
    return (
        f"The INT8 network loses {loss:.4f} of Dice, more than the {options.largest_dice_loss:g} allowed, {tried}: "
        f"{figures}. Nothing was written. Calibrate on more tiles, let more blocks be kept (most_kept is "
        f"{options.most_kept:g}), or use {options.keep_precision} without INT8."
    )


@torch.inference_mode()
def _run(predict: Predict, tiles: Sequence[Tensor]) -> Tensor:
    return torch.cat([predict(tile) for tile in tiles])
