"""A measurement in a process of its own, what it took in CPU and wall time, and the most memory it held."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from effvit_med.engine.allocation import keep_freed_memory

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "nnUNet_def_n_proc")


class ChildFailedError(RuntimeError):
    """The process of a measurement died: of an error, or because it needed more memory than there is."""


class Stopwatch:
    """Wall and CPU seconds by phase; the CPU time is that of all threads of the process."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to a phase.

        Args:
            name: of the phase.
        """
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[name] += time.perf_counter() - wall
            self.cpu[name] += time.process_time() - cpu

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its time added to a phase.

        Args:
            name: of the phase.
            function: any.
        """

        def timed(*args: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*args, **options)

        return timed

    def figures(self) -> dict[str, dict[str, float]]:
        """Both tables as plain values."""
        return {"wall": dict(self.wall), "cpu": dict(self.cpu)}


def peak_mib() -> float:
    """The most resident memory of this process so far, in MiB; on Linux without what its parent held before it."""
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def reset_peak() -> None:
    """Let `peak_mib` begin anew with what is held now, where the system can (Linux)."""
    if _CLEAR.exists():
        with contextlib.suppress(OSError):  # not allowed in some containers: the peak is then that of the process
            _CLEAR.write_text("5")


def run_alone(
    task: str, request: Mapping[str, Any], *, threads: int | None = 1, kept: bool = True, python: str = sys.executable
) -> dict[str, Any]:
    """What a function answers in a fresh process; the process's peak of memory and whole time are added.

    Args:
        task: ``module:function``; it takes plain values by name and gives plain values.
        request: these values.
        threads: of the processor, for every library; None for all cores.
        kept: whether freed memory is kept for the process, as the command line has it; else glibc's default.
        python: which interpreter.

    Returns:
        The answer, with ``peak_mib``, ``process_wall_s`` (from before the process was there), ``process_cpu_s``.

    Raises:
        ChildFailedError: if the process died; the message holds its last lines.
    """
    environment = {**os.environ, **(dict.fromkeys(_THREADS, str(threads)) if threads else {})}
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        words = [python, "-m", "benchmarks.engine_process", task, json.dumps(dict(request)), str(answer)]
        start = time.perf_counter()
        done = subprocess.run(
            [*words, "kept" if kept else "default"], env=environment, capture_output=True, text=True, check=False
        )
        taken = time.perf_counter() - start
        if done.returncode or not answer.exists():
            why = "killed, most likely for its memory" if done.returncode == -9 else f"exit code {done.returncode}"
            raise ChildFailedError(f"{task}: {why}\n{done.stderr[-2000:]}")
        found = json.loads(answer.read_text(encoding="utf-8"))
    return {**found, "process_wall_s": taken}


def _answer(task: str, request: str, answer: Path) -> None:
    module, _, function = task.partition(":")
    found = getattr(importlib.import_module(module), function)(**json.loads(request))
    found = {"peak_mib": peak_mib(), "process_cpu_s": time.process_time(), **found}
    answer.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[4] == "kept":
        keep_freed_memory()
    _answer(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
