"""The tables of the comparison, and what they say of the front of Dice against time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import make_table
from benchmarks.versus_points import Point, compare_points, find_dominating, find_even, rival_of
from benchmarks.versus_recipe import describe_recipe
from benchmarks.versus_sets import SETS, TOLERANCE_MM
from effvit_med.evaluation import Comparison, Interval

HEAD = [
    "network",
    "M parameters",
    "Dice, 95 %",
    "by structure",
    "NSD, 95 %",
    "Dice less that of ours",
    "steps (epochs)",
    "training, min",
    "training, GiB",
    "a case, CPU s (runtime)",
    "a case, wall s, 2 threads",
    "a case eager, CPU s",
    "a case eager, MiB",
]


def to_markdown(
    points: Sequence[Point],
    splits: Mapping[str, Mapping[str, Any]],
    observers: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
    skipped: Mapping[str, str],
) -> str:
    """The whole report.

    Args:
        points: all of them.
        splits: by set and fold, as `describe_split` gives them.
        observers: by set, mean Dice and NSD of a second observer against the first.
        failed: why a run failed, by its name.
        skipped: why a set is left out, by its name.
    """
    lines = [
        "# Accuracy beside peers, on real scans",
        "",
        (
            "Every network but nnU-Net, which keeps its own recipe, trains with the same prepared crops, augmentation, "
            "loss and schedule on the same split, and all for the same time: CPU seconds of one thread, drawing of "
            "crops included, looks at the watched cases not. Intervals: bootstrap over patients; differences are "
            f"paired. NSD: surface Dice at {TOLERANCE_MM:g} mm (1 pixel on photographs). A case is the test case of "
            "middling size, from the prepared image to its labels on one thread, in the fastest runtime whose labels "
            "agree with eager float32 by a Dice of 0.995. nnU-Net's network alone has neither its preprocessing nor "
            "its blending in its time."
        ),
    ]
    for set_name in dict.fromkeys(point.set_name for point in points):
        lines += ["", f"## {set_name}", "", *_describe_set(set_name, splits, observers)]
        mine = [point for point in points if point.set_name == set_name]
        for budget in dict.fromkeys(point.budget for point in mine):
            lines += ["", *_describe_budget([point for point in mine if point.budget == budget], budget)]
    lines += [""] + [f"Failed: {name}: {why}" for name, why in failed.items()]
    lines += [f"Left out: {name}: {why}." for name, why in skipped.items()]
    return "\n".join(lines)


def _describe_set(
    set_name: str, splits: Mapping[str, Mapping[str, Any]], observers: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    labelled = SETS[set_name]
    lines = [describe_recipe(labelled)]
    for name, split in splits.items():
        if name.startswith(f"{set_name} "):
            parts = ", ".join(f"{len(split[part])} {what}" for part, what in _PARTS)
            lines += ["", f"Fold {name.split()[-1]}: {parts}; digest {split['digest']}, names in the JSON file."]
    if not labelled.watched:
        lines += ["", "There are too few patients to keep some aside: the curves watch cases that are trained on."]
    if set_name in observers:
        found = observers[set_name]
        lines += [
            "",
            f"A second observer against the first on the same cases: Dice {found['dice']:.3f}, NSD {found['nsd']:.3f}.",
        ]
    return lines


_PARTS = (("train", "trained on"), ("watched", "watched"), ("test", "tested"))


def _describe_budget(points: Sequence[Point], budget: str) -> list[str]:
    ours = [point for point in points if point.is_ours]
    cases = max(point.cases for point in points)
    seeds = sorted({len(point.seed_means) for point in points})
    said = f"{cases} test images, {'/'.join(map(str, seeds))} seed{'s' if seeds != [1] else ''}"
    rows = [_row(point, rival_of(point, ours)) for point in points]
    return [f"### {budget} ({said})", "", make_table(HEAD, rows), "", *_judge(points), "", *_tell_shorter(points)]


def _row(point: Point, rival: Point | None) -> list[str]:
    structures = SETS[point.set_name].structures
    runtime = point.runtime
    best = point.times[runtime] if runtime else {}
    eager = next((row for name, row in point.times.items() if "eager" in name or "predictor" in name), {})
    spread = f" ± {_spread(point.seed_means):.3f} between seeds" if len(point.seed_means) > 1 else ""
    return [
        f"**{point.model}**" if point.is_ours else point.model,
        f"{point.mean_of('parameters') / 1e6:.2f}",
        _interval(point.metric("dice")) + spread,
        ", ".join(f"{point.metric('dice', name).mean:.3f}" for name in structures),
        _interval(point.metric("nsd")),
        f"{_difference(compare_points(rival, point))} ({rival.model})" if rival else "",
        f"{point.mean_of('steps'):.0f} ({point.mean_of('epochs'):.1f})",
        f"{point.mean_of('spent_s') / 60:.1f}" + (", limit" if any(r["hit_limit"] for r in point.results) else ""),
        f"{point.mean_of('train_peak_mib') / 1024:.2f}",
        f"{best['cpu_s']:.3f} ({runtime})" if best else "not timed",
        _number(best, "wall_2_s", ".3f"),
        _number(eager, "cpu_s", ".3f"),
        _number(eager, "peak_mib", ".0f"),
    ]


def _number(row: Mapping[str, Any], name: str, form: str) -> str:
    return format(row[name], form) if name in row else ""


def _interval(found: Interval) -> str:
    """Mean and interval.

    Examples:
        >>> from effvit_med.evaluation import mean_interval
        >>> _interval(mean_interval([0.9]))
        '0.900 (one patient)'
    """
    if math.isnan(found.low):
        return f"{found.mean:.3f} (one patient)"
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


def _difference(found: Comparison) -> str:
    if math.isnan(found.low):
        return f"{found.difference:+.3f}"
    return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f}), p {found.p_permutation:.3f}"


def _spread(values: Sequence[float]) -> float:
    return max(values) - min(values)


def _judge(points: Sequence[Point]) -> list[str]:
    """Sentences on the front."""
    if not any(point.is_ours and point.cpu_s is not None for point in points):
        return ["None of ours is timed yet, so nothing is said of the front."]
    ahead, even = find_dominating(points), find_even(points)
    lines = [
        f"**{peer.model} is faster than {ours.model} and better beyond the interval: {_difference(found)}.**"
        for peer, ours, found in ahead
    ] or ["No peer point is both faster than one of ours and better than it beyond the interval."]
    if even:
        pairs = ", ".join(f"{peer.model} (than {ours.model})" for peer, ours, _ in even)
        lines += [f"Faster, and neither better nor worse beyond the interval: {pairs}."]
    groups = min(len(point.scores) for point in points if point.is_ours)
    if groups < 6:
        lines += [f"Patients tested: {groups}. So few say little, and neither do such intervals."]
    return lines


def _tell_shorter(points: Sequence[Point]) -> list[str]:
    """What ran shorter than its authors intend."""
    by_usual: dict[str, list[str]] = {}
    for point in points:
        if point.usual:
            steps = f"{point.mean_of('steps'):.0f} steps"
            by_usual.setdefault(point.usual, []).append(f"{point.model} {steps}")
    told = "; ".join(f"{', '.join(names)}, where its authors have {usual}" for usual, names in by_usual.items())
    return [f"Shorter than intended: {told}."] if told else []


def to_figures(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Every point as plain values."""
    return [
        {
            "set": point.set_name,
            "budget": point.budget,
            "network": point.model,
            "family": point.family,
            "dice": vars(point.metric("dice")),
            "nsd": vars(point.metric("nsd")),
            "structures": {name: vars(point.metric("dice", name)) for name in SETS[point.set_name].structures},
            "seed_means": list(point.seed_means),
            "runtime": point.runtime,
            "times": dict(point.times),
            "runs": [
                {key: value for key, value in result.items() if key not in ("split", "scores", "scores_mirrored")}
                for result in point.results
            ],
            "dice_by_patient": {
                group: {row.structure: row.dice for row in rows} for group, rows in point.scores.items()
            },
        }
        for point in points
    ]
