"""One scan after another through our engine, in this process: seconds of each step as the record of the case has them.

Tasks for `benchmarks.engine_process.run_alone`: plain values in, plain values out.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.engine_bundle import Kind, write_bundle
from benchmarks.engine_process import Stopwatch, peak_mib, reset_peak
from benchmarks.scans import Shape, crop, make_large_scan, write_series
from effvit_med.engine import Job, Segmenter, Settings, read_model, segment_input
from effvit_med.io import read_nifti, write_volume

SPACING_MM = (1.0, 0.8, 0.8)
TEMPLATE = Path(__file__).parents[1] / "sample_data" / "ct_axial" / "IM0001.dcm"

LOAD = "load model"
"""The step of loading the model; it is done before the first case begins."""

OUTPUTS: dict[str, tuple[Any, ...]] = {"nifti": ("nifti",), "nifti and dicom-seg": ("nifti", "dicom-seg")}
"""What each case writes beside measurements, overlay and record."""


def make_bundles(folder: str, kinds: list[dict[str, Any]]) -> dict[str, str]:
    """Write bundles; gives their folders by name.

    Args:
        folder: where to.
        kinds: fields of `benchmarks.engine_bundle.Kind`.
    """
    return {Kind(**kind).name: str(write_bundle(Path(folder), Kind(**kind))) for kind in kinds}


def make_scan(folder: str, shape: Shape, part: Shape | None, seed: int = 0) -> dict[str, Any]:
    """Write a generated scan as a DICOM series ``ct`` and as ``ct.nii.gz``; gives the size of the series in MB.

    Args:
        folder: where to.
        shape: slices, rows, columns.
        part: the middle of the scan that is kept; all of it if None.
        seed: of the phantom.
    """
    whole = make_large_scan(tuple(shape), SPACING_MM, seed)[0]  # type: ignore[arg-type]
    volume = crop(whole, tuple(part)) if part else whole  # type: ignore[arg-type]
    write_series(volume, TEMPLATE, Path(folder) / "ct")
    # the files of most programs: axis 0 to the left, so that SimpleITK's arrays are slices, rows, columns as ours
    write_volume(volume.reoriented("LPS"), Path(folder) / "ct.nii.gz")
    return {"megabytes": sum(path.stat().st_size for path in (Path(folder) / "ct").iterdir()) / 1e6}


def run_path(bundle: str, source: str, settings: dict[str, Any], cases: list[str]) -> dict[str, Any]:
    """The whole path, from files to results, for each case in turn; the first is the cold one.

    Args:
        bundle: folder of the bundle.
        source: the series.
        settings: of the engine.
        cases: a name of `OUTPUTS` for each case.

    Returns:
        ``start_cpu_s`` (Python, torch and all imports), ``load`` (the model; wall and CPU; also
        within ``all`` of the first case), ``loaded_mib`` and
        ``cases``: each with ``wall``, ``cpu`` by step and in all, ``peak_mib`` of the process since the case before.

    Raises:
        RuntimeError: if a case was not segmented.
    """
    start_cpu = time.process_time()
    watch = Stopwatch()
    with watch.phase("load"):
        segmenter = Segmenter(read_model(Path(bundle)), Settings.from_values(**settings))
    loaded = peak_mib()
    found = []
    with tempfile.TemporaryDirectory() as output:
        for number, case in enumerate(cases):
            found.append(_run_case(Path(source), Path(output) / str(number), segmenter, case))
    for clock, table in watch.figures().items():  # the first case of a process has the model to load
        found[0][clock]["all"] += table["load"]
        found[0][clock][LOAD] = table["load"]
    return {"start_cpu_s": start_cpu, "load": watch.figures(), "loaded_mib": loaded, "cases": found}


def _run_case(source: Path, output: Path, segmenter: Segmenter, kind: str) -> dict[str, Any]:
    watch = Stopwatch()
    reset_peak()
    cuda = segmenter.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with watch.phase("all"):
        result = segment_input(source, output, segmenter, Job(output_types=OUTPUTS[kind]))
    peak = peak_mib()
    case = result.cases[0]
    if case.status != "segmented":
        raise RuntimeError(f"{case.status}: {case.code} {case.message}")
    steps = json.loads(case.outputs["record"].read_text(encoding="utf-8"))["steps"]
    for step in steps:
        if step["name"] != LOAD:  # timed by the caller
            watch.wall[step["name"]] += step["seconds"]
            watch.cpu[step["name"]] += step["cpu_seconds"]
    labels = read_nifti(case.outputs["nifti"]).array
    return {
        **watch.figures(),
        "outputs": kind,
        "peak_mib": peak,
        "vram_mib": torch.cuda.max_memory_allocated() / 2**20 if cuda else 0.0,
        "labels": describe_labels(labels),
        "network": next((step["detail"] for step in steps if step["name"] == "network"), {}),
    }


def describe_labels(labels: npt.NDArray[Any]) -> dict[str, float]:
    """How many classes occur, the share that is not background, and the share of 6 mm cells with a border inside.

    Args:
        labels: of a scan of `SPACING_MM`, axes slice, row, column.
    """
    counts: Counter[int] = Counter()
    for plane in labels:
        found = np.bincount(plane.ravel().astype(np.int64))
        counts.update({value: int(count) for value, count in enumerate(found) if count})
    coarse = labels[::6, ::8, ::8]
    lower = coarse[:-1, :-1, :-1]
    border = np.zeros(lower.shape, bool)
    for corner in np.ndindex(2, 2, 2):
        border |= coarse[tuple(slice(c, c + n) for c, n in zip(corner, lower.shape, strict=True))] != lower
    return {
        "classes": len(counts),
        "foreground": 1 - counts[0] / max(1, labels.size),
        "border": float(border.mean()) if border.size else 0.0,
    }
