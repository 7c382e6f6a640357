"""Every runtime for the shipped bundle: CPU time of a window, labels beside eager float32, Dice against exact labels.

Times are of the network alone, all runtimes taking turns in one process; labels are of the whole path. The cases are
the sample that comes along and phantoms that were never trained on. INT8 is made here, calibrated on another phantom,
and its own gate is not used: a loss of Dice shows in the table.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.accuracy import compare_labels, draw_scans
from effvit_med.engine import Model, Segmenter, Settings, read_model
from effvit_med.engine.contract import open_model
from effvit_med.engine.export import ExportOptions, export_model, open_exported
from effvit_med.engine.quantisation import QuantisationOptions, ReferenceCase, quantise_model, sample_case
from effvit_med.engine.runtimes import Runtime, RuntimeRequest, available_runtimes, open_runtime
from effvit_med.errors import EffvitError
from effvit_med.networks import fold_batchnorm

CANDIDATES: tuple[tuple[Any, str], ...] = (
    ("eager", "float32"),
    ("eager", "bfloat16"),
    ("compile", "float32"),
    ("compile", "bfloat16"),
    ("onnx", "float32"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
)
"""Runtime and arithmetic; the first is what all are compared with."""

UNSEEN = (0, 1)
"""Seeds of phantoms to label; training used none of them."""

CALIBRATED_ON = 2
"""Seed of the phantom that INT8 is calibrated and judged on; it is not labelled."""

Array = npt.NDArray[Any]


def measure_runtimes(bundle: str | None = None, *, quick: bool = False) -> dict[str, Any]:
    """A row for each runtime; one that is not here says why.

    Args:
        bundle: the shipped one if None.
        quick: only eager, on the sample case.
    """
    model = read_model(bundle)
    cases = [sample_case()] if quick else [sample_case(), *draw_cases(UNSEEN)]
    rows: list[dict[str, Any]] = []
    opened: dict[int, Runtime] = {}
    reference: list[Array] = []
    with tempfile.TemporaryDirectory() as folder:
        for index, (name, precision) in enumerate(CANDIDATES[: 2 if quick else None]):
            row: dict[str, Any] = {"runtime": name, "precision": precision}
            rows.append(row)
            try:
                start = time.perf_counter()
                opened[index], used = _open(model, name, precision, Path(folder) / "exported")
                row["open_wall_s"] = time.perf_counter() - start
                row["notes"] = opened[index].precision if opened[index].precision != precision else ""
                labels = [label(used, name, precision, case) for case in cases]
            except (EffvitError, RuntimeError) as error:
                opened.pop(index, None)
                row["skipped"] = f"{type(error).__name__}: {error}"[:300]
                continue
            reference = reference or labels
            row |= compare(labels, reference, cases, model)
        tile = torch.randn(1, 1, *model.tiling.window, generator=torch.Generator().manual_seed(0))
        for index, seconds in time_in_turns(opened, tile, 3 if quick else 9).items():
            rows[index]["cpu_s"] = seconds
    return {"rows": rows, "window": list(model.tiling.window), "cases": [case.name for case in cases]}


def draw_cases(seeds: tuple[int, ...]) -> list[ReferenceCase]:
    """Phantoms with exact labels.

    Args:
        seeds: of them.
    """
    return [ReferenceCase(f"phantom {seed}", image, exact.array) for seed, image, exact in draw_scans(seeds)]


def _open(model: Model, name: Any, precision: str, folder: Path) -> tuple[Runtime, Model]:
    """The runtime, and the model to segment with: its own, or the exported INT8 one.

    Raises:
        SettingsError: if it is not here.
    """
    cpu = torch.device("cpu")
    if precision != "int8":
        why = available_runtimes(cpu)[name]
        if why:
            raise EffvitError(why)
        network = fold_batchnorm(model.load_network())
        request = RuntimeRequest(network, cpu, precision, model.tiling.window, 1, model.weights_sha256)
        return open_runtime(name, request), model
    export_model(model, folder, ExportOptions(name, "int8", least_agreement=0.9, quantise=quantise))
    return open_exported(folder, cpu, torch.get_num_threads()), open_model(folder)


def quantise(model: Model, format: Any, folder: Path) -> tuple[str, ...]:  # noqa: A002 - the exporter's word for it
    """Write the INT8 network of a model; what the exporter calls.

    Args:
        model: of the bundle.
        format: onnx or openvino.
        folder: where to.
    """
    quantise_model(model, draw_cases((CALIBRATED_ON,)), folder, QuantisationOptions(backend=format))
    return ("model.xml", "model.bin") if format == "openvino" else ("model.onnx",)


def label(model: Model, runtime: Any, precision: str, case: ReferenceCase) -> Array:
    """The labels of a case by the whole engine.

    Args:
        model: with its runtime inside if it is an exported one.
        runtime: name.
        precision: of the arithmetic.
        case: with its scan.
    """
    chosen = {} if precision == "int8" else {"runtime": runtime, "precision": precision}
    settings = Settings.from_values(device="cpu", **chosen)
    return Segmenter(model, settings).segment(case.volume).labels


def compare(labels: list[Array], reference: list[Array], cases: list[ReferenceCase], model: Model) -> dict[str, Any]:
    """The share of voxels that are labelled as the reference labels them, and Dice by structure against exact labels.

    Args:
        labels: of each case.
        reference: the same by eager float32.
        cases: with exact labels.
        model: with the structures.
    """
    equal = [int(np.count_nonzero(a == b)) for a, b in zip(labels, reference, strict=True)]
    marked = [(a != 0) | (b != 0) for a, b in zip(labels, reference, strict=True)]
    inside = [int(np.count_nonzero((a == b) & m)) for a, b, m in zip(labels, reference, marked, strict=True)]
    dice: dict[str, list[float]] = {}
    for seed, (found, case) in enumerate(zip(labels, cases, strict=True)):
        for score in compare_labels(found, case.labels, model.labels, seed):
            if score.dice is not None:
                dice.setdefault(score.structure, []).append(score.dice)
    return {
        "agreement": sum(equal) / sum(a.size for a in labels),
        "agreement_marked": sum(inside) / max(1, sum(int(m.sum()) for m in marked)),
        "dice": {name: statistics.fmean(scores) for name, scores in dice.items()},
    }


def time_in_turns(opened: dict[int, Runtime], tile: torch.Tensor, rounds: int) -> dict[int, float]:
    """The median CPU time of one window by each runtime, turn by turn, after two that are not counted.

    Args:
        opened: runtimes by number.
        tile: one window.
        rounds: how often.
    """
    taken: dict[int, list[float]] = {index: [] for index in opened}
    for turn in range(rounds + 2):
        for index, runtime in opened.items():
            start = time.process_time()
            runtime.predict(tile)
            if turn > 1:
                taken[index].append(time.process_time() - start)
    return {index: statistics.median(times) for index, times in taken.items()}
