"""Scores of many cases in one figure with its interval, and two models against each other."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap, permutation_test, wilcoxon

from effvit_med.errors import SettingsError
from effvit_med.evaluation.metrics import StructureScore

MetricName = Literal["dice", "nsd", "hd95_mm", "assd_mm", "volume_error_percent"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)

_RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """A mean over cases.

    Attributes:
        cases: how many it is of.
        mean: the mean; NaN of no case, as all below.
        low: lower end of the 95 % interval; NaN of fewer than two cases.
        high: upper end.
        sd: standard deviation between cases; NaN of fewer than two.
        median: the median.
        minimum: the least.
        maximum: the most.
    """

    cases: int
    mean: float
    low: float
    high: float
    sd: float
    median: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class StructureSummary:
    """One structure over all cases.

    Attributes:
        structure: its name.
        cases: how many were scored.
        shown: in how many the reference shows it.
        missed: in how many of those nothing was found.
        false_alarms: in how many of the others something was found.
        metrics: each metric over the cases that have a number for it.
    """

    structure: str
    cases: int
    shown: int
    missed: int
    false_alarms: int
    metrics: Mapping[MetricName, Interval]


@dataclass(frozen=True)
class Comparison:
    """One metric of one structure of two models on the same cases.

    Attributes:
        structure: its name.
        metric: which.
        cases: how many have a number from both models.
        difference: mean of the second minus the first.
        low: lower end of its 95 % interval, bootstrap over cases.
        high: upper end.
        p_permutation: two-sided p of a sign-flip permutation test of the mean difference; NaN of fewer than two cases.
        p_wilcoxon: two-sided p of the signed-rank test; NaN where all differences are 0.
        better: in how many cases the second has the larger number.
        worse: in how many the smaller.
    """

    structure: str
    metric: MetricName
    cases: int
    difference: float
    low: float
    high: float
    p_permutation: float
    p_wilcoxon: float
    better: int
    worse: int


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean with its 95 % interval: bootstrap over cases, bias-corrected and accelerated, with a fixed seed.

    Args:
        values: one number per case; cases must be independent (one per patient).

    Source:
        Efron 1987, "Better bootstrap confidence intervals", Journal of the American Statistical Association 82.

    Examples:
        >>> interval = mean_interval([0.9, 0.9, 0.9])
        >>> interval.mean, interval.low, interval.high
        (0.9, 0.9, 0.9)
    """
    nan = float("nan")
    if not values:
        return Interval(0, nan, nan, nan, nan, nan, nan, nan)
    low, high = _bootstrap_mean(values)
    return Interval(
        cases=len(values),
        mean=statistics.fmean(values),
        low=low,
        high=high,
        sd=statistics.stdev(values) if len(values) > 1 else nan,
        median=statistics.median(values),
        minimum=min(values),
        maximum=max(values),
    )


def summarise(scores: Mapping[str, Sequence[StructureScore]]) -> tuple[StructureSummary, ...]:
    """One row per structure, in the order in which they first appear.

    Args:
        scores: of each case, by its name.
    """
    names = dict.fromkeys(score.structure for rows in scores.values() for score in rows)
    return tuple(
        _summarise(name, [s for rows in scores.values() for s in rows if s.structure == name]) for name in names
    )


def compare(
    first: Mapping[str, Sequence[StructureScore]],
    second: Mapping[str, Sequence[StructureScore]],
    metric: MetricName = "dice",
) -> tuple[Comparison, ...]:
    """Two models on the same cases, structure by structure, and the mean over structures as ``mean``.

    Args:
        first: scores of the first model by case.
        second: of the second.
        metric: which number.

    Raises:
        SettingsError: if the two have no case in common.
    """
    shared = [case for case in first if case in second]
    if not shared:
        raise SettingsError("The two have no case in common, so they cannot be compared.")
    pairs: dict[str, list[tuple[float, float]]] = {}
    for case in shared:
        ours, theirs = _numbers(first[case], metric), _numbers(second[case], metric)
        both = [name for name in ours if name in theirs]
        for name in both:
            pairs.setdefault(name, []).append((ours[name], theirs[name]))
        if both:
            means = statistics.fmean(ours[name] for name in both), statistics.fmean(theirs[name] for name in both)
            pairs.setdefault("mean", []).append(means)
    rows = [_compare(name, metric, found) for name, found in pairs.items() if name != "mean"]
    return (*rows, *(_compare("mean", metric, found) for name, found in pairs.items() if name == "mean"))


def _summarise(name: str, rows: Sequence[StructureScore]) -> StructureSummary:
    shown = [row for row in rows if row.reference_ml > 0]
    values = {metric: [v for row in shown if (v := getattr(row, metric)) is not None] for metric in METRICS}
    return StructureSummary(
        structure=name,
        cases=len(rows),
        shown=len(shown),
        missed=sum(row.is_missed for row in shown),
        false_alarms=sum(row.is_false_alarm for row in rows),
        metrics={metric: mean_interval(found) for metric, found in values.items()},
    )


def _numbers(scores: Sequence[StructureScore], metric: MetricName) -> dict[str, float]:
    return {score.structure: value for score in scores if (value := getattr(score, metric)) is not None}


def _compare(name: str, metric: MetricName, pairs: Sequence[tuple[float, float]]) -> Comparison:
    differences = [second - first for first, second in pairs]
    low, high = _bootstrap_mean(differences)
    return Comparison(
        structure=name,
        metric=metric,
        cases=len(pairs),
        difference=statistics.fmean(differences),
        low=low,
        high=high,
        p_permutation=_sign_flip_p(differences),
        p_wilcoxon=float(wilcoxon(differences).pvalue) if any(differences) and len(pairs) > 1 else float("nan"),
        better=sum(value > 0 for value in differences),
        worse=sum(value < 0 for value in differences),
    )


def _bootstrap_mean(values: Sequence[float]) -> tuple[float, float]:
    if len(values) < 2:
        return float("nan"), float("nan")
    if min(values) == max(values):
        return values[0], values[0]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # of values that hardly differ: those have no correction
        for method in ("BCa", "percentile"):
            rng = np.random.default_rng(0)
            drawn = bootstrap((np.array(values),), np.mean, n_resamples=_RESAMPLES, method=method, rng=rng)
            if np.isfinite(drawn.confidence_interval).all():
                break
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def _sign_flip_p(differences: Sequence[float]) -> float:
    if len(differences) < 2:
        return float("nan")
    test = permutation_test(
        (np.array(differences),),
        np.mean,
        permutation_type="samples",
        n_resamples=_RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)
