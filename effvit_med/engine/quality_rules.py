"""What speaks against one structure of a result: each rule gives findings with a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass

from effvit_med.engine.quality_reference import QualityReference, Spread, StructureReference
from effvit_med.engine.quality_shapes import Shape
from effvit_med.volume import Finding
from effvit_med.volume.measurements import Measurement
from effvit_med.volume.quality import StructureQuality, Verdict, worst_verdict


@dataclass(frozen=True)
class QualityThresholds:
    """Where the line is drawn. The defaults hold for every bundle; what differs between bundles is their reference.

    Attributes:
        usual_touching: a structure that touches the border of the scan in this share of the training cases, such as
            the spine, goes through every scan; nothing is missing that was not missing in training.
        fewest_cases: a spread over fewer cases than this says too little to call anything unusual.
        margin: how far beyond the training cases a number may lie, as a share of the distance from their median to
            their lowest or highest case. One in 20 lies beyond 20 earlier cases by chance, but rarely far beyond.
        confidence_margin: the same for the confidence, of which bundles keep few cases, and those closer together than
            unseen scans at large turn out to be.
        fragments_share: share outside the largest part from which several parts count. Below, volumes are right to
            what two readers differ by.
        hole_share: enclosed volume, as a share of the structure, beyond the largest one of the training cases.
        mirrored_mm: how far a left structure must lie on the right of its counterpart; less can be a crooked patient.
        side_mm: how far apart two structures must have been in all training cases to say left from right by them.
        always_present: a structure that this share of the training cases shows is missed when it is not found.
        score_review: scores above this many times the highest of the unseen cases are unlike the training data. They
            are few, so that the next may lie somewhat beyond them.
        score_fail: the same for scans that cannot be what the model was trained on.
    """

    usual_touching: float = 0.9
    fewest_cases: int = 10
    margin: float = 0.5
    confidence_margin: float = 2.0
    fragments_share: float = 0.02
    hole_share: float = 0.01
    mirrored_mm: float = 5.0
    side_mm: float = 30.0
    always_present: float = 0.95
    score_review: float = 1.5
    score_fail: float = 10.0


@dataclass(frozen=True)
class Reason:
    """A finding and what it means for the verdict; None where it only says what was not judged."""

    finding: Finding
    verdict: Verdict | None

    @classmethod
    def of(cls, code: str, message: str, verdict: Verdict | None = "review") -> Reason:
        """A reason from its parts."""
        return cls(Finding(code, message), verdict)


@dataclass(frozen=True)
class Judged:
    """What the rules look at.

    Attributes:
        row: what was measured of the structure.
        shape: its shape; None if it was not found.
        known: the structure in the training data; None if the bundle keeps no reference for it.
        reference: of the bundle, or None.
        weights_sha256: of the weights that made the labels.
        thresholds: where the line is drawn.
    """

    row: Measurement
    shape: Shape | None
    known: StructureReference | None
    reference: QualityReference | None
    weights_sha256: str
    thresholds: QualityThresholds


def judge_structure(judged: Judged, others: tuple[Reason, ...] = ()) -> StructureQuality:
    """The verdict on one structure.

    Args:
        judged: what is known of it.
        others: what speaks against it beside its own rules, such as its side.

    Returns:
        The worst of all reasons. Where nothing was found against it, it passes only if the bundle keeps a reference.
    """
    row = judged.row
    if judged.shape is None:
        return StructureQuality(row.structure, None, (Finding("NOT_FOUND", f"{row.structure} was {row.reason}."),))
    reasons = [*others, *_judge_edge(judged)]
    if judged.known is None:
        text = f"The bundle keeps no reference of {row.structure}: volume, parts, holes, confidence were not judged."
        reasons.append(Reason.of("NO_REFERENCE", text, None))
    else:
        reasons += [*_judge_volume(judged, judged.known), *_judge_shape(judged, judged.known, judged.shape)]
        reasons += _judge_confidence(judged, judged.known)
    verdict = worst_verdict(*(reason.verdict for reason in reasons))
    if verdict is None and judged.known is not None:
        verdict = "pass"
    return StructureQuality(row.structure, verdict, tuple(reason.finding for reason in reasons))


def _goes_through(judged: Judged) -> bool:
    """Whether the structure goes through nearly every training scan, as the spine does."""
    known = judged.known
    return (
        known is not None and known.present > 0 and known.touching >= judged.thresholds.usual_touching * known.present
    )


def _judge_edge(judged: Judged) -> list[Reason]:
    if not judged.row.cut_by_field_of_view or _goes_through(judged):
        return []
    text = f"{judged.row.structure} touches the border of the scan, so a part may be missing from its volume"
    if judged.known is not None:
        text += f"; so did {judged.known.touching} of {judged.known.present} training cases"
    return [Reason.of("TOUCHES_EDGE", f"{text}.")]


def _judge_volume(judged: Judged, known: StructureReference) -> list[Reason]:
    row, thresholds = judged.row, judged.thresholds
    if row.volume_ml is None:
        return []
    cut = row.cut_by_field_of_view
    spread = known.volume_touching_ml if cut and _goes_through(judged) else known.volume_ml
    if spread is None or spread.cases < thresholds.fewest_cases:
        count = 0 if spread is None else spread.cases
        kind = "cut by the border" if cut and _goes_through(judged) else "whole"
        text = f"Only {count} training cases show {row.structure} {kind}, too few to judge its volume."
        return [Reason.of("VOLUME_NOT_JUDGED", text, None)]
    low, high = _limits(spread, thresholds.margin)
    if cut and not _goes_through(judged):
        low = 0.0  # a part of it may be as small as it likes
    if low <= row.volume_ml <= high:
        return []
    text = (
        f"{row.structure} has {row.volume_ml:.4g} mL; the {spread.cases} training cases have {spread.lowest:.4g} to "
        f"{spread.highest:.4g} mL (median {spread.median:.4g}, accepted up to {high:.4g}"
        + (f" and down to {low:.4g})." if low else ").")
    )
    return [Reason.of("VOLUME_UNUSUAL", text)]


def _limits(spread: Spread, margin: float) -> tuple[float, float]:
    """The lowest and highest value that is accepted, on a scale of ratios."""
    lowest, median, highest = (math.log(max(value, 1e-9)) for value in (spread.lowest, spread.median, spread.highest))
    return math.exp(lowest - margin * (median - lowest)), math.exp(highest + margin * (highest - median))


def _judge_shape(judged: Judged, known: StructureReference, shape: Shape) -> list[Reason]:
    name, thresholds, reasons = judged.row.structure, judged.thresholds, []
    least = known.share_outside_largest + thresholds.fragments_share
    if shape.fragments > known.fragments and shape.share_outside_largest > least:
        text = (
            f"{name} lies in {shape.fragments} separate parts, {shape.share_outside_largest:.1%} of it outside the "
            f"largest; training cases have at most {known.fragments}, with {known.share_outside_largest:.1%} outside."
        )
        reasons.append(Reason.of("FRAGMENTS", text))
    if shape.hole_share > known.hole_share + thresholds.hole_share:
        text = (
            f"{name} encloses holes of {shape.hole_share:.1%} of its volume; training cases at most "
            f"{known.hole_share:.1%}."
        )
        reasons.append(Reason.of("HOLES", text))
    return reasons


def _judge_confidence(judged: Judged, known: StructureReference) -> list[Reason]:
    row, reference, spread = judged.row, judged.reference, known.confidence
    why = ""
    if row.mean_confidence is None:
        why = row.confidence_reason
    elif spread is None or spread.cases < judged.thresholds.fewest_cases:
        why = f"the bundle keeps the confidence of {0 if spread is None else spread.cases} cases, which is too few"
    elif reference is not None and reference.weights_sha256 != judged.weights_sha256:
        why = "the bundle keeps the confidence of other weights"
    if why or spread is None or row.mean_confidence is None:
        return [Reason.of("CONFIDENCE_NOT_JUDGED", f"The confidence of {row.structure} was not judged: {why}.", None)]
    least = spread.lowest - judged.thresholds.confidence_margin * (spread.median - spread.lowest)
    if row.mean_confidence >= least:
        return []
    text = (
        f"The mean confidence of {row.structure} is {row.mean_confidence:.3f}; {spread.cases} cases that were not "
        f"trained on have {spread.lowest:.3f} or more (accepted down to {least:.3f})."
    )
    return [Reason.of("LOW_CONFIDENCE", text)]
