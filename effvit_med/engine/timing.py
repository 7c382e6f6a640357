"""How long a case takes, step by step: cold, as the first of a process, and warm, as any after it."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from effvit_med.engine.batch import segment_input
from effvit_med.engine.results import Job
from effvit_med.engine.segmenter import Progress, Segmenter
from effvit_med.engine.stages import CaseResult
from effvit_med.errors import InputError

START, FIND, ALL, NETWORK = "start program", "find", "all", "network"


@dataclass(frozen=True)
class StepTimes:
    """One step.

    Attributes:
        step: its name as in the record; ``all`` is the whole, ``outside network`` all but the network.
        cold_wall_s: seconds in the first run.
        cold_cpu_s: processor seconds of all threads in the first run.
        warm_wall_s: median over the other runs.
        warm_cpu_s: the same for the processor.
    """

    step: str
    cold_wall_s: float
    cold_cpu_s: float
    warm_wall_s: float
    warm_cpu_s: float


@dataclass(frozen=True)
class CaseTimes:
    """A case, timed.

    Attributes:
        case_id: its name.
        rows: the steps in their order, then sums.
        peak_gib: the largest memory of the process.
    """

    case_id: str
    rows: tuple[StepTimes, ...]
    peak_gib: float

    @property
    def network_share(self) -> float:
        """The network's share of the warm wall time."""
        seconds = {row.step: row.warm_wall_s for row in self.rows}
        return seconds[NETWORK] / seconds[ALL]

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {"case": self.case_id, "peak_gib": round(self.peak_gib, 3), "steps": [asdict(row) for row in self.rows]}


def time_case(
    source: Path, segmenter: Segmenter, runs: int = 3, progress: Progress | None = None, job: Job | None = None
) -> CaseTimes:
    """Segment the first case of an input several times, from files to files.

    The first run is cold only if nothing ran in this process before: to its steps belong the start of the program and
    the loading of the model.

    Args:
        source: a folder, a file or a zip archive.
        segmenter: the model, just loaded.
        runs: how many, at least 2.
        progress: called as progress(phase, done, total).
        job: what to write; everything that fits if None.

    Raises:
        InputError: if the input has no case, or the case is refused or fails; the message says why.
        OutputError: if the temporary folder takes no results.
    """
    begun = {START: (time.time() - psutil.Process().create_time(), time.process_time())}
    found = [_run(source, segmenter, job or Job(), progress) for _ in range(runs)]
    case_id = found[0][0].case_id
    times = [{**({} if number else begun), **_steps(*run)} for number, run in zip(range(runs), found, strict=True)]
    names = list(dict.fromkeys(name for run in times for name in run))
    rows = [_row(name, times) for name in names]
    whole = _sum(ALL, rows)
    outside = _sum("outside network", [row for row in rows if row.step != NETWORK])
    return CaseTimes(case_id, (*rows, outside, whole), _peak_gib())


def _run(
    source: Path, segmenter: Segmenter, job: Job, progress: Progress | None
) -> tuple[CaseResult, tuple[float, float]]:
    with tempfile.TemporaryDirectory(prefix="effvit-med-") as folder:
        finding: list[tuple[float, float]] = []
        wall, cpu = time.perf_counter(), time.process_time()

        def stop_finding(*_: object) -> None:
            finding.append((time.perf_counter() - wall, time.process_time() - cpu))

        result = segment_input(source, Path(folder), segmenter, job, on_case=stop_finding, progress=progress)
    if not result.cases or result.cases[0].status != "segmented":
        why = result.cases[0].message if result.cases else "it holds no case"
        raise InputError(f"{source} cannot be timed: {why}")
    return result.cases[0], finding[0]


def _steps(case: CaseResult, finding: tuple[float, float]) -> dict[str, tuple[float, float]]:
    return {FIND: finding} | {name: (case.seconds[name], case.cpu_seconds[name]) for name in case.seconds}


def _row(name: str, times: list[dict[str, tuple[float, float]]]) -> StepTimes:
    cold, *warm = (run.get(name, (0.0, 0.0)) for run in times)
    walls, cpus = zip(*warm, strict=True)
    return StepTimes(name, *cold, statistics.median(walls), statistics.median(cpus))


def _sum(name: str, rows: list[StepTimes]) -> StepTimes:
    sums: Mapping[str, float] = {
        field: sum(getattr(row, field) for row in rows)
        for field in ("cold_wall_s", "cold_cpu_s", "warm_wall_s", "warm_cpu_s")
    }
    return StepTimes(name, **sums)


def _peak_gib() -> float:
    """The largest resident memory of this process so far; what it holds now where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float(psutil.Process().memory_info().rss) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
