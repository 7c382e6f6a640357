"""What inference costs: our engine by steps, beside MONAI and nnU-Net, in every runtime, against the machine's peak.

Run from the repository's root: ``make bench-engine``, or ``python -m benchmarks.engine``. The scan is a generated CT of
300 slices of 512 x 512. Each measurement runs in a process of its own, on one thread where CPU seconds are told.
Answers are kept as they come: ``--resume`` goes on with an interrupted run. ``--only path peers`` measures some of the
tables, ``--quick`` all of them on a tiny scan, to see that they run. A peer or a runtime that is not installed is named
as such.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine_bundle import Kind
from benchmarks.engine_process import ChildFailedError, run_alone
from benchmarks.engine_report import to_markdown
from benchmarks.report import RESULTS, Circumstances, describe_circumstances, write_report
from benchmarks.scans import Shape

TABLES = ("path", "length", "peers", "runtimes", "peak", "gpu")

CASE = "benchmarks.engine_case:"

CPU = {"device": "cpu", "threads": 1}
NNUNET = Path(sys.prefix) / "nnunet" / "bin" / "python"
"""The interpreter that the Makefile gives nnU-Net; the usual one where it is not there."""

SAMPLE = Path(__file__).parents[1] / "sample_data" / "ct_axial"


@dataclass(frozen=True)
class Sizes:
    """How large everything is that is measured.

    Attributes:
        shape: slices, rows, columns of the scan.
        lengths: slices, for the table of memory over length.
        many: the part of the scan on which the peers run with 105 classes: more does not fit into 24 GiB with MONAI.
        repeats: processes for each row of the main table; their median is told.
        window: voxels of a window along each axis.
        quick: whether only the way is tried.
    """

    shape: Shape = (300, 512, 512)
    lengths: tuple[int, ...] = (300, 600, 1200)
    many: Shape = (144, 256, 256)
    repeats: int = 3
    window: int = 96
    quick: bool = False

    def kind(self, classes: int, stride: int = 4, structured: bool = True) -> Kind:
        """A bundle with the window of these sizes.

        Args:
            classes: how many.
            stride: of the decoder.
            structured: or random weights.
        """
        return Kind(classes, stride, structured, self.window)


QUICK = Sizes(shape=(16, 64, 64), lengths=(16, 24), many=(12, 48, 48), repeats=1, window=32, quick=True)


@dataclass
class Work:
    """The answers so far, kept in a file, and the folder with scans and bundles.

    Attributes:
        sizes: of the run.
        folder: for scans and bundles; they are made when first wanted.
        path: of the file with the answers.
        found: the answers by table and row.
        tried: bundles that segmented something already.
    """

    sizes: Sizes
    folder: Path
    path: Path
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    tried: set[Kind] = field(default_factory=set)

    def load(self) -> None:
        """Take up what an earlier run left.

        Raises:
            SystemExit: if that was of other sizes.
        """
        if not self.path.exists():
            return
        content = json.loads(self.path.read_text(encoding="utf-8"))
        if content["sizes"] != json.loads(json.dumps(asdict(self.sizes))):
            raise SystemExit(f"{self.path.name} was made with {content['sizes']}; resume it so, or delete it.")
        self.found = content["found"]

    def measure(self, table: str, row: str, task: Callable[[], dict[str, Any]]) -> None:
        """Run a measurement unless its answer is there; where its process dies, the answer says so.

        Args:
            table: its name.
            row: name of the row.
            task: runs it.
        """
        rows = self.found.setdefault(table, {})
        if row in rows and "failed" not in rows[row]:
            return
        say(f"{table}: {row}")
        start = time.perf_counter()
        try:
            rows[row] = task()
        except ChildFailedError as error:
            lines = str(error).strip().splitlines()
            rows[row] = {"failed": f"{lines[0]} ({lines[-1]})"[:300]}
            say(f"    {error}")
        say(f"    {time.perf_counter() - start:.0f} s")
        content = {"sizes": asdict(self.sizes), "found": self.found}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".part")
        beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        beside.replace(self.path)

    def scan(self, shape: Shape, part: Shape | None = None) -> Path:
        """The folder of a scan.

        Args:
            shape: slices, rows, columns.
            part: the middle that is kept; all if None.
        """
        folder = self.folder / ("x".join(map(str, part or shape)) + ("_part" if part else ""))
        if not (folder / "ct.nii.gz").exists():
            say(f"making a scan of {part or shape}")
            folder.mkdir(parents=True, exist_ok=True)
            run_alone(CASE + "make_scan", {"folder": str(folder), "shape": shape, "part": part})
        return folder

    def bundle(self, kind: Kind) -> str:
        """The folder of a temporary bundle; the usual ones are made together.

        Each has segmented the sample case once: what is compiled or counted once for a machine and a bundle, and kept
        in the cache folder, is not measured.

        Args:
            kind: of the bundle.
        """
        folder = self.folder / "bundles"
        wanted = [kind, *(self.sizes.kind(classes) for classes in (3, 14, 105))]
        if not (folder / kind.name / "configs" / "model.yaml").exists():
            say(f"making the bundle {kind.name}")
            run_alone(CASE + "make_bundles", {"folder": str(folder), "kinds": [asdict(each) for each in wanted]})
        if kind not in self.tried:
            self.tried.add(kind)
            source = str(SAMPLE)
            request = {"bundle": str(folder / kind.name), "source": source, "settings": CPU, "cases": ["nifti"]}
            run_alone(CASE + "run_path", request)
        return str(folder / kind.name)


def measure_path(work: Work) -> None:
    """The whole path with 3, 14 and 105 classes: cold, warm, and with a DICOM SEG.

    Args:
        work: takes the answers.
    """
    sizes = work.sizes
    usual = ["nifti", "nifti", "nifti and dicom-seg"]
    rows = [(sizes.kind(classes), 1, repeat) for repeat in range(sizes.repeats) for classes in (3, 14, 105)]
    if not sizes.quick:
        rows += [(sizes.kind(classes, 2), 1, 0) for classes in (14, 105)]
        rows += [(sizes.kind(classes, 4, False), 1, 0) for classes in (14, 105)]
        rows += [(sizes.kind(classes), 0, 0) for classes in (14, 105)]
    for kind, threads, repeat in rows:
        name = f"{kind.name} {'one thread' if threads else 'all cores'} {repeat}"

        def run(kind: Kind = kind, threads: int = threads) -> dict[str, Any]:
            settings: dict[str, Any] = {"device": "cpu", **({"threads": threads} if threads else {})}
            source = str(work.scan(sizes.shape) / "ct")
            request = {"bundle": work.bundle(kind), "source": source, "settings": settings, "cases": usual}
            return run_alone(CASE + "run_path", request, threads=threads or None)

        work.measure("path", name, run)


def measure_length(work: Work) -> None:
    """Peak memory with 14 classes for scans of several lengths.

    Args:
        work: takes the answers.
    """
    for slices in work.sizes.lengths:

        def run(slices: int = slices) -> dict[str, Any]:
            source = str(work.scan((slices, *work.sizes.shape[1:])) / "ct")
            settings = {"device": "cpu", "threads": 1}
            request = {
                "bundle": work.bundle(work.sizes.kind(14)),
                "source": source,
                "settings": settings,
                "cases": ["nifti"],
            }
            return run_alone(CASE + "run_path", request)

        work.measure("length", str(slices), run)


def measure_peers(work: Work) -> None:
    """Ours, MONAI and nnU-Net on the same scan with the same network; glibc's default allocator for all.

    Args:
        work: takes the answers.
    """
    sizes = work.sizes
    for classes, part in ((14, None), (105, sizes.many)):
        for candidate in ("ours", "monai", "nnunet"):

            def run(classes: int = classes, part: Shape | None = part, candidate: str = candidate) -> dict[str, Any]:
                request = {
                    "bundle": work.bundle(work.sizes.kind(classes)),
                    "image": str(work.scan(sizes.shape, part) / "ct.nii.gz"),
                    "output": str(work.folder / f"peers-{classes}-{candidate}.nii.gz"),
                }
                if candidate != "ours":
                    request["ours"] = str(work.folder / f"peers-{classes}-ours.nii.gz")
                python = str(NNUNET) if candidate == "nnunet" and NNUNET.exists() else sys.executable
                return run_alone(f"benchmarks.engine_peers:run_{candidate}", request, kept=False, python=python)

            work.measure("peers", f"{classes} {candidate}", run)


def measure_runtimes(work: Work) -> None:
    """Every runtime for the shipped bundle.

    Args:
        work: takes the answers.
    """
    request = {"quick": work.sizes.quick}
    work.measure("runtimes", "all", lambda: run_alone("benchmarks.engine_runtimes:measure_runtimes", request))


def measure_peak(work: Work) -> None:
    """The share of the machine's peak.

    Args:
        work: takes the answers.
    """
    request = {"quick": work.sizes.quick}
    work.measure("peak", "all", lambda: run_alone("benchmarks.engine_peak:measure_peak", request))


def measure_gpu(work: Work) -> None:
    """The whole path on a GPU, where there is one.

    Args:
        work: takes the answers.
    """
    if not torch.cuda.is_available():
        work.found["gpu"] = {"none": {"none": "No GPU on this machine"}}
        return
    for classes in (14, 105):
        for precision in ("float32", "bfloat16"):

            def run(classes: int = classes, precision: str = precision) -> dict[str, Any]:
                request = {
                    "bundle": work.bundle(work.sizes.kind(classes)),
                    "source": str(work.scan(work.sizes.shape) / "ct"),
                    "settings": {"device": "cuda", "precision": precision, "batch_size": 8},
                    "cases": ["nifti", "nifti", "nifti and dicom-seg"],
                }
                return run_alone(CASE + "run_path", request, threads=None)

            work.measure("gpu", f"{classes} {precision}", run)


MEASURE: Mapping[str, Callable[[Work], None]] = {
    "path": measure_path,
    "length": measure_length,
    "peers": measure_peers,
    "runtimes": measure_runtimes,
    "peak": measure_peak,
    "gpu": measure_gpu,
}


def say(text: str) -> None:
    """One line of progress on stderr, with the minutes since the start."""
    print(f"[{(time.monotonic() - _START) / 60:5.1f} min] {text}", file=sys.stderr, flush=True)


def run(sizes: Sizes, tables: Sequence[str], results: Path, name: str, *, resume: bool) -> None:
    """Measure and write the report.

    Args:
        sizes: of everything.
        tables: names of the tables.
        results: folder of the results.
        name: stem of the results.
        resume: whether to go on with an interrupted run.
    """
    made: Circumstances = describe_circumstances("benchmarks.engine")
    with tempfile.TemporaryDirectory(prefix="effvit-med-bench-") as folder:
        os.environ["EFFVIT_MED_CACHE"] = str(Path(folder) / "cache")  # nothing of it stays in the user's
        work = Work(sizes, Path(folder), results / f"{name}.partial.json")
        if resume:
            work.load()
        for table in tables:
            MEASURE[table](work)
    found = {table: work.found.get(table, {}) for table in tables}
    text = to_markdown(found, sizes.shape, sizes.many, sizes.window)
    write_report(name, text, {"sizes": asdict(sizes), "tables": found}, made, results)
    if not any("failed" in row for rows in found.values() for row in rows.values()):
        work.path.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> None:
    """Reads the command line, measures, prints the tables and writes them.

    Args:
        arguments: of the command line; those of this process where left out.
        results: folder of the results.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLES, metavar="TABLE", help=f"some of {', '.join(TABLES)}")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same tables")
    parser.add_argument("--quick", action="store_true", help="a tiny scan, to see that everything runs")
    parser.add_argument("--repeats", type=int, default=Sizes.repeats, help="processes for each row of the main table")
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else Sizes(repeats=given.repeats)
    words = ["engine", *(["quick"] if given.quick else []), *(given.only or [])]
    run(sizes, given.only or TABLES, results, "_".join(words), resume=given.resume)


_START = time.monotonic()

if __name__ == "__main__":
    main()
