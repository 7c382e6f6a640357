"""The table and the picture of `benchmarks.batch`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import make_table

_COLOURS = {"parent": "#555555", "read": "#0072b2", "segment": "#d55e00", "write": "#009e73"}


def to_markdown(figures: Mapping[str, Any], picture: str) -> str:
    """The report.

    Args:
        figures: of the three runs.
        picture: file name of the plot.
    """
    steady, killed, faulty = figures["steady"], figures["killed"], figures["faulty"]
    stages = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in killed["stage_seconds"].items())
    rows = [
        [name, f"{each['first']:.0f}", f"{each['last']:.0f}", f"{100 * (each['last'] / each['first'] - 1):+.1f} %"]
        for name, each in steady["quarters"].items()
        if each["first"]
    ]
    memory = make_table(["Process", "first quarter, MiB", "last quarter, MiB", "change"], rows)
    again = killed["finished_cases_done_again"]
    return f"""# A batch of many small series

CT series of 16 x 32 x 32 voxels through the shipped network on a grid of 8 mm, one window a scan, one thread, on the
processor: reading, segmenting, DICOM SEG, tables, picture and record.

**Undisturbed**: {steady["series"]} series in {steady["seconds"]:.0f} s with loading the model,
**{steady["per_minute"]:.1f} series a minute**. Exit code {steady["exit_code"]}.

Memory of each process, over the samples in which all three are loaded:

{memory}

![Memory over time]({picture})

**Killed**: {killed["series"]} series; `kill -9` of the whole process group after {_join(killed["killed_after_cases"])}
finished cases, and the same command again each time; {killed["seconds"]:.0f} s in all, mean time of a case: {stages}.
At the end: exit code {killed["exit_code"]}, {killed["rows"]} rows in the manifest ({_count(killed["statuses"])}),
{killed["whole"]} with every file whole, **{again} finished cases done again**, {killed["hidden_left"]} hidden
files left.

**Faults**: of 50 series one raises, one crashes its process, one asks for too much memory:
{_count(faulty["statuses"])}; exit code {faulty["exit_code"]}.

{_list(faulty["failed"])}
"""


def draw_memory(figures: Mapping[str, Any], path: Path) -> None:
    """Draw the memory of each process over the time of the runs.

    Args:
        figures: with samples under ``memory``.
        path: the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1)
    _draw(above, [figures["steady"]["memory"]], "undisturbed")
    _draw(below, figures["killed"]["memory"], f"killed {len(figures['killed']['memory']) - 1} times")
    figure.savefig(path, dpi=110)


def _draw(axes: Any, segments: Sequence[Sequence[tuple[float, Mapping[str, float]]]], title: str) -> None:
    for name, colour in _COLOURS.items():
        for number, samples in enumerate(segments):
            times = [seconds for seconds, values in samples if name in values]
            memory = [values[name] for _, values in samples if name in values]
            axes.plot(times, memory, color=colour, label=name if number == 0 else None, linewidth=1)
    axes.set(title=title, xlabel="seconds", ylabel="MiB")
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right", ncols=4, fontsize="small")


def _join(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _count(statuses: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in statuses.items())


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
