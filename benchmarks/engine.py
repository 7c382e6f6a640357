"""How long a CT of 300 slices of 512 x 512 takes from files to files, phase by phase, and how much memory.

Run from the repository's root: ``python -m benchmarks.engine`` (``--shape 300 512 512``, ``--repeats 3``). Every
repeat runs in a process of its own, as a call of the command line does; the scan lies in a temporary folder. The
medians over the repeats are kept. "Outside the network" is everything but the network's own pass over the tiles.
"""

from __future__ import annotations

import argparse
import inspect
import multiprocessing
import pkgutil
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.report import describe_circumstances, make_table, write_report
from benchmarks.scans import Shape, attach_labels, make_large_scan, write_series
from effvit_med.engine import Job, Segmenter, Settings, read_model, segment_input
from effvit_med.io import SegOptions, open_input, read_case, write_dicom_seg

SPACING_MM = (1.0, 0.8, 0.8)
TEMPLATE = Path(__file__).parents[1] / "sample_data" / "ct_axial" / "IM0001.dcm"
NETWORK = "network"
ALL = "all"

PARTS = (
    ("find files, read headers", "effvit_med.engine.batch", "open_input"),
    ("read pixels", "effvit_med.engine.batch", "read_case"),
    ("prepare", "effvit_med.engine.segmenter", "prepare"),
    (NETWORK, "effvit_med.engine.segmenter", "score_volume"),
    ("label", "effvit_med.engine.segmenter", "label_grid"),
    ("check labels", "effvit_med.volume:Segmentation", "__post_init__"),
    ("measure", "effvit_med.engine.batch", "measure"),
    ("write DICOM SEG", "effvit_med.engine.batch", "write_dicom_seg"),
    ("write NIfTI", "effvit_med.engine.batch", "write_nifti"),
    ("write tables", "effvit_med.engine.batch", "write_measurements_csv"),
    ("write tables", "effvit_med.engine.batch", "write_measurements_json"),
    ("write overlay", "effvit_med.engine.batch", "write_overlay"),
    ("write record", "effvit_med.engine.batch", "write_record"),
)
"""Phase, module or class, and the name in it through which the engine calls it."""


class Stopwatch:
    """Wall and CPU seconds by phase; the CPU time is that of all threads of the process."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to a phase."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall[name] += time.perf_counter() - wall
            self.cpu[name] += time.process_time() - cpu

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its time added to a phase; of one made by ``contextmanager``, the time to enter."""
        is_context = inspect.isgeneratorfunction(inspect.unwrap(function))

        @wraps(function)
        def timed(*args: Any, **options: Any) -> Any:
            with self.phase(name):
                result = function(*args, **options)
                if not is_context:
                    return result
                stack = ExitStack()
                entered = stack.enter_context(result)
            return _entered(stack, entered)

        return timed

    @contextmanager
    def watching(self, parts: Sequence[tuple[str, str, str]]) -> Iterator[None]:
        """Time the named functions of the engine within the block."""
        with ExitStack() as stack:
            for name, where, function in parts:
                holder = pkgutil.resolve_name(where)
                stack.enter_context(patch.object(holder, function, self.wrap(name, getattr(holder, function))))
            yield


@contextmanager
def _entered(stack: ExitStack, value: Any) -> Iterator[Any]:
    with stack:
        yield value


@dataclass(frozen=True)
class Run:
    """One repeat.

    Attributes:
        wall: seconds by phase; ``all`` is the whole, without loading the model.
        cpu: CPU seconds by phase, of all threads.
        steps: wall seconds by phase as the record of the case says them.
        loaded_gib: the largest resident memory of the process before the scan was touched: Python, torch, the model.
        peak_gib: the same at the end.
    """

    wall: Mapping[str, float]
    cpu: Mapping[str, float]
    steps: Mapping[str, float]
    loaded_gib: float
    peak_gib: float


def peak_memory_gib() -> float:
    """The largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def write_scan(folder: Path, shape: Shape, seed: int) -> float:
    """Write the scan as DICOM into ``folder/ct`` and its exact labels as ``labels.npy``; returns the size in MB."""
    volume, labels = make_large_scan(shape, SPACING_MM, seed)
    write_series(volume, TEMPLATE, folder / "ct")
    np.save(folder / "labels.npy", labels)
    return sum(path.stat().st_size for path in (folder / "ct").iterdir()) / 1e6


def time_path(folder: Path, settings: Settings, bundle: Path | None) -> Run:
    """Time the whole path once, in this process.

    Raises:
        RuntimeError: if the scan was not segmented.
    """
    watch = Stopwatch()
    with watch.phase("load the model"):
        segmenter = Segmenter(read_model(bundle), settings)
    loaded_gib = peak_memory_gib()
    with tempfile.TemporaryDirectory() as output, watch.watching(PARTS), watch.phase(ALL):
        result = segment_input(folder / "ct", Path(output), segmenter, Job())
    case = result.cases[0]
    if case.status != "segmented":
        raise RuntimeError(f"{case.status}: {case.code} {case.message}")
    return Run(dict(watch.wall), dict(watch.cpu), dict(case.seconds), loaded_gib, peak_memory_gib())


def time_alone(folder: Path, settings: Settings, bundle: Path | None) -> Run:
    """Time reading, and writing the exact labels as DICOM SEG of both kinds, without any network."""
    table = read_model(bundle).labels
    if settings.threads:
        torch.set_num_threads(settings.threads)
    watch, loaded_gib = Stopwatch(), peak_memory_gib()
    with watch.phase("read only"), open_input(folder / "ct") as found:
        volume = read_case(found.cases[0])
    segmentation = attach_labels(volume, np.load(folder / "labels.npy"), table)
    with tempfile.TemporaryDirectory() as output:
        with watch.phase("write SEG only, binary"):
            write_dicom_seg(segmentation, Path(output) / "binary.dcm", SegOptions("binary"))
        with watch.phase("write SEG only, labelmap"):
            write_dicom_seg(segmentation, Path(output) / "labelmap.dcm", SegOptions("labelmap"))
    return Run(dict(watch.wall), dict(watch.cpu), {}, loaded_gib, peak_memory_gib())


def run_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The answer of a function in a fresh process, whose memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def take_medians(runs: Sequence[Run]) -> Run:
    """The median of each phase over the repeats; of the memory the largest."""

    def medians(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
        return {name: statistics.median(table[name] for table in tables) for name in tables[0]}

    return Run(
        wall=medians([run.wall for run in runs]),
        cpu=medians([run.cpu for run in runs]),
        steps=medians([run.steps for run in runs]),
        loaded_gib=max(run.loaded_gib for run in runs),
        peak_gib=max(run.peak_gib for run in runs),
    )


def outside_network(seconds: Mapping[str, float]) -> float:
    """What the whole takes without the network."""
    return seconds[ALL] - seconds[NETWORK]


def to_markdown(shape: Shape, megabytes: float, path: Run, alone: Run, repeats: int) -> str:
    """The tables and the sentence that people ask for."""
    phases = [name for name in dict.fromkeys(part[0] for part in PARTS) if name in path.wall]
    rest = {kind: table[ALL] - sum(table[name] for name in phases) for kind, table in _both(path).items()}
    rows = [[name, *(f"{table[name]:.2f}" for table in _both(path).values())] for name in phases]
    rows.append(["everything else", f"{rest['wall']:.2f}", f"{rest['cpu']:.2f}"])
    outside = {kind: outside_network(table) for kind, table in _both(path).items()}
    rows.append(["**all**", *(f"**{table[ALL]:.2f}**" for table in _both(path).values())])
    rows.append(["**outside the network**", f"**{outside['wall']:.2f}**", f"**{outside['cpu']:.2f}**"])
    own = [[name, f"{alone.wall[name]:.2f}", f"{alone.cpu[name]:.2f}"] for name in alone.wall]
    own.append(["load the model", f"{path.wall['load the model']:.2f}", f"{path.cpu['load the model']:.2f}"])
    head = ["phase", "wall s", "CPU s"]
    size = " x ".join(map(str, shape))
    return "\n".join(
        [
            "# Engine: one large CT from DICOM files to results",
            "",
            (
                f"{size} voxels, {megabytes:.0f} MB of uncompressed DICOM; out come DICOM SEG (binary), NIfTI, tables, "
                f"overlay and record. Median of {repeats} repeats, each in a fresh process."
            ),
            "",
            make_table(head, rows),
            "",
            (
                f"{outside['wall']:.1f} s of {path.wall[ALL]:.1f} s ({100 * outside['wall'] / path.wall[ALL]:.0f} %) "
                f"are spent outside the network. Peak memory of the process: {path.peak_gib:.2f} GiB; "
                f"{path.loaded_gib:.2f} GiB of that before the scan is touched."
            ),
            "",
            "On their own, without the network; the labels are the exact ones:",
            "",
            make_table(head, own),
        ]
    )


def _both(run: Run) -> dict[str, Mapping[str, float]]:
    return {"wall": run.wall, "cpu": run.cpu}


def main() -> None:
    """Makes the scan, measures, prints the tables and writes them into results/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), help="slices, rows, columns")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the phantom")
    parser.add_argument("--threads", type=int, help="processor threads; all cores if not given")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle; the shipped one if not given")
    options = parser.parse_args()
    shape: Shape = tuple(options.shape)
    settings = Settings.from_values(device="cpu", threads=options.threads)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    made = describe_circumstances("benchmarks.engine")
    with tempfile.TemporaryDirectory(prefix="effvit-med-bench-") as name:
        folder = Path(name)
        megabytes = run_apart(write_scan, folder, shape, options.seed)
        runs = [run_apart(time_path, folder, settings, options.bundle) for _ in range(options.repeats)]
        alone = [run_apart(time_alone, folder, settings, options.bundle) for _ in range(options.repeats)]
    path, own = take_medians(runs), take_medians(alone)
    figures = {
        "shape": shape,
        "spacing_mm": SPACING_MM,
        "megabytes": megabytes,
        "weights_sha256": read_model(options.bundle).weights_sha256,
        "median": asdict(path),
        "outside_network_wall_s": outside_network(path.wall),
        "outside_network_cpu_s": outside_network(path.cpu),
        "alone": asdict(own),
        "runs": [asdict(run) for run in runs],
    }
    write_report("engine", to_markdown(shape, megabytes, path, own, options.repeats), figures, made)


if __name__ == "__main__":
    main()
