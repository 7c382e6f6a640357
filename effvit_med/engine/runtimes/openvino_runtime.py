"""OpenVINO on a processor: the fastest of the runtimes there, in bfloat16 where the processor has it.

The network comes by way of its ONNX file. Measured on the shipped network at its window (one thread of a Xeon with
AMX, bfloat16, CPU time): 55 ms from the ONNX file against 67 ms from the torch program, whose additions OpenVINO does
not merge and whose layout it changes back and forth; 55 ms with fixed sizes against 66 ms with a free batch. Hence the
ONNX file, and fixed sizes.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.engine.runtimes.cache import cache_folder
from effvit_med.engine.runtimes.graph import Graph
from effvit_med.engine.runtimes.package import load_package, package_versions, why_absent
from effvit_med.engine.runtimes.request import split_batch
from effvit_med.errors import SettingsError, WeightsError

_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "bf16"}
_CAPABILITIES = {"bf16": "BF16", "f16": "FP16"}


def why_not_openvino(device: torch.device) -> str:
    """A sentence that says why OpenVINO cannot be used on a device; empty if it can.

    Args:
        device: where the network shall run.
    """
    if device.type != "cpu":
        return f"The runtime openvino runs on the processor here; the device is {device}."
    return why_absent("openvino")


class OpenVinoRuntime:
    """A network compiled by OpenVINO for tiles of one size.

    Whole batches and single tiles each have fixed sizes; what is left of a batch runs tile by tile, since a batch is
    no faster than its tiles except where these are very small.

    Args:
        graph: an ONNX file or an OpenVINO file (``.xml``) and how it is to be run. What stays unquantised in an
            ``int8`` file is computed in bfloat16 where the processor has it.
        strict: whether a processor without the wanted arithmetic is an error; else float32 is used there.

    Raises:
        SettingsError: if OpenVINO is missing, the device is no processor, or it has not the wanted arithmetic.
        WeightsError: if the file is damaged.
    """

    name = "openvino"

    def __init__(self, graph: Graph, *, strict: bool = True) -> None:
        openvino = load_package("openvino", "openvino")
        why = why_not_openvino(graph.device) if graph.device.type != "cpu" else ""
        if why:
            raise SettingsError(why)
        self._openvino = openvino
        self._graph = graph
        self._core = openvino.Core()
        hint = _HINTS[graph.precision]
        if _CAPABILITIES.get(hint, "FP32") not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            if strict and graph.precision != "int8":
                raise SettingsError(
                    f"This processor has no {graph.precision} ({self._processor()}); use the precision float32."
                )
            hint = "f32"
        self.precision = next(name for name, short in _HINTS.items() if short == hint)
        if graph.precision == "int8":
            self.precision = "int8"
        self._hint = hint
        self._requests: dict[int, Any] = {}
        self._request_for(graph.batch_size)

    @torch.inference_mode()
    def predict(self, tiles: Float[Tensor, "batch channels *window"]) -> Float[Tensor, "batch classes *out"]:
        """The float32 logits of tiles, at the network's output stride, on the processor.

        Raises:
            SettingsError: if the tiles are not of the size that the runtime was opened for.
        """
        self._graph.check_tiles(tiles)
        tiles = tiles.to("cpu", torch.float32).contiguous()
        result = torch.empty(self._graph.out_shape(len(tiles)))
        for place, part in split_batch(tiles, self._graph.batch_size):
            request = self._request_for(len(part))
            # both tensors lend their memory, so that nothing is copied
            request.set_input_tensor(self._openvino.Tensor(part.numpy(), shared_memory=True))
            request.set_output_tensor(self._openvino.Tensor(result[place].numpy(), shared_memory=True))
            request.infer()
        return result

    def describe(self) -> dict[str, str]:
        """Versions, device and arithmetic, for the record."""
        return {
            "runtime": self.name,
            "precision": self.precision,
            "hint": self._hint,
            "device": self._processor(),
            **package_versions("openvino"),
        }

    def _processor(self) -> str:
        return str(self._core.get_property("CPU", "FULL_DEVICE_NAME"))

    def _request_for(self, batch: int) -> Any:
        if batch not in self._requests:
            settings = {
                "INFERENCE_PRECISION_HINT": self._hint,
                "INFERENCE_NUM_THREADS": self._graph.threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "CACHE_DIR": str(cache_folder("openvino")),
            }
            try:
                model = self._core.read_model(self._graph.path)
                model.reshape(list(self._graph.in_shape(batch)))
                compiled = self._core.compile_model(model, "CPU", settings)
            except RuntimeError as error:
                raise WeightsError(
                    f"OpenVINO cannot read {self._graph.path}: {error}. Remove the file and make it anew."
                ) from error
            self._requests[batch] = compiled.create_infer_request()
        return self._requests[batch]
