"""What the confidence of a network and the verdict on its results are worth, measured against the truth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt
from scipy.stats import mannwhitneyu

from effvit_med.errors import GeometryError, SettingsError
from effvit_med.evaluation.metrics import box_around
from effvit_med.volume import Segmentation
from effvit_med.volume.quality import Verdict

NEAR_MM = 10.0
"""Voxels farther than this from everything that either of the two labels are easy, and would hide what is wrong."""

_BINS = 10


@dataclass(frozen=True, eq=False)
class Reliability:
    """How often the network was right, by how sure it was.

    The confidence of a voxel is tanh(d / 2) of the difference d between its two largest logits. Between two classes
    that is p - (1 - p) for the softmax probability p of the larger, so p = (1 + confidence) / 2 is what it claims.

    Attributes:
        voxels: how many were in each of ten bins of p from 0.5 to 1.
        claimed: sum of p in each bin.
        right: how many of them were right.
    """

    voxels: npt.NDArray[np.int64]
    claimed: npt.NDArray[np.float64]
    right: npt.NDArray[np.int64]

    @classmethod
    def empty(cls) -> Reliability:
        """Of no voxel."""
        return cls(np.zeros(_BINS, np.int64), np.zeros(_BINS), np.zeros(_BINS, np.int64))

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.voxels + other.voxels, self.claimed + other.claimed, self.right + other.right)

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the mean gap between what is claimed and what is right, weighted by voxels.

        Source:
            Guo et al., On Calibration of Modern Neural Networks (arXiv 1706.04599), equation 3.
        """
        total = int(self.voxels.sum())
        return float(np.abs(self.claimed - self.right).sum()) / total if total else float("nan")

    def rows(self) -> list[tuple[float, float, int, float, float]]:
        """Lower and upper bound of p, voxels, mean p and the part that is right, of each bin that is not empty."""
        edges = np.linspace(0.5, 1.0, _BINS + 1)
        return [
            (float(low), float(high), int(n), float(claimed / n), float(right / n))
            for low, high, n, claimed, right in zip(
                edges[:-1], edges[1:], self.voxels, self.claimed, self.right, strict=True
            )
            if n
        ]


@dataclass(frozen=True)
class VerdictCheck:
    """Whether the verdict on results tells good cases from bad ones.

    Attributes:
        low_dice: a case whose mean Dice over its structures is below is called bad.
        cases: how many have a verdict.
        bad: how many of them are bad.
        mean_dice: mean Dice of the cases of each verdict.
        counts: how many cases have each verdict.
        caught: of the bad cases, the part that was not passed; None where none is bad.
        spared: of the good cases, the part that was passed; None where none is good.
        confidence_auc: how well the mean confidence orders bad before good cases (0.5 is chance, 1 is perfect); None
            where there are not both.
    """

    low_dice: float
    cases: int
    bad: int
    mean_dice: Mapping[str, float]
    counts: Mapping[str, int]
    caught: float | None
    spared: float | None
    confidence_auc: float | None


@dataclass(frozen=True)
class JudgedCase:
    """What was thought of a case before the truth was known, and the truth.

    Attributes:
        case_id: its name.
        dice: mean Dice over the structures that the reference shows.
        verdict: of its record; None where there is none.
        confidence: mean confidence of its structures, 0 to 1; None where it was not measured.
    """

    case_id: str
    dice: float
    verdict: Verdict | None
    confidence: float | None


def measure_reliability(
    reference: Segmentation,
    found: Segmentation,
    confidence: npt.NDArray[np.uint8],
    ignore: Sequence[int] = (),
    near_mm: float = NEAR_MM,
) -> Reliability:
    """How often one segmentation is right, by its confidence, near what it or the reference labels.

    Args:
        reference: the truth.
        found: the labels, on the same grid.
        confidence: of the same shape, as `effvit_med.volume.Segmentation` describes it.
        ignore: label values of the reference that mark voxels about which nothing is said; these do not count.
        near_mm: how far from a label voxels still count.

    Raises:
        GeometryError: if the shapes differ.
    """
    if not reference.labels.shape == found.labels.shape == confidence.shape:
        raise GeometryError(
            f"Reference {reference.labels.shape}, labels {found.labels.shape} and confidence {confidence.shape} must "
            "have one shape."
        )
    unknown = np.isin(reference.labels, np.array(ignore, np.int64))
    labelled = ((reference.labels > 0) | (found.labels > 0)) & ~unknown
    if not labelled.any():
        return Reliability.empty()
    spacing_mm = reference.geometry.spacing_mm
    box = box_around(labelled, tuple(math.ceil(near_mm / step_mm) for step_mm in spacing_mm))
    near = (distance_transform_edt(~labelled[box], sampling=spacing_mm) <= near_mm) & ~unknown[box]
    sure = confidence[box][near].astype(np.int64)
    right = reference.labels[box][near] == found.labels[box][near]
    p = (1 + sure / 255) / 2
    bins = np.minimum((sure * _BINS) // 255, _BINS - 1)
    return Reliability(
        np.bincount(bins, minlength=_BINS),
        np.bincount(bins, weights=p, minlength=_BINS).astype(np.float64),
        np.bincount(bins[right], minlength=_BINS),
    )


def check_verdicts(cases: Sequence[JudgedCase], low_dice: float = 0.8) -> VerdictCheck:
    """Whether what was thought of the cases agrees with their Dice.

    Args:
        cases: with their verdicts; those without are left out of all but the confidence.
        low_dice: below, a case is bad.

    Raises:
        SettingsError: if low_dice is not between 0 and 1.

    Examples:
        >>> cases = [JudgedCase("a", 0.9, "pass", 0.8), JudgedCase("b", 0.3, "review", 0.5)]
        >>> check = check_verdicts(cases)
        >>> check.bad, check.caught, check.spared, check.confidence_auc
        (1, 1.0, 1.0, 1.0)
    """
    if not 0 < low_dice < 1:
        raise SettingsError(f"low_dice is {low_dice}; give a Dice between 0 and 1.")
    judged = [case for case in cases if case.verdict is not None]
    bad = [case for case in judged if case.dice < low_dice]
    good = [case for case in judged if case.dice >= low_dice]
    groups = {name: [case.dice for case in judged if case.verdict == name] for name in ("pass", "review", "fail")}
    return VerdictCheck(
        low_dice=low_dice,
        cases=len(judged),
        bad=len(bad),
        mean_dice={name: float(np.mean(values)) for name, values in groups.items() if values},
        counts={name: len(values) for name, values in groups.items()},
        caught=sum(case.verdict != "pass" for case in bad) / len(bad) if bad else None,
        spared=sum(case.verdict == "pass" for case in good) / len(good) if good else None,
        confidence_auc=_area(cases, low_dice),
    )


def _area(cases: Sequence[JudgedCase], low_dice: float) -> float | None:
    """The area under the receiver operating characteristic of the confidence, by ranks."""
    good = [case.confidence for case in cases if case.confidence is not None and case.dice >= low_dice]
    bad = [case.confidence for case in cases if case.confidence is not None and case.dice < low_dice]
    if not good or not bad:
        return None
    return float(mannwhitneyu(good, bad).statistic) / (len(good) * len(bad))
