"""What a case costs beyond its own work: in a batch on this machine, on a dask worker, and in a task of a SLURM array.

Run from the repository's root: ``python -m benchmarks.cluster``. Small NIfTI volumes go through a threshold in place of
a network, so that nearly all of the time is the machinery's. Each way is run with a few and with many cases; the slope
is the cost of a case, the rest that of starting. SLURM is measured where ``sbatch`` reaches a controller, such as
inside of ``tests/cluster/one_node_slurm.sh``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.batch import BatchOptions, Shard, Stages, run_batch
from effvit_med.cluster import ArrayOptions, run_on_scheduler, submit_array, wait_for_array
from effvit_med.cluster.shard_states import read_states, slurm_folder
from effvit_med.engine import Job
from effvit_med.engine.stages import Scan, Task, segment_stage
from effvit_med.errors import EffvitError
from effvit_med.volume import Code, Label, LabelTable, Provenance, Segmentation, Volume

EDGE = 24
TABLE = LabelTable((Label(1, "bright", Code("T-1", "99BENCH", "Bright")),))
STAGES = Stages(segment="benchmarks.cluster:make_threshold")

Run = Callable[[Path, Path], int]


@dataclass(frozen=True)
class Cost:
    """What one way costs.

    Attributes:
        way: its name.
        few_s: wall time of the run with few cases.
        many_s: wall time of the run with many.
        case_s: seconds for each further case.
        start_s: seconds before and after them.
    """

    way: str
    few_s: float
    many_s: float
    case_s: float
    start_s: float


class Threshold:
    """Labels what is above zero."""

    def __init__(self) -> None:
        self.about = {"bundle": "threshold", "bundle_version": "1", "weights_sha256": "0" * 64, "device": "cpu"}

    def __call__(self, task: Task, scan: Scan, *, progress: Callable[[str, int, int], None]) -> Segmentation:
        """The stage of the pipeline."""
        del progress
        return segment_stage(task, scan, self)  # type: ignore[arg-type]

    def segment(self, volume: Volume, progress: Any, cancelled: Any) -> Segmentation:
        """The segmentation of one volume."""
        del progress, cancelled
        started = datetime.now(UTC).isoformat(timespec="seconds")
        made = Provenance("threshold", "1", "0" * 64, {}, {"effvit-med": "0"}, "cpu", started, source=volume.source)
        return Segmentation((volume.array > 0).astype(np.uint8), volume.geometry, TABLE, made)


def make_threshold(options: BatchOptions) -> Threshold:
    """The segmenting stage."""
    del options
    return Threshold()


def write_cases(folder: Path, count: int) -> Path:
    """Small volumes of noise.

    Args:
        folder: where to; made here.
        count: how many.
    """
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        values = random.normal(size=(EDGE, EDGE, EDGE)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.eye(4)), folder / f"case{number:04d}.nii.gz")
    return folder


def run_here(source: Path, output: Path, shard: Shard | None = None) -> int:
    """A batch on this machine."""
    options = BatchOptions(job=Job(output_types=("nifti",)), stages=STAGES, shard=shard)
    return run_batch(source, output, options).exit_code


def run_on_array(source: Path, output: Path) -> int:
    """A SLURM array of one shard, from submitting to its end."""
    command = (sys.executable, "-m", "benchmarks.cluster", "--task", str(source), str(output))
    wait_for_array(submit_array(command, output, ArrayOptions(1, time_min=60)), poll_s=0.1)
    state = read_states(slurm_folder(output), 1).get(1)
    return 75 if state is None or state.exit_code is None else state.exit_code


def measure(way: str, run: Run, folder: Path, few: int, many: int) -> Cost:
    """Run one way with few and with many cases.

    Args:
        way: its name.
        run: does a batch and gives its exit code.
        folder: that holds ``few`` and ``many``.
        few: how many cases there are in the one.
        many: how many in the other.

    Raises:
        EffvitError: if a case was not done.
    """
    seconds = []
    for name in ("few", "many"):
        start = time.perf_counter()
        code = run(folder / name, folder / f"{name} {way}")
        seconds.append(time.perf_counter() - start)
        if code != 0:
            raise EffvitError(f"{way} ended with exit code {code}.")
    case_s = (seconds[1] - seconds[0]) / (many - few)
    return Cost(way, seconds[0], seconds[1], case_s, seconds[0] - few * case_s)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all ways and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=4)
    parser.add_argument("--many", type=int, default=44)
    parser.add_argument("--name", default="cluster", help="of the results")
    parser.add_argument("--task", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shard", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.task:
        sys.exit(run_here(chosen.task[0], chosen.task[1], Shard.from_text(chosen.shard)))
    circumstances = describe_circumstances("benchmarks.cluster", arguments)
    costs: list[Cost] = []
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in ("few", "many"):
            write_cases(folder / size, getattr(chosen, size))
        costs.append(measure("batch on this machine", run_here, folder, chosen.few, chosen.many))
        costs.append(_measure_dask(folder, chosen.few, chosen.many))
        try:
            costs.append(_measure_slurm(folder, chosen.few, chosen.many))
        except EffvitError as error:
            left_out.append(f"SLURM array: not measured. {error}")
    rows = [[cost.way, f"{cost.case_s:.3f}", f"{cost.start_s:.1f}"] for cost in costs]
    table = make_table(["way", "seconds for each case", "seconds to start and end"], rows)
    what = (
        f"{EDGE}³ voxels, a threshold in place of a network, one worker or shard; {chosen.few} and {chosen.many} cases."
    )
    text = "\n\n".join(["# What a case costs beyond its own work", what, table, *left_out])
    write_report(chosen.name, text, {"costs": [asdict(cost) for cost in costs], "left_out": left_out}, circumstances)


def _measure_dask(folder: Path, few: int, many: int) -> Cost:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", host="127.0.0.1"
    ) as cluster:

        def run(source: Path, output: Path) -> int:
            options = BatchOptions(job=Job(output_types=("nifti",)), stages=STAGES)
            return run_on_scheduler(cluster.scheduler_address, source, output, options).exit_code

        return measure("dask, one worker that runs already", run, folder, few, many)


def _measure_slurm(folder: Path, few: int, many: int) -> Cost:
    return measure("SLURM array of one shard", run_on_array, folder, few, many)


if __name__ == "__main__":
    main()
