"""The verdict on a result: may it be used as it is, should a person look, or has it failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from effvit_med.engine.model import Model
from effvit_med.engine.quality_intensity import measure_profile, score_profile, why_not_comparable
from effvit_med.engine.quality_reference import QualityReference
from effvit_med.engine.quality_rules import Judged, QualityThresholds, Reason, judge_structure
from effvit_med.engine.quality_shapes import Shape, describe_shapes
from effvit_med.volume import Finding, LabelTable, Segmentation, Volume
from effvit_med.volume.counts import UnsignedArray
from effvit_med.volume.labels import LATERALITIES
from effvit_med.volume.measurements import Measurement
from effvit_med.volume.overlaps import each_structure
from effvit_med.volume.quality import CaseQuality, Verdict, worst_verdict

_OF_THE_READER: Mapping[str, Verdict] = {
    "UNUSUAL_VALUES": "fail",  # a label map or a constant is no scan
    "MISSING_SLICES": "review",  # volumes are filled in over the gap
    "DAMAGED_FILES_BESIDE": "review",  # the ends may be missing
    "SINGLE_SLICE": "review",
    "NO_GEOMETRY": "review",  # left and right may be swapped
    "AFFINES_DIFFER": "review",  # one of the two places is wrong
    "BAD_AFFINE": "review",
    "PIXDIM_DIFFERS": "review",  # volumes depend on it
    "NON_FINITE": "review",
    "ZERO_SLOPE": "review",
    "ESTIMATED_VOXELS": "review",
    "REGION_ONLY": "review",  # nobody looked at the rest
    "SMALLER_WINDOWS": "review",  # the network saw less than in training
    "MEMORY_SHORT": "review",
}
"""Findings made before or while segmenting that touch what the labels are worth; the others do not."""


def judge_case(
    volume: Volume,
    segmentation: Segmentation,
    measurements: Sequence[Measurement],
    model: Model,
    thresholds: QualityThresholds | None = None,
) -> CaseQuality:
    """The verdict on every structure of a result and on the case as a whole.

    It is about what can be counted, beside what the bundle keeps of its training data. That a result passes says that
    nothing was found against it, not that it is right.

    Args:
        volume: the scan.
        segmentation: its labels, with the findings made on the way in its provenance.
        measurements: what `measure` gave for the two.
        model: the bundle, with its reference or without.
        thresholds: where the line is drawn; None for the defaults.

    Returns:
        The verdict. A structure that was not found has None; so has what nothing was found against but the bundle
        keeps no reference to hold it against.

    Examples:
        >>> import numpy as np
        >>> from effvit_med.engine import read_model
        >>> from effvit_med.volume import Geometry, Provenance
        >>> from effvit_med.volume.measurements import measure
        >>> scan = Volume(np.full((8, 8, 8), 40), Geometry(np.diag([5.0, 5.0, 5.0, 1.0]), (8, 8, 8)), "MR")
        >>> made = Provenance("example", "1", "", {}, {}, "cpu", "2024-01-01T00:00:00+00:00")
        >>> result = Segmentation(np.zeros((8, 8, 8), np.uint8), scan.geometry, read_model().labels, made)
        >>> quality = judge_case(scan, result, measure(scan, result), read_model())
        >>> quality.verdict, quality.reasons[0].code, quality.structures[0].verdict
        ('fail', 'WRONG_MODALITY', None)
    """
    thresholds, reference = thresholds or QualityThresholds(), model.quality
    shapes = _shapes_by_name(segmentation)
    score, no_score = _score_intensities(volume, model, reference)
    sides = _judge_sides(segmentation, shapes, reference, thresholds)
    structures = []
    for row in measurements:
        known = reference.structures.get(row.structure) if reference else None
        weights = segmentation.provenance.weights_sha256
        judged = Judged(row, shapes.get(row.structure), known, reference, weights, thresholds)
        structures.append(judge_structure(judged, sides.get(row.structure, ())))
    reasons = [
        *_judge_scan(volume, segmentation, model),
        *_judge_score(score, reference, thresholds),
        *_judge_absence(measurements, reference, thresholds),
    ]
    if reference is None:
        text = f"{model.name} {model.version} keeps no reference of its training data, so most rules were not judged."
        reasons.append(Reason.of("NO_REFERENCE", text, None))
    verdict = worst_verdict(*(reason.verdict for reason in reasons), *(each.verdict for each in structures))
    return CaseQuality(
        verdict=verdict,
        reasons=tuple(reason.finding for reason in reasons),
        structures=tuple(structures),
        out_of_distribution=None if score is None else round(score, 3),
        out_of_distribution_reason=no_score,
    )


def _shapes_by_name(segmentation: Segmentation) -> dict[str, Shape]:
    table, spacing_mm = segmentation.table, segmentation.geometry.spacing_mm
    maps: Iterable[UnsignedArray] = [segmentation.labels]
    if table.overlaps:
        maps = (alone for _, alone in each_structure(segmentation.labels, table))
    found = (item for each in maps for item in describe_shapes(each, spacing_mm).items())
    return {table.by_value(value).name: shape for value, shape in found}


def _judge_scan(volume: Volume, segmentation: Segmentation, model: Model) -> list[Reason]:
    """What speaks against the scan as a whole: its modality and what was found on the way."""
    reasons = []
    if model.modalities and volume.modality and volume.modality not in model.modalities:
        text = f"The scan is {volume.modality}; {model.name} was trained on {', '.join(model.modalities)} only."
        reasons.append(Reason.of("WRONG_MODALITY", text, "fail"))
    found: dict[str, Finding] = {}
    for finding in segmentation.provenance.findings:
        found.setdefault(finding.code, finding)
    reasons += [Reason(found[code], verdict) for code, verdict in _OF_THE_READER.items() if code in found]
    return reasons


def _judge_absence(
    measurements: Sequence[Measurement], reference: QualityReference | None, thresholds: QualityThresholds
) -> list[Reason]:
    """Nothing at all was found, or not what nearly every training case shows."""
    absent = [row.structure for row in measurements if row.voxels is None]
    if measurements and len(absent) == len(measurements):
        return [Reason.of("NOTHING_FOUND", "No structure was found; the scan may show something else.")]
    if reference is None:
        return []
    needed = thresholds.always_present * reference.training_cases
    known = reference.structures
    missed = [name for name in absent if name in known and known[name].present >= needed]
    if not missed:
        return []
    text = f"{', '.join(missed)} not found; nearly all of the {reference.training_cases} training cases show "
    return [Reason.of("STRUCTURES_MISSING", f"{text}{'it' if len(missed) == 1 else 'them'}.")]


def _score_intensities(volume: Volume, model: Model, reference: QualityReference | None) -> tuple[float | None, str]:
    """How unlike the training data the values are, or why that was not measured."""
    if reference is None or reference.intensity is None:
        return None, "the bundle keeps no reference of the intensities of its training data"
    intensity = model.preprocess.intensity
    why = why_not_comparable(intensity, reference.intensity)
    if why:
        return None, why
    profile = measure_profile(volume, intensity)
    if profile is None:
        return None, "too few voxels lie in the range that the model looks at"
    return score_profile(profile, reference.intensity), ""


def _judge_score(
    score: float | None, reference: QualityReference | None, thresholds: QualityThresholds
) -> list[Reason]:
    if score is None or reference is None or reference.intensity is None:
        return []
    unseen = reference.intensity.unseen_scores
    if score <= thresholds.score_review * unseen.highest:
        return []
    verdict: Verdict = "fail" if score > thresholds.score_fail * unseen.highest else "review"
    text = (
        f"The intensities are unlike those of the training data: score {score:.1f}, where {unseen.cases} scans that "
        f"were not trained on have at most {unseen.highest:.1f}."
    )
    return [Reason.of("OUT_OF_DISTRIBUTION", text, verdict)]


def _judge_sides(
    segmentation: Segmentation,
    shapes: Mapping[str, Shape],
    reference: QualityReference | None,
    thresholds: QualityThresholds,
) -> dict[str, tuple[Reason, ...]]:
    """What speaks against the side of structures: pairs of one type, and what the training data always had so."""
    to_left = {
        name: float(segmentation.geometry.index_to_world(shape.centre)[0]) for name, shape in shapes.items()
    }  # LPS: the first world coordinate grows towards the patient's left
    pairs = dict.fromkeys(find_pairs(segmentation.table), "")
    for side in reference.sides if reference else ():
        pairs[side.left, side.right] = f"; in all {side.cases} training cases it is the other way round"
    reasons: dict[str, tuple[Reason, ...]] = {}
    for (left, right), why in pairs.items():
        if left not in to_left or right not in to_left:
            continue
        wrong_mm = to_left[right] - to_left[left]
        if wrong_mm > thresholds.mirrored_mm:
            text = f"{left} lies {wrong_mm:.0f} mm towards the patient's right of {right}{why}. Sides are swapped."
            for name in (left, right):
                reasons[name] = (*reasons.get(name, ()), Reason.of("MIRRORED_LATERALITY", text, "fail"))
    return reasons


def find_pairs(table: LabelTable) -> list[tuple[str, str]]:
    """The structures of a label table that are the left and the right one of a type, by name.

    Args:
        table: of the bundle.

    Examples:
        >>> from effvit_med.engine import read_model
        >>> find_pairs(read_model().labels)
        [('kidney_left', 'kidney_right')]
    """
    sides: dict[tuple[str, str], dict[str, list[str]]] = {}
    for label in table:
        for word in ("left", "right"):
            if label.laterality is not None and label.laterality.value == LATERALITIES[word].value:
                sides.setdefault((label.type.scheme, label.type.value), {}).setdefault(word, []).append(label.name)
    both = [(names.get("left", []), names.get("right", [])) for names in sides.values()]
    return [(left[0], right[0]) for left, right in both if len(left) == len(right) == 1]
