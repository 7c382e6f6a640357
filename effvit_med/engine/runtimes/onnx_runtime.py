"""ONNX Runtime: the most portable of the runtimes; in float32, on a processor or a CUDA device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.engine.runtimes.graph import Graph
from effvit_med.engine.runtimes.package import load_package, package_versions, why_absent
from effvit_med.errors import SettingsError, WeightsError

_CUDA = "CUDAExecutionProvider"


def why_not_onnx(device: torch.device) -> str:
    """A sentence that says why ONNX Runtime cannot be used on a device; empty if it can.

    Args:
        device: where the network shall run.
    """
    absent = why_absent("onnx")
    if absent or device.type == "cpu":
        return absent
    if device.type != "cuda":
        return f"The runtime onnx knows cpu and cuda; the device is {device}."
    if _CUDA not in load_package("onnxruntime", "onnx").get_available_providers():
        return "The installed onnxruntime has no CUDA; install onnxruntime-gpu in its place."
    return ""


class OnnxRuntime:
    """A session of ONNX Runtime.

    Args:
        graph: an ONNX file and how it is to be run.

    Raises:
        SettingsError: if onnxruntime is missing or has not the device, or the arithmetic is half precision: the
            operators of ONNX Runtime have none on a processor, and graphs are written in float32.
        WeightsError: if the file is damaged.
    """

    name = "onnx"

    def __init__(self, graph: Graph) -> None:
        if graph.precision not in ("float32", "int8"):
            raise SettingsError(
                f"The runtime onnx computes in float32, not in {graph.precision}; use openvino or eager for that."
            )
        runtime = load_package("onnxruntime", "onnx")
        self.precision = graph.precision
        self._graph = graph
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors only
        options.intra_op_num_threads = graph.threads
        options.inter_op_num_threads = 1
        self._session = _open_session(runtime, graph, options)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name

    @torch.inference_mode()
    def predict(self, tiles: Float[Tensor, "batch channels *window"]) -> Float[Tensor, "batch classes *out"]:
        """The float32 logits of tiles, at the network's output stride, on the device of the request.

        Raises:
            SettingsError: if the tiles are not of the size that the runtime was opened for.
        """
        self._graph.check_tiles(tiles)
        tiles = tiles.to(self._graph.device, torch.float32).contiguous()
        if self._graph.device.type == "cpu":
            return torch.from_numpy(self._session.run([self._output], {self._input: tiles.numpy()})[0])
        result = torch.empty(self._graph.out_shape(len(tiles)), device=self._graph.device)
        binding = self._session.io_binding()
        for bind, name, tensor in (
            (binding.bind_input, self._input, tiles),
            (binding.bind_output, self._output, result),
        ):
            bind(name, "cuda", self._graph.device.index or 0, np.float32, tuple(tensor.shape), tensor.data_ptr())
        torch.cuda.current_stream(self._graph.device).synchronize()  # the session has a stream of its own
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return result

    def describe(self) -> dict[str, str]:
        """Versions, device and arithmetic, for the record."""
        return {
            "runtime": self.name,
            "precision": self.precision,
            "device": str(self._graph.device),
            "provider": self._session.get_providers()[0],
            **package_versions("onnxruntime", "onnxruntime-gpu"),
        }


def _open_session(runtime: Any, graph: Graph, options: Any) -> Any:
    providers: list[Any] = ["CPUExecutionProvider"]
    if graph.device.type != "cpu":
        why = why_not_onnx(graph.device)
        if why:
            raise SettingsError(why)
        # tensor cores would round float32 to 10 bits
        providers = [(_CUDA, {"device_id": graph.device.index or 0, "use_tf32": 0}), *providers]
    state = runtime.capi.onnxruntime_pybind11_state
    try:
        session = runtime.InferenceSession(str(graph.path), options, providers=providers)
    except (state.Fail, state.InvalidGraph, state.InvalidProtobuf, state.NoSuchFile, state.NotImplemented) as error:
        raise WeightsError(
            f"ONNX Runtime cannot read {graph.path}: {error}. Remove the file and make it anew."
        ) from error
    if graph.device.type != "cpu" and session.get_providers()[0] != _CUDA:  # it falls back without an error
        raise SettingsError(f"ONNX Runtime cannot use {graph.device}: its CUDA libraries do not load. Use eager.")
    return session
