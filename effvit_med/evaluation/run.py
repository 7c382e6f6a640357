"""Scoring a folder of segmentations: every case, what could not be scored and why, all figures."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from effvit_med.engine.results import OUTPUT_FILES
from effvit_med.errors import EffvitError, GeometryError, InputError, SettingsError
from effvit_med.evaluation.alignment import SAME_PLACE_MM
from effvit_med.evaluation.calibration import (
    JudgedCase,
    Reliability,
    VerdictCheck,
    check_verdicts,
    measure_reliability,
)
from effvit_med.evaluation.metrics import StructureScore, score_case
from effvit_med.evaluation.pairs import OUR_NAMES, Pair, References, find_pairs, read_pair
from effvit_med.evaluation.statistics import METRICS, Comparison, Interval, StructureSummary, compare, mean_interval
from effvit_med.evaluation.statistics import summarise as summarise_scores
from effvit_med.io import read_nifti
from effvit_med.io.photograph_labels import read_picture_values
from effvit_med.volume import LabelTable, Segmentation
from effvit_med.volume.quality import Verdict


@dataclass(frozen=True)
class EvaluationOptions:
    """How segmentations are scored.

    Attributes:
        tolerance_mm: of the surface Dice.
        ignore: label values of the references that mark what nothing is said about.
        low_dice: below, a case counts as bad where verdicts are checked.
        overlaps: whether label values may be sums of those of structures that overlap.
    """

    tolerance_mm: float = 1.0
    ignore: tuple[int, ...] = ()
    low_dice: float = 0.8
    overlaps: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.tolerance_mm < math.inf:
            raise SettingsError(f"tolerance_mm is {self.tolerance_mm}; give a distance above 0.")
        if not 0 < self.low_dice < 1:
            raise SettingsError(f"low_dice is {self.low_dice}; give a Dice between 0 and 1.")


@dataclass(frozen=True)
class Evaluation:
    """The scores of one model.

    Attributes:
        options: how it was scored.
        scores: of each case that was scored, by its name.
        missing: cases that have a reference and no segmentation.
        unscored: why a case with both was not scored, by its name.
        unheeded: why the confidence map of a scored case was not used, by its name.
        structures: one summary per structure.
        mean_dice: over cases, of the mean Dice over the structures that a case shows.
        verdicts: what the verdicts of the records are worth; None where no case has one.
        reliability: of the confidence maps; None where there is none.
        pairs: the files of each case.
        table: what the values mean; None where each file tells itself, or none does.
    """

    options: EvaluationOptions
    scores: dict[str, tuple[StructureScore, ...]]
    missing: tuple[str, ...]
    unscored: dict[str, str]
    unheeded: dict[str, str]
    structures: tuple[StructureSummary, ...]
    mean_dice: Interval
    verdicts: VerdictCheck | None
    reliability: Reliability | None
    pairs: dict[str, Pair] = field(default_factory=dict)
    table: LabelTable | None = None

    def worst(self, count: int) -> list[str]:
        """The names of the cases with the lowest mean Dice, the worst first."""
        means = {name: mean for name, rows in self.scores.items() if (mean := case_dice(rows)) is not None}
        return sorted(means, key=lambda name: (means[name], name))[:count]

    def compare(self, other: Evaluation) -> tuple[Comparison, ...]:
        """Another model against this one, on the cases that both have; positive where the other has more.

        Raises:
            SettingsError: if they have no case in common, or were scored in different ways.
        """
        if self.options != other.options:
            raise SettingsError(f"One model was scored with {self.options}, the other with {other.options}.")
        return tuple(row for metric in METRICS[:4] for row in compare(self.scores, other.scores, metric))


def case_dice(rows: Sequence[StructureScore]) -> float | None:
    """The mean Dice over the structures that the reference of a case shows; None if it shows none."""
    values = [row.dice for row in rows if row.dice is not None]
    return statistics.fmean(values) if values else None


def evaluate(
    references: References,
    found: Path,
    options: EvaluationOptions | None = None,
    on_case: Callable[[str, int, int], None] | None = None,
) -> Evaluation:
    """Score every segmentation in a folder.

    A case that cannot be scored, such as one on another grid, is reported and the rest goes on. Of a case that names
    what was annotated, the other structures are not scored: nobody knows whether they are there.

    Args:
        references: the truth; what it ignores is ignored beside what the options say.
        found: the folder of segmentations.
        options: how to score.
        on_case: told name, number and count before each case; may raise to stop.

    Raises:
        InputError: if the folder holds nothing that belongs to a reference.
        SettingsError: if an option is wrong.
    """
    options = options or EvaluationOptions()
    if references.ignore is not None:
        options = replace(options, ignore=tuple(sorted({*options.ignore, references.ignore})))
    if references.overlaps:
        options = replace(options, overlaps=True)
    pairs = find_pairs(references, found)
    scores: dict[str, tuple[StructureScore, ...]] = {}
    unscored: dict[str, str] = {}
    unheeded: dict[str, str] = {}
    judged: list[JudgedCase] = []
    reliability: Reliability | None = None
    for number, pair in enumerate(pairs, start=1):
        if on_case:
            on_case(pair.case_id, number, len(pairs))
        if pair.found is None:
            continue
        try:
            truth, ours = read_pair(pair, references.table, options.ignore, overlaps=options.overlaps)
            rows = score_case(truth, ours, options.tolerance_mm, options.ignore)
            scores[pair.case_id] = _keep_annotated(rows, references.annotated.get(pair.case_id))
        except EffvitError as error:
            unscored[pair.case_id] = str(error)
            continue
        try:
            part = _reliability_of(
                pair.found, truth, ours, options.ignore, whole=pair.case_id not in references.annotated
            )
        except EffvitError as error:
            unheeded[pair.case_id] = str(error)
        else:
            if part is not None:
                reliability = part if reliability is None else reliability + part
        mean = case_dice(scores[pair.case_id])
        if mean is not None:
            judged.append(JudgedCase(pair.case_id, mean, *_judgement_of(pair.found)))
    means = [mean for rows in scores.values() if (mean := case_dice(rows)) is not None]
    known = any(case.verdict is not None or case.confidence is not None for case in judged)
    return Evaluation(
        options=options,
        scores=scores,
        missing=tuple(pair.case_id for pair in pairs if pair.found is None),
        unscored=unscored,
        unheeded=unheeded,
        structures=summarise_scores(scores),
        mean_dice=mean_interval(means),
        verdicts=check_verdicts(judged, options.low_dice) if known else None,
        reliability=reliability,
        pairs={pair.case_id: pair for pair in pairs},
        table=references.table,
    )


def _keep_annotated(rows: tuple[StructureScore, ...], annotated: Sequence[str] | None) -> tuple[StructureScore, ...]:
    """The scores of what was annotated; all where everything was."""
    return rows if annotated is None else tuple(row for row in rows if row.structure in annotated)


def _reliability_of(
    found: Path, truth: Segmentation, ours: Segmentation, ignore: Sequence[int], *, whole: bool
) -> Reliability | None:
    """Of the confidence map beside a segmentation, if there is one, brought into the axis order of the reference."""
    flat = found.name == OUTPUT_FILES["png"]
    path = found.parent / OUTPUT_FILES["confidence-png" if flat else "confidence"]
    if found.name not in OUR_NAMES or not path.is_file():
        return None
    if truth.table.overlaps:
        raise InputError("Structures overlap, so that the confidence of a voxel is that of several decisions.")
    if not whole:
        raise InputError("Not everything was annotated, so that right and wrong cannot be told at every voxel.")
    if flat:
        values, _, _ = read_picture_values(path)
        if values.shape != truth.labels.shape:
            raise GeometryError(f"{path.name} has the shape {values.shape}, the reference {truth.labels.shape}.")
        return measure_reliability(truth, ours, values, ignore)
    confidence = read_nifti(path).reoriented(truth.geometry.orientation)
    distance_mm = truth.geometry.max_distance_mm(confidence.geometry)
    if distance_mm > SAME_PLACE_MM:
        raise GeometryError(f"{path.name} lies up to {distance_mm:.3g} mm away from the reference.")
    return measure_reliability(truth, ours, confidence.array, ignore)


def _judgement_of(found: Path) -> tuple[Verdict | None, float | None]:
    """Verdict and mean confidence in the record beside a segmentation; None for what it does not say."""
    try:
        record: Any = json.loads((found.parent / OUTPUT_FILES["record"]).read_text(encoding="utf-8"))
        verdict = (record.get("quality") or {}).get("verdict")
        rows = record.get("measurements") or []
        sure = [row["mean_confidence"] for row in rows if row.get("mean_confidence") is not None]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return None, None
    return (verdict if verdict in get_args(Verdict) else None), (statistics.fmean(sure) if sure else None)
