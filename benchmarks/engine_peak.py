"""How much of what this processor can do a network makes use of: operations and memory traffic per second.

The peaks are measured here, on one thread: products of matrices, convolutions, and copies. Traffic is what every
operator of a forward pass reads and writes, counted one by one; a runtime that joins operators moves less, so its share
of the bandwidth is told by the same count and may come out above what it really moves.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from effvit_med.engine.runtimes import RuntimeName, RuntimeRequest, available_runtimes, open_runtime
from effvit_med.networks import SegmentationNetwork, build_network, fold_batchnorm
from effvit_med.networks.cost import build_empty, count_flops

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Subject:
    """A network and the window it is run on.

    Attributes:
        name: for the table.
        arguments: of `build_network`.
        window: spatial size.
    """

    name: str
    arguments: dict[str, Any]
    window: tuple[int, ...]


def list_subjects(*, quick: bool = False) -> tuple[Subject, ...]:
    """B0 in 3D at two decoder strides, and B1 in 2D, each with 14 classes.

    Args:
        quick: small windows, to see that it runs.
    """
    cube, square = ((32,) * 3, (64,) * 2) if quick else ((96,) * 3, (512,) * 2)
    three = {"spatial_dims": 3, "in_channels": 1, "out_channels": 14, "preset": "efficientvit_b0"}
    two = {"spatial_dims": 2, "in_channels": 1, "out_channels": 14, "preset": "efficientvit_b1"}
    return (
        Subject("B0 3D, stride 1", {**three, "decoder_stride": 1}, cube),
        Subject("B0 3D, stride 4", {**three, "decoder_stride": 4}, cube),
        Subject("B1 2D, published head", {**two, "decoder": "seg_head"}, square),
    )


def measure_peak(*, quick: bool = False) -> dict[str, Any]:
    """Peaks of the processor, and what each network reaches in each runtime.

    Args:
        quick: small sizes, few repeats.
    """
    return {"peaks": measure_machine(quick=quick), "networks": measure_networks(quick=quick)}


def measure_machine(*, quick: bool = False) -> dict[str, float]:
    """GFLOP/s of products and convolutions in two precisions, and GB/s of a copy (read and written).

    Args:
        quick: small sizes.
    """
    edge, side, cube, megabytes = (256, 64, 24, 16) if quick else (2048, 128, 96, 512)
    found: dict[str, float] = {}
    for name, kind in PRECISIONS.items():
        a = torch.randn(edge, edge).to(kind)
        found[f"GEMM {name}"] = 2 * edge**3 / best_seconds(partial(torch.matmul, a, a)) / 1e9
        for what, shape, channels, layout in (
            ("conv2d 3x3, 128 channels", (side,) * 2, 128, torch.channels_last),
            ("conv3d 3x3x3, 32 channels", (cube,) * 3, 32, torch.channels_last_3d),
        ):
            dims = len(shape)
            x = torch.randn(1, channels, *shape).to(kind).to(memory_format=layout)
            w = torch.randn(channels, channels, *(3,) * dims).to(kind).to(memory_format=layout)
            convolve = torch.nn.functional.conv2d if dims == 2 else torch.nn.functional.conv3d
            flops = 2 * x.numel() * channels * 3**dims
            found[f"{what} {name}"] = flops / best_seconds(partial(convolve, x, w, padding=1)) / 1e9
    source = torch.zeros(megabytes * 2**18)
    target = torch.empty_like(source)
    found["copy GB/s"] = 2 * source.nbytes / best_seconds(lambda: target.copy_(source)) / 1e9
    return found


def measure_networks(*, quick: bool = False) -> list[dict[str, Any]]:
    """Time, operations and traffic of each network in each runtime that is here.

    Args:
        quick: small windows.
    """
    here = available_runtimes(torch.device("cpu"))
    rows = []
    for subject in list_subjects(quick=quick):
        torch.manual_seed(0)
        network = fold_batchnorm(build_network(**subject.arguments).eval())
        tiles = torch.randn(1, 1, *subject.window)
        flops = count_flops(build_empty(partial(build_network, **subject.arguments)), tuple(tiles.shape))
        traffic = count_traffic(network, tiles)
        runtimes: tuple[RuntimeName, ...] = ("eager",) if quick else ("eager", "openvino")
        for runtime in runtimes:
            for precision in PRECISIONS:
                if here[runtime]:
                    continue
                key = f"benchmark {subject.name} {subject.window}"
                request = RuntimeRequest(network, torch.device("cpu"), precision, subject.window, 1, key)
                predict = open_runtime(runtime, request).predict
                seconds = median_seconds(partial(predict, tiles), 3 if quick else 9)
                size = 4 if precision == "float32" else 2
                rows.append(
                    {
                        "network": subject.name,
                        "window": list(subject.window),
                        "runtime": runtime,
                        "precision": precision,
                        "cpu_s": seconds,
                        "gflop": flops / 1e9,
                        "gbytes": traffic * size / 4 / 1e9,
                    }
                )
    return rows


def best_seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """The least CPU time of some calls after one that is not counted; short calls are counted many at a time.

    Args:
        call: what is timed.
        repeats: how often.
    """
    call()
    start = time.process_time()
    call()
    many = max(1, int(0.1 / max(1e-6, time.process_time() - start)))
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(many):
            call()
        taken.append((time.process_time() - start) / many)
    return min(taken)


def median_seconds(call: Callable[[], object], repeats: int) -> float:
    """The median CPU time of some calls after two that are not counted.

    Args:
        call: what is timed.
        repeats: how often.
    """
    call()
    call()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def count_traffic(network: SegmentationNetwork, tiles: Tensor) -> int:
    """Bytes that the operators of a forward pass read and write, in float32; views move nothing.

    Args:
        network: ours.
        tiles: its input.
    """
    with torch.no_grad(), _Traffic() as traffic:
        network.logits(tiles)
    return traffic.total


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own metaclass
    """Adds up the bytes of what each operator takes and gives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.total += sum(each.nbytes for each in tree_leaves((args, out)) if isinstance(each, Tensor))
        return out
