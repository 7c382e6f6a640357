"""What a trained network costs in use: from the prepared image to its labels, in each runtime that is here.

The case is the test case of middling size. Each runtime gets the same padded image; its labels are compared with those
of eager float32, since a runtime that labels otherwise is no better for being fast.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.engine_process import peak_mib, reset_peak
from benchmarks.versus_models import Adapter, build_adapter, find_contender, fold_adapter
from benchmarks.versus_prediction import Predict, pad_image, predict_scores
from benchmarks.versus_runs import read_request
from benchmarks.versus_sets import LabelledSet, PreparedCase, prepare_cases
from effvit_med.errors import EffvitError
from effvit_med.networks.export import export_onnx

RUNTIMES = ("eager float32", "openvino float32", "openvino bfloat16")

LEAST_AGREEMENT = 0.995
"""Dice of a runtime's labels with those of eager float32, below which it is not taken for the best one."""

REPEATS = 7


def time_here(request: Mapping[str, Any]) -> dict[str, Any]:
    """All runtimes in this process.

    Args:
        request: of `RunFolder.request`.
    """
    folder = read_request(request)
    labelled = folder.run.labelled
    case = middling(prepare_cases(labelled, folder.split.test, folder.cache))
    contender = find_contender(folder.run.model)
    adapter = build_adapter(contender, labelled)
    adapter.load_state_dict(torch.load(folder.path / "weights.pt", map_location="cpu"))
    return {"rows": time_adapter(labelled, fold_adapter(contender, adapter), case)}


@torch.inference_mode()
def time_adapter(labelled: LabelledSet, adapter: Adapter, case: PreparedCase) -> dict[str, Any]:
    """Time, peak of memory, and agreement with eager float32, of each runtime.

    Args:
        labelled: the set.
        adapter: the trained network.
        case: what it labels.
    """
    values = torch.from_numpy(case.values)
    example = example_of(labelled, values)
    plain = None
    rows: dict[str, Any] = {}
    for runtime in RUNTIMES:
        row: dict[str, Any] = {"case": case.name, "shape": list(example.shape[2:])}
        rows[runtime] = row
        try:
            with torch.inference_mode(mode=False):  # to be recorded, weights must be usual tensors
                opened = [open_predict(adapter, example.clone(), runtime, threads) for threads in (1, 2)]
        except (EffvitError, RuntimeError, TypeError, ValueError) as error:
            row["skipped"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            continue
        for threads, predict in zip((1, 2), opened, strict=True):
            torch.set_num_threads(threads)
            reset_peak()
            label = partial(label_case, labelled, predict, values)
            labels = label()
            cpu, wall = repeat(label, REPEATS)
            row |= {"cpu_s": cpu, "peak_mib": peak_mib()} if threads == 1 else {"wall_2_s": wall}
        plain = labels if plain is None else plain
        row["agreement"] = agree(labels, plain)
    return rows


def label_case(labelled: LabelledSet, predict: Predict, values: Tensor) -> Any:
    """What is timed: from the prepared image to the labels on its grid."""
    return predict_scores(labelled, predict, values).argmax(0).numpy()


def middling(cases: Sequence[PreparedCase]) -> PreparedCase:
    """The case of the median number of voxels; the lower of two."""
    return sorted(cases, key=lambda case: (case.labels.size, case.name))[(len(cases) - 1) // 2]


def example_of(labelled: LabelledSet, values: Tensor) -> Tensor:
    """What the network gets in one call."""
    padded = pad_image(labelled, values)[None]
    return padded if labelled.spatial_dims == 3 else padded[:, :, 0]


def repeat(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Median CPU and wall seconds of some calls; fewer of long ones."""
    cpu: list[float] = []
    wall: list[float] = []
    while len(cpu) < repeats and (len(cpu) < 3 or sum(wall) < 20):
        start = time.process_time(), time.perf_counter()
        call()
        cpu.append(time.process_time() - start[0])
        wall.append(time.perf_counter() - start[1])
    return statistics.median(cpu), statistics.median(wall)


def agree(labels: Any, plain: Any) -> float:
    """Dice of two label maps, all structures together: 2 x the voxels of the same structure by those of any."""
    both = int(np.count_nonzero((labels == plain) & (plain > 0)))
    total = int(np.count_nonzero(labels)) + int(np.count_nonzero(plain))
    return 2 * both / total if total else 1.0


def open_predict(adapter: Adapter, example: Tensor, runtime: str, threads: int) -> Predict:
    """The network in a runtime, for inputs of one size.

    Args:
        adapter: the network.
        example: its input.
        runtime: one of `RUNTIMES`.
        threads: of the processor.
    """
    if runtime == RUNTIMES[0]:
        return adapter
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        export_onnx(adapter, path, example, dynamic=False)
        request = _compile(path, runtime.split()[1], threads)
    with torch.inference_mode():
        shape = tuple(adapter(example).shape)

    def predict(x: Tensor) -> Tensor:
        result = request.infer([x.contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(next(iter(result.values())).copy()).reshape(shape)

    return predict


def _compile(path: Path, precision: str, threads: int) -> Any:
    import openvino

    core = openvino.Core()
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    if hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RuntimeError("this processor has no bfloat16")
    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return core.compile_model(core.read_model(path), "CPU", settings).create_infer_request()


def best_runtime(rows: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The fastest runtime on one thread that labels as eager float32 does; None if nothing was timed.

    Args:
        rows: of `time_here`.
    """
    right = dict(_usable(rows))
    return min(right, key=lambda name: right[name]) if right else None


def _usable(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    for name, row in rows.items():
        if "cpu_s" in row and row["agreement"] >= LEAST_AGREEMENT:
            yield name, row["cpu_s"]
