"""From a name to a runtime, and which names can be used here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

import torch

from effvit_med.engine.runtimes.compiled import CompiledRuntime, why_not_compiled
from effvit_med.engine.runtimes.eager import EagerRuntime
from effvit_med.engine.runtimes.graph import cached_graph
from effvit_med.engine.runtimes.onnx_runtime import OnnxRuntime, why_not_onnx
from effvit_med.engine.runtimes.openvino_runtime import OpenVinoRuntime, why_not_openvino
from effvit_med.engine.runtimes.request import Runtime, RuntimeName, RuntimeRequest
from effvit_med.engine.runtimes.tensorrt_runtime import TensorRtRuntime, why_not_tensorrt
from effvit_med.errors import SettingsError

RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)

_WHY_NOT: Mapping[RuntimeName, Callable[[torch.device], str]] = {
    "eager": lambda _: "",
    "compile": why_not_compiled,
    "onnx": why_not_onnx,
    "openvino": why_not_openvino,
    "tensorrt": why_not_tensorrt,
}

_OPEN: Mapping[RuntimeName, Callable[[RuntimeRequest], Runtime]] = {
    "eager": EagerRuntime,
    "compile": CompiledRuntime,
    "onnx": lambda request: OnnxRuntime(cached_graph(request)),
    "openvino": lambda request: OpenVinoRuntime(cached_graph(request)),
    "tensorrt": TensorRtRuntime,
}


def available_runtimes(device: torch.device) -> dict[RuntimeName, str]:
    """Every runtime, with what speaks against it on a device.

    Args:
        device: where the network shall run.

    Returns:
        For each name an empty text if it can be used, else a sentence that says why not.

    Examples:
        >>> available_runtimes(torch.device("cpu"))["eager"]
        ''
        >>> available_runtimes(torch.device("cpu"))["tensorrt"]
        'The runtime tensorrt needs a CUDA device; the device is cpu.'
    """
    return {name: _WHY_NOT[name](device) for name in RUNTIMES}


def open_runtime(name: RuntimeName, request: RuntimeRequest) -> Runtime:
    """A network, ready to run in a runtime.

    Args:
        name: of the runtime.
        request: the network and how it is to be run.

    Returns:
        The runtime; its ``predict`` takes any number of tiles of the window, most quickly as many as the batch size.

    Raises:
        SettingsError: if the name is unknown, the runtime is not installed or cannot run on the device or in the
            precision, or the network has no counterpart in it.
        WeightsError: if a file in the cache folder is damaged.
        OutputError: if the cache folder cannot be written.

    Examples:
        >>> from effvit_med.networks import build_network, fold_batchnorm
        >>> network = fold_batchnorm(build_network(2, 1, 3))
        >>> request = RuntimeRequest(network, torch.device("cpu"), "float32", (32, 32), 4, key="an example")
        >>> tuple(open_runtime("eager", request).predict(torch.zeros(2, 1, 32, 32)).shape)
        (2, 3, 32, 32)
    """
    if name not in RUNTIMES:
        raise SettingsError(f"The runtime {name!r} is unknown; use {', '.join(RUNTIMES)}.")
    why = _WHY_NOT[name](request.device)
    if why:
        raise SettingsError(why)
    return _OPEN[name](request)
