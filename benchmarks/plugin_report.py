"""The report of a sitting with the plugin: what was asked for, who kept the window for how long, what a click took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.plugin_clock import LIMIT_MS, TICK_MS
from benchmarks.report import make_table

CLICK_MS = 300.0
START_S = 1.0

_HEAD = (
    "A generated CT of {size} voxels as a DICOM series, the shipped model, napari with a window of its own. Where the "
    "machine has no graphics card, the canvas is drawn by the processor, on the thread of the window."
)
_WINDOW = (
    f"A timer of the window goes off every {TICK_MS} ms; what is told are the times from one tick to the next. "
    "*Drawing* is napari's canvas, *garbage* Python's search for it, beside which nothing else runs. A *thread* that "
    "only sleeps, in the same process, is late where the interpreter is locked; *another process* that only sleeps is "
    "late where the machine has too much to do."
)
_OURS = (
    "Each time that the thread of the window was in a method of the plugin, until it came out, with all that it "
    "called. *Without napari* leaves out making layers, refreshing them and moving the slider."
)
_CLICKS = (
    "Clicks into balls that were taken from structures or given to them: until the labels layer is refreshed, and "
    "until the canvas has shown it. *At rest* nothing else was under way; the others came one after another, while "
    "doubts were looked for."
)
_WINDOW_COLUMNS = ("phase", "s", "p50 ms", "p95", "p99", "longest", "drawing p50", "longest", "garbage longest",
                   "thread longest", "another process longest")  # fmt: skip
_OURS_COLUMNS = ("phase", "times", "p50 ms", "p95", "p99", "longest", f"over {LIMIT_MS:.0f} ms",
                 "without napari: p99", "longest", f"over {LIMIT_MS:.0f} ms")  # fmt: skip
_CLICK_COLUMNS = ("clicks", "times", "computing p50 ms", "p95", "overlay p50", "p95", "longest", "shown p50", "p95")


def to_markdown(shape: Sequence[int], starts: Sequence[Mapping[str, Any]], noted: Mapping[str, Any]) -> str:
    """The report.

    Args:
        shape: of the scan.
        starts: of `measure_start`.
        noted: of `measure_sitting`.
    """
    phases: Mapping[str, Mapping[str, Any]] = noted["phases"]
    size = " x ".join(map(str, shape))
    parts = [
        "# The plugin: what keeps the window, what a click takes",
        _HEAD.format(size=size),
        _judge(starts, noted),
        "## The window",
        _WINDOW,
        make_table(_WINDOW_COLUMNS, (_window_row(name, phase) for name, phase in phases.items())),
        "## The part of it that is ours",
        _OURS,
        make_table(_OURS_COLUMNS, (_ours_row(name, phase) for name, phase in phases.items())),
        "The longest of them, and what took most of it (ms):",
        make_table(["phase", "call", "ms", "CPU ms", "most of it"], _slow_rows(noted["slow"]), texts=2),
        "## From the click to the changed picture",
        _CLICKS,
        make_table(_CLICK_COLUMNS, _click_rows(noted["clicks"])),
        "## Once, and memory",
        make_table(["what", "s"], ([name, f"{value:.2f}"] for name, value in noted["seconds"].items())),
        make_table(["when", "MiB"], ([name, f"{value:.0f}"] for name, value in noted["memory_mib"].items())),
        f"At most {max(phase['peak_mib'] for phase in phases.values()):.0f} MiB.",
    ]
    return "\n\n".join(parts)


def _judge(starts: Sequence[Mapping[str, Any]], noted: Mapping[str, Any]) -> str:
    """What was asked for, and what came."""
    busy = [phase for name, phase in noted["phases"].items() if not name.startswith(("idle", "opening", "closing"))]
    ours = [ms for phase in busy for ms in phase["ours_ms"]]
    own = [ms - napari for phase in busy for ms, napari in zip(phase["ours_ms"], phase["napari_ms"], strict=True)]
    start = float(np.median([each["import_s"] + each["panel_s"] for each in starts]))
    torch = any(each["torch"] for each in starts)
    overlay = float(np.percentile([click["overlay_ms"] for click in noted["clicks"]], 95))
    rows = [
        ["kept by us but for opening, p99 ms", f"{LIMIT_MS:.0f}", f"{np.percentile(ours, 99):.1f}"],
        ["the same without napari's work, p99 ms", f"{LIMIT_MS:.0f}", f"{np.percentile(own, 99):.1f}"],
        ["the same, longest ms", f"{LIMIT_MS:.0f}", f"{max(own):.1f}"],
        ["click to overlay, p95 ms", f"{CLICK_MS:.0f}", f"{overlay:.0f}"],
        ["start of the plugin, s" + (" (TORCH WAS IMPORTED)" if torch else ""), f"{START_S:.1f}", f"{start:.2f}"],
        ["start of napari before it, s", "", f"{np.median([each['napari_s'] for each in starts]):.2f}"],
    ]
    return make_table(["what", "at most", "measured"], rows)


def _window_row(name: str, phase: Mapping[str, Any]) -> list[str]:
    drawn = phase["drawn_ms"]
    late = [_longest(phase[key]) for key in ("garbage_ms", "thread_ms", "outer_ms")]
    drawing = [f"{np.median(drawn):.0f}", _longest(drawn)] if drawn else ["", ""]
    return [name, f"{phase['seconds']:.1f}", *_quantiles(phase["gaps_ms"]), *drawing, *late]


def _ours_row(name: str, phase: Mapping[str, Any]) -> list[str]:
    ours = phase["ours_ms"]
    own = [max(0.0, ms - napari) for ms, napari in zip(ours, phase["napari_ms"], strict=True)]
    over = [str(sum(ms > LIMIT_MS for ms in each)) for each in (ours, own)]
    return [name, str(len(ours)), *_quantiles(ours), over[0], *_quantiles(own)[2:], over[1]]


def _slow_rows(slow: Iterable[Mapping[str, Any]], most: int = 15) -> list[list[str]]:
    """The longest call of each kind in each phase."""
    longest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for each in slow:
        key = (each["phase"], each.get("name", ""))
        if each["what"] == "call" and (key not in longest or each["ms"] > longest[key]["ms"]):
            longest[key] = each
    rows = sorted(longest.values(), key=lambda each: -each["ms"])[:most]
    return [[each["phase"], each["name"], f"{each['ms']:.0f}", f"{each['cpu_ms']:.0f}",
             ", ".join(f"{name} {ms:.0f}" for name, ms in list(each["within"].items())[:3])]
            for each in rows]  # fmt: skip


def _click_rows(clicks: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    groups = {"all": clicks}
    for name, at_rest in (("at rest", True), ("one after another", False)):
        groups[name] = [click for click in clicks if click["at_rest"] == at_rest]
    rows = []
    for name, group in groups.items():
        if group:
            computed, overlay = ([click[key] for click in group] for key in ("computed_ms", "overlay_ms"))
            shown = [click["painted_ms"] for click in group if click["painted_ms"] is not None]
            figures = [*np.percentile(computed, [50, 95]), *np.percentile(overlay, [50, 95, 100])]
            figures += list(np.percentile(shown, [50, 95])) if shown else [float("nan")] * 2
            rows.append([name, str(len(group)), *(f"{figure:.0f}" for figure in figures)])
    return rows


def _quantiles(values: Sequence[float]) -> list[str]:
    if not values:
        return [""] * 4
    return [f"{value:.1f}" for value in np.percentile(values, [50, 95, 99, 100])]


def _longest(values: Sequence[float]) -> str:
    return f"{max(values):.0f}" if values else ""


def summarise(noted: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of the notes of a sitting: lists of thousands of ticks become their quantiles."""
    marks = (50, 95, 99, 100)
    phases = {
        name: {
            key: dict(zip(("p50", "p95", "p99", "longest"), np.percentile(value, marks).round(2).tolist(), strict=True))
            | {"times": len(value)}
            if isinstance(value, list) and value
            else value
            for key, value in phase.items()
        }
        for name, phase in noted["phases"].items()
    }
    slow = [{key: value for key, value in each.items() if key != "stack"} for each in noted["slow"]]
    return {**noted, "phases": phases, "slow": slow}
