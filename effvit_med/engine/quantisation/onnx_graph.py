"""INT8 through ONNX Runtime: the portable fallback, which is slower than OpenVINO and in 3D often than float32."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effvit_med.engine.quantisation.blocks import (
    LayerNames,
    LogitsOf,
    Operator,
    ancestors,
    assign_blocks,
    list_blocks,
)
from effvit_med.engine.quantisation.options import Precision, Predict
from effvit_med.engine.quantisation.packages import import_optional
from effvit_med.engine.runtimes.package import without_notes_on_torchvision
from effvit_med.errors import OutputError, SettingsError
from effvit_med.networks import SegmentationNetwork, fold_batchnorm
from effvit_med.networks.export import export_onnx

_EXTRA = "onnx"
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")
_ATTENTION = ("Div", "Softmax", "MatMul", "ReduceSum")


class OnnxCandidate:
    """A network whose ranges ONNX Runtime has read; only convolutions are INT8, so attention never is.

    Each input, output and weight of a convolution passes a pair of operators that rounds it; attention is given the
    projections before rounding. A block is given back by taking
    the pairs before its operators out of a copy of that graph; the weights themselves stay float32 in the file, and the
    runtime rounds them when it loads it.

    Args:
        network: the network; it is not changed.
        tiles: (batch, channels, *window) to read the ranges from, all of one size.

    Attributes:
        blocks: in the network's order.
        int8_model: with every block but the last in INT8, an ``onnx.ModelProto``.

    Raises:
        SettingsError: if a package is missing or the network cannot be converted.
    """

    def __init__(self, network: SegmentationNetwork, tiles: Sequence[Tensor]) -> None:
        self._onnx = import_optional("onnx", _EXTRA)
        import_optional("onnxruntime", _EXTRA)
        folded = fold_batchnorm(network)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "float.onnx"
            example = torch.zeros(1, *tiles[0].shape[1:])
            with without_notes_on_torchvision():
                export_onnx(LogitsOf(folded), path, example, dynamic=False)
            operators, last = self._read_operators(path, LayerNames(folded))
            self.int8_model = self._calibrate(path, tiles, last)
        layers = {each.name: each.layer for each in operators if each.layer is not None}
        self.blocks = list_blocks(folded, list(layers.values()), [layers[name] for name in last])
        self._block_of_operator = assign_blocks(operators)
        self._attention = self._find_attention(operators)

    def graph(self, int8: frozenset[str]) -> Any:
        """The ONNX model with these blocks in INT8.

        Args:
            int8: names of blocks.
        """
        model = copy.deepcopy(self.int8_model)
        producer = {name: node for node in model.graph.node for name in node.output}
        for node in model.graph.node:
            rounded = self._block_of_operator.get(node.name) in int8 and node.name not in self._attention
            if node.op_type in _ROUNDING or rounded:
                continue
            for index, name in enumerate(node.input):
                node.input[index] = _before_rounding(name, producer)
        for output in model.graph.output:  # the logits themselves are never rounded
            source = _before_rounding(output.name, producer)
            if source != output.name:
                producer[source].output[list(producer[source].output).index(source)] = output.name
        _drop_unused(model.graph)
        return model

    def predict(self, int8: frozenset[str], precision: Precision) -> Predict:
        """The network with these blocks in INT8.

        Args:
            int8: names of blocks.
            precision: of the rest; float32 is used whatever it says.
        """
        del precision
        runtime = import_optional("onnxruntime", _EXTRA)
        settings = runtime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 3  # errors
        content = self.graph(int8).SerializeToString()
        session = runtime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def predict(tiles: Tensor) -> Tensor:
            parts = [session.run(None, {name: tile[None].float().contiguous().numpy()})[0] for tile in tiles]
            return torch.cat([torch.from_numpy(part) for part in parts])

        return predict

    def write(self, int8: frozenset[str], folder: Path) -> tuple[Path, ...]:
        """Writes ``model.onnx``.

        Args:
            int8: names of blocks.
            folder: where; it must exist.

        Returns:
            The file.

        Raises:
            OutputError: if it cannot be written.
        """
        path = folder / "model.onnx"
        try:
            self._onnx.save(self.graph(int8), str(path))
        except OSError as error:
            raise OutputError(f"The INT8 network cannot be written to {path}: {error}.") from error
        return (path,)

    def _read_operators(self, path: Path, names: LayerNames) -> tuple[list[Operator], list[str]]:
        """The operators in order, and the names of those with weights that give the logits."""
        graph = self._onnx.load(str(path)).graph
        if len({node.name for node in graph.node}) < len(graph.node):
            raise SettingsError("The ONNX graph has operators without names of their own; it cannot be quantised.")
        weights = {each.name: self._onnx.numpy_helper.to_array(each) for each in graph.initializer}
        producer = {name: node.name for node in graph.node for name in node.output}
        operators = []
        for node in graph.node:
            inputs = tuple(producer[name] for name in node.input if name in producer)
            weight = weights.get(node.input[1]) if node.op_type == "Conv" else None
            operators.append(Operator(node.name, inputs, names.of(weight) if weight is not None else None))
        table = {each.name: each for each in operators}
        waiting, last = [producer[each.name] for each in graph.output], []
        while waiting:
            operator = table[waiting.pop()]
            if operator.layer is not None:
                last.append(operator.name)
            else:
                waiting.extend(operator.inputs)
        return operators, last

    def _find_attention(self, operators: Sequence[Operator]) -> set[str]:
        """The operators between the projections of each attention, which get what the layers gave before rounding."""
        inputs = {each.name: each.inputs for each in operators}
        layers = frozenset(each.name for each in operators if each.layer is not None)
        starts = [node.name for node in self.int8_model.graph.node if node.op_type in _ATTENTION]
        return ancestors(starts, inputs, layers)

    def _calibrate(self, path: Path, tiles: Sequence[Tensor], last: list[str]) -> Any:
        tools = import_optional("onnxruntime.quantization", _EXTRA)
        model = self._onnx.load(str(path))
        name = model.graph.input[0].name
        model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # done by the exporter
        samples = iter([{name: sample[None].contiguous().numpy()} for tile in tiles for sample in tile.float()])
        reader = _make_reader(tools, samples)
        out = path.with_name("int8.onnx")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ONNX Runtime to its own developers
            tools.quantize_static(
                model,
                str(out),
                reader,
                quant_format=tools.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                activation_type=tools.QuantType.QUInt8,
                weight_type=tools.QuantType.QInt8,
                nodes_to_exclude=last,
                extra_options={"AddQDQPairToWeight": True, "QuantizeBias": False},
            )
        return self._onnx.load(str(out))


def _make_reader(tools: Any, samples: Iterator[dict[str, Any]]) -> Any:
    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]  # the package is optional and has no types here
        def get_next(self) -> dict[str, Any] | None:
            return next(samples, None)

    return Reader()


def _before_rounding(name: str, producer: dict[str, Any]) -> str:
    """The value that a chain of rounding operators began with."""
    while name in producer and producer[name].op_type in _ROUNDING:
        name = producer[name].input[0]
    return name


def _drop_unused(graph: Any) -> None:
    """Takes out operators and constants that no output needs."""
    needed = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(node.input)
    kept.reverse()
    constants = [each for each in graph.initializer if each.name in needed]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants)
