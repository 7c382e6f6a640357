"""Pictures of the comparison: Dice against the time of a case, and Dice against the time of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.versus_points import MIRRORED, Point

COLOURS = {
    "ours": "#08519c",
    "MONAI UNet": "#d94801",
    "MONAI DynUNet": "#a50f15",
    "MONAI SegResNet": "#7a0177",
    "MONAI SwinUNETR": "#8c6d31",
    "nnU-Net": "#525252",
}
LINES = ("-", "--", ":", "-.")


SHOWN_BELOW_BEST = 0.1
"""How far below the best the axis of Dice goes at most."""


def draw_front(points: Sequence[Point], path: Path) -> None:
    """Mean Dice with its interval against CPU seconds of a case, one curve for each family.

    Args:
        points: of one set and one budget; those that were not timed are left out.
        path: the PNG to write.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for family in dict.fromkeys(point.family for point in points):
        mine = sorted((p for p in points if p.family == family and p.cpu_s), key=lambda point: point.cpu_s or 0.0)
        if not mine:
            continue
        dice = [point.metric("dice") for point in mine]
        means = np.array([each.mean for each in dice])
        ends = np.array([[each.mean - each.low, each.high - each.mean] for each in dice]).T
        ours = family == "ours"
        axes.errorbar(
            [point.cpu_s for point in mine],
            means,
            yerr=np.nan_to_num(np.maximum(ends, 0)),
            label=family,
            color=COLOURS[family],
            marker="o" if ours else "s",
            linestyle="-" if ours else "--",
            linewidth=2 if ours else 1,
            elinewidth=0.7,
        )
        for point, mean in zip(mine, means, strict=True):
            axes.annotate(
                point.model,
                (point.cpu_s, mean),
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
                annotation_clip=True,
            )
    axes.set_xscale("log")
    axes.set_xlabel("CPU seconds of a case, one thread, best runtime")
    axes.set_ylabel("mean Dice on the test cases, 95 % interval")
    axes.set_title(f"{points[0].set_name}, trained for {points[0].budget}")
    axes.grid(visible=True, color="0.9")
    axes.legend(frameon=False)
    _leave_out_failures(axes, [point for point in points if point.cpu_s])
    _save(figure, path)


def _leave_out_failures(axes: Any, points: Sequence[Point]) -> None:
    """End the axis of Dice above what has hardly learnt anything, which would press all else together; name it."""
    dice = {point.model: point.metric("dice").mean for point in points}
    lowest = max(dice.values()) - SHOWN_BELOW_BEST
    left_out = [f"{model} {value:.2f}" for model, value in dice.items() if value < lowest]
    if left_out:
        axes.set_ylim(bottom=lowest)
        axes.text(0.01, 0.01, f"below: {', '.join(left_out)}", transform=axes.transAxes, fontsize=7)


def draw_training(points: Sequence[Point], path: Path) -> None:
    """Dice of the watched cases against the time of training, a curve for each network.

    Args:
        points: of one set and one budget.
        path: the PNG to write.
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(10, 6), layout="constrained")
    drawn: dict[str, int] = {}
    for point in points:
        if point.model == MIRRORED:
            continue
        number = drawn.setdefault(point.family, 0)
        drawn[point.family] += 1
        seconds, dice = average_curves([result["curve"] for result in point.results])
        axes.plot(
            seconds / 60,
            dice,
            label=point.model,
            color=COLOURS[point.family],
            linestyle=LINES[number % len(LINES)],
            linewidth=2 if point.is_ours else 1,
        )
    clock = "CPU minutes of one thread" if " of cuda" not in points[0].budget else "minutes on a GPU"
    axes.set_xlabel(f"training, {clock}")
    axes.set_ylabel("mean Dice of the watched cases")
    axes.set_title(f"{points[0].set_name}, {points[0].budget}")
    axes.grid(visible=True, color="0.9")
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    _save(figure, path)


def average_curves(curves: Sequence[Sequence[Sequence[float]]]) -> tuple[Any, Any]:
    """The mean of curves of several seeds and folds, over the time that all have reached.

    Args:
        curves: of pairs of seconds and Dice.

    Returns:
        Seconds and Dice.
    """
    first = np.array(curves[0])
    end = min(curve[-1][0] for curve in curves)
    seconds = np.append(first[:, 0][first[:, 0] < end], end)
    dice = [np.interp(seconds, *np.array(curve).T) for curve in curves]
    return seconds, np.mean(dice, 0)


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    _pyplot().close(figure)
