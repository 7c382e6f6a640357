"""The whole path for a bundle: cases with a reference, tiles from its preprocessing, and Dice as the judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effvit_med.engine.model import Model
from effvit_med.engine.quantisation.network import quantise_network
from effvit_med.engine.quantisation.options import Judge, Predict, Progress, QuantisationOptions
from effvit_med.engine.quantisation.report import QuantisationReport
from effvit_med.engine.quantisation.tiles import calibration_tiles
from effvit_med.engine.scoring import label_volume
from effvit_med.engine.shelf import shipped_bundle
from effvit_med.errors import GeometryError, InputError, SettingsError
from effvit_med.io import ReadOptions, open_input, read_case, read_nifti
from effvit_med.transforms import prepare
from effvit_med.volume import Volume

_SAME_GRID_MM = 0.01


@dataclass(frozen=True, eq=False)
class ReferenceCase:
    """A scan and what is right for it.

    Args:
        name: for messages.
        volume: the scan.
        labels: (a0, a1, a2) label values of the bundle's table, on the scan's grid.

    Raises:
        GeometryError: if the labels have another shape than the scan.
    """

    name: str
    volume: Volume
    labels: npt.NDArray[Any]

    def __post_init__(self) -> None:
        if self.labels.shape != self.volume.array.shape:
            raise GeometryError(
                f"The labels of {self.name} have shape {self.labels.shape}, its scan {self.volume.array.shape}."
            )


def sample_case() -> ReferenceCase:
    """The phantom that comes with effvit-med, with its exact labels: for the shipped bundle's structures.

    Raises:
        InputError: if the sample data are not there.
    """
    folder = shipped_bundle() / "sample_data"
    with open_input(folder / "ct_axial", ReadOptions()) as found:
        if not found.cases:
            raise InputError(f"{folder / 'ct_axial'} holds no scan; install effvit-med again.")
        volume = read_case(found.cases[0])
    truth = read_nifti(folder / "truth" / "ct_axial.nii.gz").reoriented(volume.geometry.orientation)
    distance_mm = truth.geometry.max_distance_mm(volume.geometry)
    if distance_mm > _SAME_GRID_MM:
        raise GeometryError(f"The labels of {folder / 'ct_axial'} lie {distance_mm:g} mm away from it.")
    return ReferenceCase("ct_axial", volume, truth.array)


def dice_judge(model: Model, cases: Sequence[ReferenceCase]) -> Judge:
    """A judge that segments cases as the engine does and compares them with their references.

    Args:
        model: the bundle's model.
        cases: with references.

    Returns:
        From a Predict to Dice by structure: the mean over the cases where the network or the reference has a voxel
        of it, NaN where none has.
    """

    def judge(predict: Predict) -> dict[str, float]:
        rows = [_dice(label_volume(predict, case.volume, model), case.labels, model) for case in cases]
        found = {label.name: [row[label.name] for row in rows] for label in model.labels}
        finite = {name: [score for score in scores if not math.isnan(score)] for name, scores in found.items()}
        return {name: sum(scores) / len(scores) if scores else math.nan for name, scores in finite.items()}

    return judge


def quantise_model(
    model: Model,
    cases: Sequence[ReferenceCase],
    folder: Path,
    options: QuantisationOptions,
    progress: Progress | None = None,
) -> QuantisationReport:
    """Writes a bundle's network in INT8: calibrated on tiles of the cases, judged by Dice against their labels.

    Args:
        model: the bundle's model.
        cases: scans with references; `sample_case` for the shipped bundle. The judge segments all of them a few
            times, so one or two are enough.
        folder: an existing folder for the files.
        options: how.
        progress: called as progress(phase, done, total).

    Returns:
        What was done with each block, Dice before and after, and times.

    Raises:
        SettingsError: if there is no case, a package is missing, or the network cannot be converted or run.
        InputError: if a label of a case is not in the bundle's table.
        WeightsError: if the weights do not belong to the network.
        OutputError: if the gate refuses, or a file cannot be written.
    """
    if not cases:
        raise SettingsError("No case was given; INT8 is calibrated and judged on at least one with a reference.")
    for case in cases:
        model.classes_of(case.labels, case.name)
    return quantise_network(
        model.load_network(), _tiles(model, cases, options.tiles), dice_judge(model, cases), options, folder, progress
    )


def _tiles(model: Model, cases: Sequence[ReferenceCase], count: int) -> list[Tensor]:
    tiles: list[Tensor] = []
    for index, case in enumerate(cases):
        share = (count - len(tiles)) // (len(cases) - index)
        if share:
            values = prepare(case.volume, model.preprocess).values
            tiles += calibration_tiles(values, model.tiling, model.preprocess, share, seed=index)
    return [tile.to(torch.float32) for tile in tiles]


def _dice(found: npt.NDArray[Any], exact: npt.NDArray[Any], model: Model) -> dict[str, float]:
    scores = {}
    for label in model.labels:
        a, b = found == label.value, exact == label.value
        total = np.count_nonzero(a) + np.count_nonzero(b)
        scores[label.name] = 2 * np.count_nonzero(a & b) / total if total else math.nan
    return scores
