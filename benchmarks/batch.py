"""A batch over a thousand small series that is killed three times, and one over fifty of which three misbehave.

    python -m benchmarks.batch                      # about 15 minutes on one core
    python -m benchmarks.batch --series 40 --name batch_quick

Each series is a CT of 16 x 32 x 32 voxels with noise and a bright block. The network is the shipped one with its own
weights on a grid of 8 mm, one window a scan: real work of every kind, but little of it, so that what the batch itself
costs is seen. Labels on such a grid mean nothing. Each series becomes a DICOM SEG, tables, picture and record.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom
import yaml

from benchmarks.batch_report import draw_memory, to_markdown
from benchmarks.batch_stages import MEMORY, RAISE, SEGFAULT
from benchmarks.report import RESULTS, describe_circumstances, write_report
from effvit_med.batch import BatchOptions, Stages, read_manifest, run_batch
from effvit_med.engine import Job, Settings, shipped_bundle

SHAPE = (16, 32, 32)
KILLS = 3
FAULTS = {7: RAISE, 19: SEGFAULT, 31: MEMORY}
_MAIN = "from effvit_med.cli import main; main()"
_SAMPLE_S = 1.0


def make_series(folder: Path, count: int, faults: Mapping[int, int] | None = None) -> None:
    """Write series 1 to count.

    Args:
        folder: where to; each series gets a folder of its own.
        count: how many.
        faults: what the first voxel of some holds.
    """
    template = pydicom.dcmread(next((shipped_bundle() / "sample_data" / "ct_axial").glob("*.dcm")))
    rng = np.random.default_rng(0)
    for number in range(1, count + 1):
        place = folder / f"{number:05d}"
        place.mkdir(parents=True)
        scan = rng.normal(40, 12, SHAPE).astype(np.int16)
        scan[4:12, 8:20, 8 + number % 8 : 24] += 100
        scan[0, 0, 0] = (faults or {}).get(number, 0)
        template.Rows, template.Columns, template.SeriesNumber = SHAPE[1], SHAPE[2], number
        template.PixelSpacing, template.SliceThickness = ["8", "8"], "8"
        template.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
        template.SeriesInstanceUID, template.StudyInstanceUID = f"2.25.1{number:08d}1", f"2.25.1{number:08d}2"
        for index, plane in enumerate(scan):
            template.ImagePositionPatient = ["0", "0", str(8 * index)]
            template.InstanceNumber = index + 1
            template.SOPInstanceUID = template.file_meta.MediaStorageSOPInstanceUID = f"2.25.1{number:08d}3{index:03d}"
            stored = plane.astype(np.int32) - int(template.RescaleIntercept)
            template.PixelData = stored.astype("<u2").tobytes()
            template.save_as(place / f"{index:03d}.dcm", enforce_file_format=True)


def make_bundle(folder: Path) -> Path:
    """The shipped model on a coarse grid with one window a scan."""
    shipped = shipped_bundle()
    content = yaml.safe_load((shipped / "configs" / "model.yaml").read_text(encoding="utf-8"))
    content["name"] = "coarse"
    content["preprocess"]["spacing_mm"] = [8.0, 8.0, 8.0]
    content["tiling"]["window"] = [32, 32, 32]
    weights = [content["weights"]] if isinstance(content["weights"], str) else content["weights"]
    (folder / "configs").mkdir(parents=True)
    for name in weights:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shipped / name, folder / name)
    (folder / "configs" / "model.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


class Watched:
    """The command in a process group of its own, with the memory of its processes over time.

    Args:
        source: the input.
        output: the folder of results.
        bundle: the model.
        began_s: when the first call began, in monotonic seconds.

    Attributes:
        samples: seconds, and MiB of each process by name.
    """

    def __init__(self, source: Path, output: Path, bundle: Path, began_s: float) -> None:
        words = ["batch", str(source), "-o", str(output), "--bundle", str(bundle), "--output-type", "dicom-seg", "-q"]
        words += ["--device", "cpu", "--threads", "1"]
        self.output, self.began_s = output, began_s
        self.samples: list[tuple[float, dict[str, float]]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, until: int | None = None) -> bool:
        """Take samples until it ends (False) or so many cases are done (True)."""
        while self._process.poll() is None:
            time.sleep(_SAMPLE_S)
            self.samples.append((time.monotonic() - self.began_s, self._measure()))
            if until is not None and len(finished_cases(self.output)) >= until:
                return True
        return False

    def kill(self) -> None:
        """Send kill -9 to the whole process group."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def finish(self) -> dict[str, Any]:
        """The summary of a call that has ended."""
        output, _ = self._process.communicate()
        return {**json.loads(output), "exit_code": self._process.returncode}

    def _measure(self) -> dict[str, float]:
        found: dict[str, float] = {}
        try:
            parent = psutil.Process(self._process.pid)
            for each in (parent, *parent.children()):
                name = next((word for word in each.cmdline() if word.startswith("effvit-med-")), "effvit-med-parent")
                found[name.removeprefix("effvit-med-")] = each.memory_info().rss / 2**20
        except psutil.Error:
            pass
        return found


def finished_cases(output: Path) -> dict[str, tuple[str, str]]:
    """Which run finished each case, and when, as the journal says."""
    found = {}
    for path in (output / "journal" / "jobs").glob("[!.]*.json"):
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["status"] == "done":
            found[state["case_id"]] = (state["run"], state["ended"])
    return found


def run_killed(source: Path, output: Path, bundle: Path, count: int, seed: int) -> dict[str, Any]:
    """One batch, killed at three random places, until it is done.

    Args:
        source: the input.
        output: the folder of results.
        bundle: the model.
        count: of series.
        seed: of the places.
    """
    rng = random.Random(seed)
    places = sorted(rng.sample(range(count // 10, count - count // 10), KILLS))
    began = time.monotonic()
    segments: list[list[tuple[float, dict[str, float]]]] = []
    kept: dict[str, tuple[str, str]] = {}
    redone, killed_at = 0, []
    for place in [*places, None]:
        call = Watched(source, output, bundle, began)
        reached = call.watch(place)
        segments.append(call.samples)
        now = finished_cases(output)
        if reached:
            call.kill()
            killed_at.append(len(now))
            now = finished_cases(output)
        redone += sum(now.get(name) != ended for name, ended in kept.items())
        kept = now
    summary = call.finish()
    rows = read_manifest(output)
    whole = [row for row in rows if is_whole(output, row)]
    return {
        "series": count,
        "seconds": time.monotonic() - began,
        "killed_after_cases": killed_at,
        "exit_code": summary["exit_code"],
        "rows": len(rows),
        "statuses": dict(Counter(row["status"] for row in rows)),
        "finished_cases_done_again": redone,
        "whole": len(whole),
        "hidden_left": len(list(output.rglob(".*"))),
        "stage_seconds": {
            stage: sum(row["seconds"][stage] for row in rows) / len(rows) for stage in ("read", "segment", "write")
        },
        "memory": segments,
    }


def is_whole(output: Path, row: Mapping[str, Any]) -> bool:
    """Whether every file of a row is there with its size."""
    folder = output / row["case_id"]
    return bool(row["outputs"]) and all(
        (folder / each["file"]).stat().st_size == each["bytes"] for each in row["outputs"].values()
    )


def run_steadily(source: Path, output: Path, bundle: Path) -> dict[str, Any]:
    """One batch that nothing disturbs, for its pace and its memory.

    Args:
        source: the input.
        output: the folder of results.
        bundle: the model.
    """
    call = Watched(source, output, bundle, time.monotonic())
    call.watch()
    seconds = time.monotonic() - call.began_s
    summary = call.finish()
    return {
        "seconds": seconds,
        "exit_code": summary["exit_code"],
        "per_minute": 60 * summary["counts"]["done"] / seconds,
        "memory": call.samples,
        "quarters": compare_quarters(call.samples),
    }


def compare_quarters(samples: Sequence[tuple[float, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Mean memory of each process in the first and the last quarter of a run, the loading left out.

    Args:
        samples: seconds, and MiB by process.
    """
    loaded = [values for _, values in samples if {"read", "segment", "write"} <= values.keys()]
    quarter = max(1, len(loaded) // 4)
    names = ("parent", "read", "segment", "write")

    def mean(part: Sequence[Mapping[str, float]], name: str) -> float:
        return sum(values.get(name, 0.0) for values in part) / max(1, len(part))

    return {name: {"first": mean(loaded[:quarter], name), "last": mean(loaded[-quarter:], name)} for name in names}


def run_faulty(source: Path, output: Path, bundle: Path) -> dict[str, Any]:
    """Fifty cases of which one raises, one crashes its process and one asks for too much memory.

    Args:
        source: the input.
        output: the folder of results.
        bundle: the model.
    """
    began = time.monotonic()
    options = BatchOptions(
        bundle=bundle,
        settings=Settings(device="cpu", threads=1),
        job=Job(output_types=("dicom-seg",)),
        stages=Stages(segment="benchmarks.batch_stages:make_faulty"),
    )
    summary = run_batch(source, output, options)
    rows = read_manifest(output)
    failed = {row["code"]: row["message"].split(". ")[0] for row in rows if row["status"] == "failed"}
    return {
        "seconds": time.monotonic() - began,
        "exit_code": summary.exit_code,
        "statuses": dict(Counter(row["status"] for row in rows)),
        "failed": [f"{row['code']}: {row['message'].split('. ')[0]}" for row in rows if row["status"] == "failed"],
        "codes": sorted(failed),
    }


def main() -> None:
    """Make the input, run, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=1000, help="how many series")
    parser.add_argument("--seed", type=int, default=0, help="of the places where it is killed")
    parser.add_argument("--steady", type=int, help="series of the undisturbed run; a quarter if not given")
    parser.add_argument("--name", default="batch", help="of the results")
    arguments = parser.parse_args()
    made = describe_circumstances("benchmarks.batch")
    steady = arguments.steady or max(20, arguments.series // 4)
    with tempfile.TemporaryDirectory(prefix="batch-benchmark-") as name:
        folder = Path(name)
        bundle = make_bundle(folder / "bundle")
        for part, count in (("many", arguments.series), ("steady", steady)):
            make_series(folder / part, count)
        make_series(folder / "faulty", 50, FAULTS)
        figures = {
            "faulty": run_faulty(folder / "faulty", folder / "out_faulty", bundle),
            "steady": {"series": steady, **run_steadily(folder / "steady", folder / "out_steady", bundle)},
            "killed": run_killed(folder / "many", folder / "out_many", bundle, arguments.series, arguments.seed),
        }
    picture = RESULTS / f"{arguments.name}_memory.png"
    draw_memory(figures, picture)
    for part in ("steady", "killed"):
        figures[part].pop("memory")
    write_report(arguments.name, to_markdown(figures, picture.name), figures, made)


if __name__ == "__main__":
    main()
