"""Pictures of what the networks cost: time and memory against the size of the image, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.network_measuring import Conditions, Measurement
from benchmarks.network_report import FITTED_EDGES, exponent_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS = (
    *("#08306b", "#08519c", "#2171b5", "#4292c6", "#006d2c", "#238b45", "#41ab5d", "#74c476"),
    *("#00bcd4", "#3f007d", "#7b4173", "#1b9e77"),
)
_PEERS = ("#d94801", "#a50f15", "#7a0177", "#e7298a", "#8c6d31", "#525252", "#bd9e39")
_MARKERS = "osD^vP*Xhd<>p"


def draw(measurements: Sequence[Measurement], ours: Sequence[str], conditions: Conditions, path: Path) -> None:
    """A picture of two panels, time and memory, and a legend in the order of the curves.

    Args:
        measurements: of one number of axes; at least one was timed.
        ours: the names of our networks among them; their curves are drawn through, those of peers dashed.
        conditions: they were made under.
        path: the PNG to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    dims = measurements[0].spatial_dims
    names = sorted(dict.fromkeys(each.network for each in measurements), key=lambda name: -_rank(measurements, name))
    styles = _styles(list(dict.fromkeys(each.network for each in measurements)), ours)
    figure, axes = plt.subplots(1, 2, figsize=(14, 6.4), layout="constrained")
    for name in names:
        mine = [each for each in measurements if each.network == name]
        times = [(each.voxels, each.time) for each in mine if each.time]
        peaks = [(each.voxels, each.peak_mib) for each in mine if each.peak_mib]
        exponent = exponent_of(measurements, name, dims)
        label = name if exponent is None else f"{name}   {exponent:.2f}"
        axes[0].plot(*zip(*times, strict=True), label=label, **styles[name]) if times else None
        axes[1].plot(*zip(*peaks, strict=True), **styles[name]) if peaks else None
    edges = sorted({each.edge for each in measurements})
    _dress(axes[0], dims, edges, f"{conditions.clock} for one output")
    _dress(axes[1], dims, edges, "peak memory beyond weights and input, MiB")
    fitted = FITTED_EDGES[dims]
    title = f"slowest first; growth with {'pixels' if dims == 2 else 'voxels'}, {fitted[0]} to {fitted[-1]}"
    figure.legend(loc="outside right center", title=title, frameon=False, fontsize=9, title_fontsize=9)
    where = "one thread" if conditions.device == "cpu" else "one GPU"
    figure.suptitle(
        f"{dims}D segmentation, full-size output, batch {conditions.batch}, {conditions.precision}, "
        f"{conditions.runtime}, {where}: ours drawn through, peers dashed",
        fontsize=11,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _rank(measurements: Sequence[Measurement], network: str) -> float:
    """The time at the largest size that most were timed at; the products stand in where there is none."""
    timed = [each for each in measurements if each.time]
    common = {each.edge: sum(other.edge == each.edge for other in timed) for each in timed}
    edge = max(common, key=lambda edge: (common[edge], edge)) if common else 0
    mine = [each.time for each in timed if each.network == network and each.edge == edge]
    return mine[0] or 0.0 if mine else 0.0


def _styles(names: Sequence[str], ours: Sequence[str]) -> dict[str, dict[str, object]]:
    """Colour, marker and line of each network, the same however many there are."""
    styles: dict[str, dict[str, object]] = {}
    counts = {True: 0, False: 0}
    for name in names:
        mine = name in ours
        number, palette = counts[mine], _OURS if mine else _PEERS
        counts[mine] += 1
        styles[name] = {
            "color": palette[number % len(palette)],
            "marker": _MARKERS[number % len(_MARKERS)],
            "linestyle": "-" if mine else "--",
            "markersize": 5,
            "linewidth": 1.6 if mine else 1.2,
        }
    return styles


def _dress(axes: Axes, dims: int, edges: Sequence[int], what: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([edge**dims for edge in edges], [f"{edge}{'²' if dims == 2 else '³'}" for edge in edges])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("pixels of the image" if dims == 2 else "voxels of the image")
    axes.set_title(what, fontsize=10)
    axes.grid(visible=True, which="major", color="0.85")
    axes.grid(visible=True, which="minor", axis="y", color="0.93")
    axes.spines[["top", "right"]].set_visible(False)
