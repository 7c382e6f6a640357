"""TensorRT on a CUDA device: an engine built once for a network, a device and a window, and kept in the cache folder.

It comes by way of the ONNX file too. In float16 the attention is held in float32, as everywhere in effvit-med: its sums
over all voxels pass the range of float16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.engine.runtimes.cache import cache_folder
from effvit_med.engine.runtimes.graph import Graph, cache_name, cached_graph
from effvit_med.engine.runtimes.package import load_package, package_versions, why_absent
from effvit_med.engine.runtimes.request import RuntimeRequest
from effvit_med.errors import SettingsError, WeightsError
from effvit_med.io.atomic import atomic_path

_FLAGS = {"float16": "FP16", "bfloat16": "BF16"}
_WORKSPACE_BYTES = 1 << 30
#: The layers of the attention's sums, products and quotient; convolutions are not among them.
_WIDE_LAYERS = ("MATRIX_MULTIPLY", "REDUCE", "ELEMENTWISE")


def why_not_tensorrt(device: torch.device) -> str:
    """A sentence that says why TensorRT cannot be used on a device; empty if it can.

    Args:
        device: where the network shall run.
    """
    if device.type != "cuda":
        return f"The runtime tensorrt needs a CUDA device; the device is {device}."
    return why_absent("tensorrt")


def engine_path(request: RuntimeRequest) -> Path:
    """Where the engine of a request is kept; it is there if one was built before.

    Args:
        request: the network and how it is to be run.
    """
    sizes = [str(request.batch_size), *map(str, request.window)]
    versions = sorted(package_versions("tensorrt").values())
    name = cache_name(request, torch.cuda.get_device_name(request.device), request.precision, *sizes, *versions)
    return cache_folder("tensorrt") / f"{name}.engine"


class TensorRtRuntime:
    """An engine of TensorRT for tiles of one size and batches up to that of the request; building it takes minutes.

    Args:
        request: the network and how it is to be run.

    Raises:
        SettingsError: if TensorRT or CUDA is missing, this TensorRT has not the precision, or it cannot build.
        WeightsError: if the engine in the cache folder is damaged.
        OutputError: if the engine cannot be kept.
    """

    name = "tensorrt"

    def __init__(self, request: RuntimeRequest) -> None:
        why = why_not_tensorrt(request.device)
        if why:
            raise SettingsError(why)
        self.precision = request.precision
        self._trt = load_package("tensorrt", "tensorrt")
        self._logger = self._trt.Logger(self._trt.Logger.ERROR)
        self._graph = cached_graph(request)
        path = engine_path(request)
        with torch.cuda.device(request.device):
            if not path.is_file():
                plan = self._build()
                with atomic_path(path) as temporary:
                    temporary.write_bytes(plan)
            engine = self._trt.Runtime(self._logger).deserialize_cuda_engine(path.read_bytes())
            if engine is None:
                raise WeightsError(f"TensorRT cannot read {path}; remove the file, and it is built again.")
            names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
            is_input = [engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT for name in names]
            self._input, self._output = names[is_input.index(True)], names[is_input.index(False)]
            self._engine = engine  # the context needs it
            self._context = engine.create_execution_context()

    @torch.inference_mode()
    def predict(self, tiles: Float[Tensor, "batch channels *window"]) -> Float[Tensor, "batch classes *out"]:
        """The float32 logits of tiles, at the network's output stride, on the device of the request.

        Raises:
            SettingsError: if the tiles are not of the size that the runtime was opened for, or TensorRT fails.
        """
        self._graph.check_tiles(tiles)
        device = self._graph.device
        tiles = tiles.to(device, torch.float32).contiguous()
        result = torch.empty(self._graph.out_shape(len(tiles)), device=device)
        with torch.cuda.device(device):
            stream = torch.cuda.current_stream(device)
            for start in range(0, len(tiles), self._graph.batch_size):
                part = tiles[start : start + self._graph.batch_size]
                self._context.set_input_shape(self._input, tuple(part.shape))
                self._context.set_tensor_address(self._input, part.data_ptr())
                self._context.set_tensor_address(self._output, result[start:].data_ptr())
                if not self._context.execute_async_v3(stream.cuda_stream):
                    raise SettingsError(f"TensorRT failed on tiles of {tuple(part.shape)}; use the runtime eager.")
        return result

    def describe(self) -> dict[str, str]:
        """Versions, device and arithmetic, for the record."""
        return {
            "runtime": self.name,
            "precision": self.precision,
            "device": torch.cuda.get_device_name(self._graph.device),
            **package_versions("tensorrt"),
        }

    def _build(self) -> Any:
        """The serialised engine."""
        trt, graph = self._trt, self._graph
        builder = trt.Builder(self._logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse(graph.path.read_bytes()):
            errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
            raise SettingsError(f"TensorRT cannot read the network: {errors}. Use the runtime eager.")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE_BYTES)
        config.clear_flag(trt.BuilderFlag.TF32)  # it would round float32 to 10 bits
        if graph.precision != "float32":
            _lower_precision(trt, graph, network, config)
        profile = builder.create_optimization_profile()
        most = graph.in_shape(graph.batch_size)
        profile.set_shape(network.get_input(0).name, graph.in_shape(1), most, most)
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise SettingsError(f"TensorRT cannot build an engine for tiles of {most}; use the runtime eager.")
        return plan


def _lower_precision(trt: Any, graph: Graph, network: Any, config: Any) -> None:
    """Allow half precision, but not in the sums of the attention."""
    flag = getattr(trt.BuilderFlag, _FLAGS[graph.precision], None)
    if flag is None:  # newer versions take the precision from the file alone
        raise SettingsError(
            f"TensorRT {trt.__version__} cannot lower a float32 network to {graph.precision}; use the precision "
            "float32, or the runtime eager."
        )
    config.set_flag(flag)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    wide = [getattr(trt.LayerType, name) for name in _WIDE_LAYERS]
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        if layer.type in wide and all(output.dtype == trt.float32 for output in outputs):
            layer.precision = trt.float32
            for index in range(layer.num_outputs):
                layer.set_output_type(index, trt.float32)
