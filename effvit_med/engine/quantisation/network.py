"""A network in INT8, block by block, under the eyes of a judge."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from effvit_med.engine.quantisation.blocks import Candidate
from effvit_med.engine.quantisation.onnx_graph import OnnxCandidate
from effvit_med.engine.quantisation.openvino_graph import OpenVinoCandidate
from effvit_med.engine.quantisation.options import Judge, Precision, Progress, QuantisationOptions
from effvit_med.engine.quantisation.report import BlockChoice, QuantisationReport
from effvit_med.engine.quantisation.sensitivity import (
    Effect,
    Selection,
    find_slower,
    measure_blocks,
    measure_times,
    select_blocks,
    time_side_by_side,
)
from effvit_med.errors import SettingsError
from effvit_med.networks import SegmentationNetwork

_FIXED = "gives the logits"
_CANDIDATES: dict[str, Callable[[SegmentationNetwork, Sequence[Tensor]], Candidate]] = {
    "openvino": OpenVinoCandidate,
    "onnx": OnnxCandidate,
}


def quantise_network(
    network: SegmentationNetwork,
    tiles: Sequence[Tensor],
    judge: Judge,
    options: QuantisationOptions,
    folder: Path,
    progress: Progress | None = None,
) -> QuantisationReport:
    """Writes a network in INT8, with the blocks kept in higher precision that INT8 would hurt or slow down.

    Ranges are read once, from all tiles. Then each block alone is put into INT8, and its effect on the logits ranks
    it. From the network that is INT8 everywhere, the worst blocks are given back one by one until the judge finds no
    structure that loses more Dice than allowed. Division, sums and products of attention, and the layer that gives the
    logits, are never INT8.

    Args:
        network: the network, in eval mode; it is not changed.
        tiles: (batch, channels, *window) as the engine gives them to the network, all of one size.
        judge: gives Dice by structure for a Predict; called for the float32 network and for each choice of blocks.
        options: how.
        folder: an existing folder for ``model.xml`` and ``model.bin``, or ``model.onnx``. The file takes one tile
            at a time; the Predicts that the judge gets take any number.
        progress: called as progress(phase, done, total).

    Returns:
        What was done with each block, Dice before and after, and times.

    Raises:
        SettingsError: if there is no tile, a package is missing, or the network cannot be converted or run.
        OutputError: if the gate refuses, or a file cannot be written.
    """
    start = time.perf_counter()
    if not tiles or len({tuple(tile.shape[1:]) for tile in tiles}) != 1:
        raise SettingsError(f"{len(tiles)} tiles were given; INT8 is calibrated on at least one, all of one size.")
    report = progress or (lambda *_: None)
    precision: Precision = "float32" if options.backend == "onnx" else options.keep_precision

    @torch.inference_mode()
    def exact(batch: Tensor) -> Tensor:
        return network.logits(batch)

    report("judge float32", 0, 1)
    before = dict(judge(exact))
    report("judge float32", 1, 1)
    report("calibrate", 0, 1)
    candidate = _CANDIDATES[options.backend](network, tiles)
    report("calibrate", 1, 1)
    few = tiles[:: max(1, math.ceil(len(tiles) / options.sensitivity_tiles))]
    effects = measure_blocks(candidate, few, partial(report, "blocks alone"))
    slower, saved = frozenset[str](), dict[str, float]()
    if options.only_faster:
        saved = measure_times(candidate, few[0][:1], precision, partial(report, "times"))
        slower = find_slower(candidate, saved, few[0][:1], precision)
    report("select", 0, 1)
    selection = select_blocks(candidate, effects, slower, (judge, before), options)
    report("select", 1, 1)
    choices = _describe(candidate, effects, selection, saved, slower)
    milliseconds = _time(candidate, selection.int8, few[0][:1], precision)
    candidate.write(selection.int8, folder)
    return QuantisationReport(
        backend=options.backend,
        choices=choices,
        dice_before=before,
        dice_after=selection.dice,
        tiles=sum(len(tile) for tile in tiles),
        seconds=time.perf_counter() - start,
        keep_precision=precision,
        milliseconds=milliseconds,
    )


def _time(candidate: Candidate, int8: frozenset[str], tile: Tensor, precision: Precision) -> dict[str, float]:
    wanted = {"float32": candidate.predict(frozenset(), "float32")}
    if precision != "float32":
        wanted[precision] = candidate.predict(frozenset(), precision)
    wanted["int8"] = candidate.predict(int8, precision)
    return dict(zip(wanted, time_side_by_side(list(wanted.values()), tile), strict=True))


def _describe(
    candidate: Candidate,
    effects: Mapping[str, Effect],
    selection: Selection,
    saved: Mapping[str, float],
    slower: frozenset[str],
) -> tuple[BlockChoice, ...]:
    choices = []
    for block in candidate.blocks:
        if block.fixed:
            choices.append(BlockChoice(block.name, block.layers, math.nan, math.nan, int8=False, reason=_FIXED))
            continue
        if block.name in selection.kept:
            reason = f"the worst left when Dice fell by {selection.kept[block.name]:.4f}"
        elif block.name in slower:
            reason = "INT8 is slower here"
        else:
            reason = "within the allowed loss"
        effect = effects[block.name]
        choices.append(
            BlockChoice(
                name=block.name,
                layers=block.layers,
                error_alone=effect.error,
                disagreement_alone=effect.disagreement,
                int8=block.name in selection.int8,
                reason=reason,
                milliseconds_saved=saved.get(block.name, math.nan),
            )
        )
    return tuple(choices)
