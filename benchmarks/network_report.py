"""What the measurements of the networks say: tables, ratios, the growth with size, and the targets."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.network_list import OUT_CHANNELS, REFERENCE
from benchmarks.network_measuring import Conditions, Measurement
from benchmarks.report import make_table

#: The networks whose cost is to grow with the pixels, no faster.
LINEAR = ("EfficientViT-B0", "EfficientViT-B1", "EfficientViT-B2")

#: The sizes over which growth is fitted, by the number of axes.
FITTED_EDGES = {2: (512, 1024, 2048), 3: (64, 96, 128, 160)}


@dataclass(frozen=True)
class Target:
    """A ratio of times that we set out to reach.

    Attributes:
        spatial_dims: 2 or 3; ours is the reference of that number of axes.
        edge: of the image.
        peer: the network that ours is to outrun.
        times: how many times.
    """

    spatial_dims: int
    edge: int
    peer: str
    times: float


TARGETS = (
    Target(2, 1024, "MONAI DynUNet (nnU-Net)", 10),
    Target(2, 1024, "MONAI SwinUNETR-48", 20),
    Target(3, 128, "MONAI DynUNet (nnU-Net)", 15),
    Target(3, 128, "MONAI SwinUNETR-48", 40),
)
LARGEST_EXPONENT = 1.10


def fit_exponent(points: Sequence[tuple[int, float]]) -> float | None:
    """The slope of log time over log voxels by least squares: 1 where time grows as the voxels do.

    Args:
        points: voxels and seconds.

    Returns:
        None for fewer than two sizes.

    Examples:
        >>> round(fit_exponent([(10, 1.0), (100, 10.0), (1000, 100.0)]), 6)
        1.0
    """
    if len({voxels for voxels, _ in points}) < 2:
        return None
    x = [math.log(voxels) for voxels, _ in points]
    y = [math.log(seconds) for _, seconds in points]
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    return above / sum((a - middle_x) ** 2 for a in x)


def exponent_of(
    measurements: Sequence[Measurement], network: str, spatial_dims: int, *, fresh: bool = False
) -> float | None:
    """How the time of a network grows over the fitted sizes; None unless all of them were measured.

    Args:
        measurements: of all networks.
        network: its name.
        spatial_dims: 2 or 3.
        fresh: over the times of the fresh process, of the default allocator.
    """
    mine = [each for each in _of(measurements, spatial_dims) if each.network == network]
    points = []
    for each in mine:
        seconds = each.fresh_time if fresh else each.time
        if each.edge in FITTED_EDGES[spatial_dims] and seconds:
            points.append((each.voxels, seconds))
    return fit_exponent(points) if len(points) == len(FITTED_EDGES[spatial_dims]) else None


def ratio_of(measurements: Sequence[Measurement], target: Target) -> float | None:
    """How many times longer the peer of a target takes than our reference; None where one was not measured."""
    times = {each.network: each.time for each in _of(measurements, target.spatial_dims) if each.edge == target.edge}
    ours, theirs = times.get(REFERENCE[target.spatial_dims]), times.get(target.peer)
    return theirs / ours if ours and theirs else None


def list_headlines(measurements: Sequence[Measurement], ours: Sequence[str]) -> list[list[str]]:
    """What was aimed at, what was measured, and whether that is enough.

    Args:
        measurements: of all networks.
        ours: the names of our 2D networks.
    """
    rows = []
    for target in TARGETS:
        ratio = ratio_of(measurements, target)
        what = f"{REFERENCE[target.spatial_dims]} at {_size(target.spatial_dims, target.edge)} against {target.peer}"
        reached = "not measured" if ratio is None else "reached" if ratio >= target.times else "missed"
        rows.append([what, _or_dash(ratio, ".1f", "x"), f"at least {target.times:.0f}x", reached])
    growth = "growth of time with pixels, 512 to 2048"
    for name in LINEAR:
        exponent = exponent_of(measurements, name, 2)
        reached = "not measured" if exponent is None else "reached" if exponent <= LARGEST_EXPONENT else "missed"
        rows.append([f"{growth}, {name}", _or_dash(exponent, ".3f"), f"at most {LARGEST_EXPONENT:.2f}", reached])
    exponents = {name: exponent_of(measurements, name, 2) for name in ours}
    known = {name: exponent for name, exponent in exponents.items() if exponent is not None}
    if known:
        worst = max(known, key=lambda name: known[name])
        rows.append([f"{growth}, {worst}, the largest of ours", f"{known[worst]:.3f}", "none", "-"])
    return rows


def to_markdown(measurements: Sequence[Measurement], conditions: Conditions, ours: Sequence[str]) -> str:
    """Everything as Markdown.

    Args:
        measurements: of all networks.
        conditions: they were made under.
        ours: the names of our 2D networks.
    """
    lines = ["# Networks: what one full-resolution output costs", "", _explain(conditions), ""]
    lines += [make_table(["aim", "measured", "target", ""], list_headlines(measurements, ours)), ""]
    for dims in sorted({each.spatial_dims for each in measurements}):
        lines += _tables(_of(measurements, dims), dims, conditions)
    return "\n".join(lines)


def _explain(conditions: Conditions) -> str:
    threads = "one thread" if conditions.device == "cpu" else "one GPU"
    allocator = {
        "kept": "freed memory kept by the process, as the command line has it (`engine.allocation`)",
        "default": "glibc's allocator as it is",
    }[conditions.allocator]
    return (
        f"{conditions.clock}, {threads}, {conditions.precision}, {conditions.runtime}, 1 channel in, {OUT_CHANNELS} "
        f"classes out at full size, batch {conditions.batch}. Median of up to 7 calls in turns in one process, at "
        f"least 2 where a call is long, each right after an untimed one where it is short; {allocator}, for all alike. "
        "Ours with batch normalisation folded and maps channels-last, as the product runs them; peers as shipped. "
        "EfficientViT without a stride named has the published head of stride 8, SegFormer one of stride 4; both are "
        "interpolated to full size within the time. Memory is the peak in a fresh process for each network, eager, "
        "with the default allocator, beyond weights and input. Random weights: cost only, no accuracy."
    )


def _tables(measurements: Sequence[Measurement], dims: int, conditions: Conditions) -> list[str]:
    """The tables of one number of axes."""
    reference = {each.edge: each.time for each in measurements if each.network == REFERENCE[dims]}

    def ratio(each: Measurement) -> str:
        ours = reference.get(each.edge)
        return _or_dash(each.time / ours if each.time and ours else None, ".2f")

    names = list(dict.fromkeys(each.network for each in measurements))
    exponents = {
        name: [
            _or_dash(exponent_of(measurements, name, dims), ".2f"),
            _or_dash(exponent_of(measurements, name, dims, fresh=True), ".2f"),
        ]
        for name in names
    }
    parameters = {name: [_parameters(measurements, name)] for name in names}
    fitted = f"{FITTED_EDGES[dims][0]} to {FITTED_EDGES[dims][-1]}"
    growth = [f"growth {fitted}", "growth, default allocator, fresh process"]
    lines = [f"## {dims}D: {conditions.clock}", ""]
    lines += [_grid(measurements, lambda each: _or_dash(each.time, "#.3g"), growth, exponents), ""]
    lines += [f"## {dims}D: times {REFERENCE[dims]}", "", _grid(measurements, ratio), ""]
    lines += [f"## {dims}D: peak memory, MiB", ""]
    lines += [_grid(measurements, lambda each: _or_dash(each.peak_mib, ".0f")), ""]
    lines += [f"## {dims}D: GFLOP (2 for each product)", ""]
    lines += [_grid(measurements, lambda each: _or_dash(each.gflops or None, ".1f"), ["parameters"], parameters), ""]
    return lines


def _grid(
    measurements: Sequence[Measurement],
    show: Callable[[Measurement], str],
    heads: Sequence[str] = (),
    further: dict[str, list[str]] | None = None,
) -> str:
    """Networks down, sizes across, then further columns; a size that was left out says why."""
    dims = measurements[0].spatial_dims
    edges = sorted({each.edge for each in measurements})
    cells = {(each.network, each.edge): show(each) for each in measurements}
    for each in measurements:
        if each.skipped and cells[each.network, each.edge] == "-":
            cells[each.network, each.edge] = each.skipped
    rows = [
        [name, *(cells.get((name, edge), "-") for edge in edges), *(further or {}).get(name, [])]
        for name in dict.fromkeys(each.network for each in measurements)
    ]
    return make_table(["network", *(_size(dims, edge) for edge in edges), *heads], rows)


def _of(measurements: Sequence[Measurement], spatial_dims: int) -> list[Measurement]:
    return [each for each in measurements if each.spatial_dims == spatial_dims]


def _parameters(measurements: Sequence[Measurement], network: str) -> str:
    counts = sorted({each.parameters for each in measurements if each.network == network})
    return " to ".join(f"{count / 1e6:.2f}" for count in counts[:: max(1, len(counts) - 1)]) + " M"


def _size(spatial_dims: int, edge: int) -> str:
    return f"{edge}{'²' if spatial_dims == 2 else '³'}"


def _or_dash(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}".rstrip(".") + unit
