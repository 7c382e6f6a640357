"""An evaluation on the disk: a table of all scores, a page to read, figures for programs, pictures of the worst."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from effvit_med import __version__
from effvit_med.errors import GeometryError, InputError
from effvit_med.evaluation.alignment import SAME_PLACE_MM
from effvit_med.evaluation.pairs import read_pair
from effvit_med.evaluation.run import Evaluation
from effvit_med.evaluation.statistics import Comparison, Interval
from effvit_med.io import read_scan, write_overlay, write_photograph_overlay
from effvit_med.io.atomic import make_folder, write_json, write_text
from effvit_med.volume import NOT_FOR_CLINICAL_USE, Geometry, Label, LabelTable, Segmentation
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE

log = logging.getLogger(__name__)

EVALUATION_FORMAT = "effvit-med evaluation 1"

_SCORES = ("reference_ml", "found_ml", "volume_error_percent", "dice", "nsd", "hd95_mm", "assd_mm")
_DIFFERENCES = LabelTable(
    (
        Label(1, "agreed", ANATOMICAL_STRUCTURE, colour=(64, 160, 96)),
        Label(2, "found too much", ANATOMICAL_STRUCTURE, colour=(230, 60, 50)),
        Label(3, "missed", ANATOMICAL_STRUCTURE, colour=(60, 120, 240)),
        Label(4, "another structure", ANATOMICAL_STRUCTURE, colour=(240, 190, 40)),
    )
)


def write_scores_csv(evaluation: Evaluation, path: Path) -> None:
    """Write one row per case and structure; an empty cell for what has no number, and why in the last column.

    Args:
        evaluation: what to write.
        path: the file.

    Raises:
        OutputError: if it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "structure", "value", *_SCORES, "reason"])
    for case, rows in evaluation.scores.items():
        for row in rows:
            numbers = [_rounded(getattr(row, name)) for name in _SCORES]
            writer.writerow([case, row.structure, row.value, *numbers, row.reason])
    write_text(path, text.getvalue())


def to_dict(evaluation: Evaluation, against: Sequence[Comparison] = ()) -> dict[str, Any]:
    """All figures as plain values for JSON; what is not a number is null."""
    reliability = evaluation.reliability
    plain = {
        "format": EVALUATION_FORMAT,
        "notice": NOT_FOR_CLINICAL_USE,
        "version": __version__,
        "options": asdict(evaluation.options),
        "mean_dice": asdict(evaluation.mean_dice),
        "structures": [asdict(each) for each in evaluation.structures],
        "missing": list(evaluation.missing),
        "unscored": evaluation.unscored,
        "unheeded": evaluation.unheeded,
        "verdicts": asdict(evaluation.verdicts) if evaluation.verdicts else None,
        "reliability": None
        if reliability is None
        else {"expected_error": reliability.expected_error, "bins": [list(row) for row in reliability.rows()]},
        "comparison": [asdict(each) for each in against],
        "scores": {case: [asdict(row) for row in rows] for case, rows in evaluation.scores.items()},
    }
    return _without_nan(plain)


def to_markdown(evaluation: Evaluation, against: Sequence[Comparison] = ()) -> str:
    """The figures for a person: a Markdown page."""
    lines = [
        "# Evaluation",
        "",
        _counts(evaluation),
        "",
        *_structure_lines(evaluation),
    ]
    if against:
        lines += ["", "## The other model against this one", "", *_comparison_lines(against)]
    lines += _verdict_lines(evaluation)
    left_out = [f"- {name}: {why}" for name, why in evaluation.unscored.items()]
    if evaluation.missing:
        left_out.append(f"- no segmentation: {', '.join(evaluation.missing)}")
    if left_out:
        lines += ["", "## Not scored", "", *left_out]
    if evaluation.unheeded:
        said = [f"- {name}: {why}" for name, why in evaluation.unheeded.items()]
        lines += ["", "## Confidence maps that were not used", "", *said]
    return "\n".join(lines) + "\n"


def write_evaluation(
    evaluation: Evaluation, folder: Path, against: Sequence[Comparison] = (), worst: int = 4
) -> dict[str, Path]:
    """Write everything there is to say of an evaluation.

    Args:
        evaluation: what to write.
        folder: where to; made if it is not there.
        against: another model against this one.
        worst: of how many of the worst cases a picture is drawn.

    Returns:
        The files: ``scores``, ``page``, ``figures``, and ``failure_1`` and so on, the worst case first.

    Raises:
        OutputError: if a file cannot be written.
    """
    make_folder(folder)
    files = {"scores": folder / "scores.csv", "page": folder / "evaluation.md", "figures": folder / "evaluation.json"}
    write_scores_csv(evaluation, files["scores"])
    write_json(files["figures"], to_dict(evaluation, against))
    drawn = draw_failures(evaluation, folder / "failures", worst)
    write_text(files["page"], to_markdown(evaluation, against) + _picture_lines(drawn))
    return files | {f"failure_{number}": path for number, path in enumerate(drawn, start=1)}


def draw_failures(evaluation: Evaluation, folder: Path, count: int) -> list[Path]:
    """Draw the worst cases over their scans: what agrees, what is too much, what was missed.

    Args:
        evaluation: of which cases.
        folder: where to; made if it is not there.
        count: of how many cases at most; those whose scan is not known are passed over, those whose scan cannot be
            read or lies elsewhere are named in a warning.

    Returns:
        The pictures, the worst case first.

    Raises:
        OutputError: if a picture cannot be written.
    """
    made = []
    for name in evaluation.worst(count):
        pair = evaluation.pairs[name]
        if pair.image is None:
            continue
        try:
            truth, ours = read_pair(
                pair, evaluation.table, evaluation.options.ignore, overlaps=evaluation.options.overlaps
            )
            volume = read_scan(pair.image)
            if volume.is_photograph and volume.geometry.shape == truth.geometry.shape:
                volume = replace(volume, geometry=truth.geometry)  # label maps of photographs lie on stored pixels
            volume = volume.reoriented(truth.geometry.orientation)
            _check_same_place(volume.geometry, truth.geometry)
        except (InputError, GeometryError) as error:
            log.warning("%s is not drawn: %s", name, error)
            continue
        make_folder(folder)
        path = folder / f"{name}.png"
        draw = write_photograph_overlay if volume.is_photograph else write_overlay
        draw(volume, differences(truth, ours, evaluation.options.ignore), path)
        made.append(path)
    return made


def differences(reference: Segmentation, found: Segmentation, ignore: Sequence[int] = ()) -> Segmentation:
    """Where two label maps agree and where not.

    Args:
        reference: the truth.
        found: what is compared, on the same grid.
        ignore: label values of the reference that mark what nothing is said about; nothing is shown there.

    Returns:
        Labels ``agreed``, ``found too much``, ``missed`` and ``another structure``, on the reference's grid.
    """
    truth, ours = reference.labels, found.labels
    labels = np.zeros(truth.shape, np.uint8)
    labels[(truth > 0) & (ours == truth)] = 1
    labels[(truth == 0) & (ours > 0)] = 2
    labels[(truth > 0) & (ours == 0)] = 3
    labels[(truth > 0) & (ours > 0) & (ours != truth)] = 4
    labels[np.isin(truth, np.array(ignore, np.int64))] = 0
    made = replace(found.provenance, bundle=found.provenance.bundle or "differences from the reference")
    return Segmentation(labels, reference.geometry, _DIFFERENCES, made)


def _counts(evaluation: Evaluation) -> str:
    return (
        f"{len(evaluation.scores)} cases scored, {len(evaluation.missing)} without a segmentation, "
        f"{len(evaluation.unscored)} that could not be scored. Mean Dice over cases "
        f"{_with_interval(evaluation.mean_dice) or 'unknown'}. {NOT_FOR_CLINICAL_USE}"
    )


def _check_same_place(scan: Geometry, reference: Geometry) -> None:
    distance_mm = reference.max_distance_mm(scan)
    if distance_mm > SAME_PLACE_MM:
        raise GeometryError(f"the scan lies up to {distance_mm:.3g} mm away from the reference.")


def _picture_lines(pictures: Sequence[Path]) -> str:
    if not pictures:
        return ""
    shown = "\n".join(f"![{path.stem}](failures/{path.name})\n" for path in pictures)
    return f"\n## The worst cases\n\nGreen agrees, red is too much, blue was missed.\n\n{shown}"


def _structure_lines(evaluation: Evaluation) -> list[str]:
    tolerance = evaluation.options.tolerance_mm
    head = [
        "structure",
        "cases (shown, missed, false alarms)",
        "Dice",
        f"NSD at {tolerance:g} mm",
        "HD95, mm",
        "ASSD, mm",
        "volume error, %",
    ]
    rows = [
        [
            each.structure,
            f"{each.cases} ({each.shown}, {each.missed}, {each.false_alarms})",
            *(_with_interval(each.metrics[name]) for name in ("dice", "nsd")),
            *(_with_interval(each.metrics[name], 2) for name in ("hd95_mm", "assd_mm", "volume_error_percent")),
        ]
        for each in evaluation.structures
    ]
    note = (
        "Means over cases with 95 % intervals (bootstrap over cases, bias-corrected and accelerated). Structures that "
        "a reference does not show are left out of the means; missed ones count as Dice and NSD 0 and have no distance."
    )
    return [*_table(head, rows), "", note]


def _comparison_lines(rows: Sequence[Comparison]) -> list[str]:
    head = ["structure", "metric", "cases", "difference", "p (permutation)", "p (Wilcoxon)", "higher, lower"]
    cells = [
        [
            row.structure,
            row.metric,
            str(row.cases),
            f"{row.difference:+.4f} ({row.low:+.4f} to {row.high:+.4f})",
            f"{row.p_permutation:.4f}",
            f"{row.p_wilcoxon:.4f}",
            f"{row.better}, {row.worse}",
        ]
        for row in rows
    ]
    note = "Paired over cases; p values are two-sided and not corrected for the number of rows."
    return [*_table(head, cells), "", note]


def _verdict_lines(evaluation: Evaluation) -> list[str]:
    lines: list[str] = []
    check, reliability = evaluation.verdicts, evaluation.reliability
    if check is not None:
        rows = [
            [name, str(count), f"{check.mean_dice[name]:.4f}" if name in check.mean_dice else ""]
            for name, count in check.counts.items()
        ]
        lines += ["", "## What the verdict says", "", *_table(["verdict", "cases", "mean Dice"], rows), ""]
        parts = (("bad cases were not passed", check.caught), ("good cases were passed", check.spared))
        said = [f"{value:.0%} of the {what}" for what, value in parts if value is not None]
        if check.confidence_auc is not None:
            said.append(f"area under the curve of the mean confidence {check.confidence_auc:.3f}")
        lines.append(
            f"{check.bad} of {check.cases} cases are bad (mean Dice below {check.low_dice:g})"
            + (f": {', '.join(said)}." if said else ".")
        )
    if reliability is not None:
        rows = [
            [f"{low:.2f} to {high:.2f}", str(n), f"{claimed:.3f}", f"{right:.3f}"]
            for low, high, n, claimed, right in reliability.rows()
        ]
        head = ["claimed probability", "voxels", "mean claimed", "right"]
        error = f"Expected calibration error {reliability.expected_error:.4f}, over voxels near structures."
        lines += ["", "## What the confidence says", "", *_table(head, rows), "", error]
    return lines


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _with_interval(interval: Interval, digits: int = 4) -> str:
    if not interval.cases:
        return ""
    mean = f"{interval.mean:.{digits}f}"
    return mean if math.isnan(interval.low) else f"{mean} ({interval.low:.{digits}f} to {interval.high:.{digits}f})"


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
