"""What every benchmark says beside its figures: where, when, with what and by which command they were made."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from effvit_med.engine.record import library_versions

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Circumstances:
    """How figures came about.

    Attributes:
        command: the command line, with folders outside the repository reduced to their names.
        date: when, ISO 8601 in UTC.
        machine: processor, cores, memory and system; no name of the machine.
        load: how many processes wanted a processor in the minute before; above 1, others were at work too.
        versions: of effvit-med, Python and the libraries.
    """

    command: str
    date: str
    machine: str
    load: float
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_line(self) -> str:
        """One paragraph to stand under a table."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"`{self.command}`, {self.date}. {self.machine}; load before: {self.load:.1f}. {versions}."


def describe_circumstances(module: str, arguments: Sequence[str] | None = None) -> Circumstances:
    """The circumstances of this moment.

    Args:
        module: such as ``benchmarks.networks``.
        arguments: of the command line; by default those of this process.
    """
    words = [_shorten(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    return Circumstances(
        command=" ".join(["python -m", module, *words]),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=_describe_machine(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),
        versions=library_versions(),
    )


def make_table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A Markdown table whose first columns are text and whose others are figures.

    Args:
        head: the heads of the columns.
        rows: the cells of each row.
        texts: how many columns are text.

    Examples:
        >>> print(make_table(["name", "s"], [["read", "1.5"]]))
        | name | s |
        |---|---:|
        | read | 1.5 |
    """
    rule = "|".join(["---"] * texts + ["---:"] * (len(head) - texts))
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def write_report(name: str, text: str, figures: Mapping[str, Any], made: Circumstances, folder: Path = RESULTS) -> None:
    """Print a report and keep it as ``name.md``, its figures as ``name.json``.

    Args:
        name: stem of both files.
        text: Markdown.
        figures: plain values.
        made: the circumstances; they are added to both.
        folder: where to; made if it is not there.
    """
    text = f"{text.rstrip()}\n\n{made.to_line()}\n"
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    circumstances = {**vars(made), "versions": dict(made.versions)}
    content = json.dumps({**circumstances, **figures}, indent=2)
    (folder / f"{name}.json").write_text(content + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")


def _shorten(word: str) -> str:
    """A word of a command line; an absolute path, which may hold names of people, becomes its last part."""
    return Path(word).name if Path(word).is_absolute() else word


def _describe_machine() -> str:
    processor = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        models = [line.partition(":")[2].strip() for line in listing.read_text().splitlines() if "model name" in line]
        processor = models[0] if models else processor
    memory = "memory unknown"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    threads = torch.get_num_threads()
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    system = f"{platform.system()} {platform.machine()}"
    return f"{processor}, {os.cpu_count()} cores ({threads} used), {memory}{card}, {system}"


def kept_runs(name: str) -> list[dict[str, Any]]:
    """The runs that a report keeps so far; none if it was not written yet.

    Args:
        name: of the report, as `write_report` takes it.
    """
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []


def keep_runs(
    name: str,
    change: Callable[[list[dict[str, Any]]], Sequence[Mapping[str, Any]]],
    to_text: Callable[[Sequence[Mapping[str, Any]]], str],
    made: Circumstances,
) -> None:
    """Change the runs that a report keeps; other calls of the same benchmark wait meanwhile, so that none is lost.

    Args:
        name: of the report.
        change: gives the runs to keep in place of those that are there.
        to_text: gives the report of them.
        made: the circumstances.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    with FileLock(RESULTS / f".{name}.lock"):
        runs = json.loads(json.dumps(change(kept_runs(name))))  # as they come back from the file
        write_report(name, to_text(runs), {"runs": runs}, made)


def adding(*runs: Mapping[str, Any]) -> Callable[[list[dict[str, Any]]], Sequence[Mapping[str, Any]]]:
    """The change for `keep_runs` that adds runs.

    Args:
        *runs: plain values.

    Examples:
        >>> adding({"seed": 1})([{"seed": 0}])
        [{'seed': 0}, {'seed': 1}]
    """
    return lambda kept: [*kept, *runs]
