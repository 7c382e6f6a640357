"""INT8 through OpenVINO and NNCF: ranges are read once, then any set of blocks can be run or written."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
from effvit_med.engine.quantisation.packages import import_optional, quiet_nncf
from effvit_med.errors import OutputError, SettingsError
from effvit_med.networks import SegmentationNetwork, fold_batchnorm
from effvit_med.networks.export import export_program

_EXTRA = "openvino"
_WEIGHTED = frozenset({"Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul"})
_BETWEEN = frozenset({"Reshape", "Convert", "Transpose", "Squeeze", "Unsqueeze"})
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
#: What normalises attention: linear attention divides, softmax attention has its own operator.
_NORMALISERS = frozenset({"Divide", "Softmax"})


class OpenVinoCandidate:
    """A network whose ranges NNCF has read, with the sums, products and division of attention left alone.

    NNCF quantises everything but attention and the logits in one pass. A block is given back its float32 weights, and
    its operators the values before rounding, by rewiring a copy of that graph; so one calibration serves all choices,
    and the file that is written is the graph that was measured.

    Args:
        network: the network; it is not changed.
        tiles: (batch, channels, *window) to read the ranges from, all of one size.

    Attributes:
        blocks: in the network's order.
        float_model: the converted network without INT8.
        int8_model: with every block but the last in INT8.

    Raises:
        SettingsError: if a package is missing or the network cannot be converted.
    """

    def __init__(self, network: SegmentationNetwork, tiles: Sequence[Tensor]) -> None:
        self._openvino = import_optional("openvino", _EXTRA)
        folded = fold_batchnorm(network)
        self.float_model = convert_network(folded, tuple(tiles[0].shape[1:]))
        names = LayerNames(folded)
        operators, weights = _read_operators(self.float_model, names)
        self._weights = weights
        self._block_of_operator = assign_blocks(operators)
        logits = _last_layers(self.float_model, frozenset(weights))
        layers = {each.name: each.layer for each in operators if each.layer is not None}
        self.blocks = list_blocks(folded, list(layers.values()), [layers[name] for name in logits if name in layers])
        self._fixed = {block.name for block in self.blocks if block.fixed}
        kept = attention_operators(self.float_model, frozenset(weights)) | logits
        self.int8_model = _calibrate(self.float_model, tiles, kept)

    def graph(self, int8: frozenset[str]) -> Any:
        """The OpenVINO model with these blocks in INT8.

        Args:
            int8: names of blocks.
        """
        if not int8:
            return self.float_model
        model = self.int8_model.clone()
        for node in model.get_ops():
            block = self._block_of_operator.get(node.get_friendly_name())
            if block is not None and (block not in int8 or block in self._fixed):
                self._restore(node)
        model.validate_nodes_and_infer_types()
        return model

    def predict(self, int8: frozenset[str], precision: Precision) -> Predict:
        """The network with these blocks in INT8 and the others in ``precision``.

        Args:
            int8: names of blocks.
            precision: of the rest; a processor without bfloat16 computes in float32.

        Raises:
            SettingsError: if OpenVINO has no implementation for this processor.
        """
        return compile_model(self.graph(int8), precision)

    def write(self, int8: frozenset[str], folder: Path) -> tuple[Path, ...]:
        """Writes ``model.xml`` and ``model.bin``.

        Args:
            int8: names of blocks.
            folder: where; it must exist.

        Returns:
            The two files.

        Raises:
            OutputError: if they cannot be written.
        """
        path = folder / "model.xml"
        try:
            self._openvino.save_model(self.graph(int8), path, compress_to_fp16=False)
        except RuntimeError as error:
            raise OutputError(f"The INT8 network cannot be written to {path}: {error}.") from error
        return path, path.with_suffix(".bin")

    def _restore(self, node: Any) -> None:
        """Gives an operator the values and weights that it had before quantisation."""
        weight = self._weights.get(node.get_friendly_name())
        for index, port in enumerate(node.inputs()):
            source = port.get_source_output()
            if weight is not None and index == weight[0]:
                shape = list(source.get_partial_shape().to_shape())
                port.replace_source_output(self._openvino.opset13.constant(weight[1].reshape(shape)).output(0))
                continue
            while source.get_node().get_type_name() == "FakeQuantize":
                source = source.get_node().input(0).get_source_output()
            if source != port.get_source_output():
                port.replace_source_output(source)


def convert_network(folded: SegmentationNetwork, shape: tuple[int, ...]) -> Any:
    """A network as an OpenVINO model for one tile at a time.

    It comes from the torch program and not from an ONNX file: the times are the same, and the graph is free of the
    hundreds of operators on shapes that the ONNX reader makes for biases, among them divisions.

    Args:
        folded: the network, its batch normalisations folded.
        shape: (channels, *window) of a tile.

    Returns:
        An ``openvino.Model`` from (1, channels, *window) to logits.

    Raises:
        SettingsError: if OpenVINO is not installed or the network cannot be recorded.
    """
    openvino = import_optional("openvino", _EXTRA)
    program = export_program(LogitsOf(folded), torch.zeros(1, *shape), dynamic=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch and OpenVINO to their own developers
        model = openvino.convert_model(program)
    model.reshape([1, *shape])
    return model


def compile_model(model: Any, precision: Precision) -> Predict:
    """An OpenVINO model made ready for this processor, with as many threads as torch has.

    Args:
        model: for one tile at a time.
        precision: of what is not INT8.

    Raises:
        SettingsError: if OpenVINO has no implementation for this processor.
    """
    openvino = import_optional("openvino", _EXTRA)
    settings = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    try:
        compiled = openvino.Core().compile_model(model, "CPU", settings)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise SettingsError(f"OpenVINO cannot run the network in {precision} on this processor: {reason}") from error

    def predict(tiles: Tensor) -> Tensor:
        parts = [torch.from_numpy(compiled(tile[None].float().contiguous().numpy())[0].copy()) for tile in tiles]
        return torch.cat(parts)

    return predict


def attention_operators(model: Any, layers: frozenset[str]) -> set[str]:
    """The operators between the projections of each attention: reshapes, ReLU, sums, products, division.

    Args:
        model: an OpenVINO model.
        layers: names of the operators with weights, where the search ends.

    Returns:
        Friendly names: every division, softmax and product of two activations, and all between a layer and these.

    Source:
        Lee et al., Q-HyViT (arXiv 2303.12557): the wide ranges in hybrid vision transformers are what INT8 breaks. A
        divisor near 0 has no step of an integer grid that fits it.
    """
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    inputs = {name: _input_names(node) for name, node in nodes.items()}
    starts = [
        name
        for name, node in nodes.items()
        if node.get_type_name() in _NORMALISERS or (node.get_type_name() == "MatMul" and name not in layers)
    ]
    stop = {name for name, node in nodes.items() if node.get_type_name() in ("Constant", "Parameter")}
    return ancestors(starts, inputs, layers | stop)


def _last_layers(model: Any, layers: frozenset[str]) -> set[str]:
    """The layer that gives the logits, and what follows it."""
    inputs = {node.get_friendly_name(): _input_names(node) for node in model.get_ops()}
    waiting, found = [result.get_friendly_name() for result in model.get_results()], set()
    while waiting:
        name = waiting.pop()
        found.add(name)
        if name not in layers:
            waiting.extend(inputs[name])
    return found & set(inputs)


def _read_operators(model: Any, names: LayerNames) -> tuple[list[Operator], dict[str, tuple[int, Any]]]:
    """The operators, each after those it takes from, and for those with weights the port and the float32 weights."""
    operators, weights = [], {}
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind == "Constant":
            continue
        layer = None
        for index in (1, 0) if kind in _WEIGHTED else ():
            constant = _constant_behind(node.input(index))
            layer = names.of(constant) if constant is not None else None
            if layer is not None:
                weights[name] = (index, constant)
                break
        operators.append(Operator(name, _input_names(node), layer))
    return operators, weights


def _constant_behind(port: Any) -> Any:
    node = port.get_source_output().get_node()
    while node.get_type_name() in _BETWEEN:
        node = node.input(0).get_source_output().get_node()
    return node.get_data() if node.get_type_name() == "Constant" else None


def _input_names(node: Any) -> tuple[str, ...]:
    return tuple(port.get_source_output().get_node().get_friendly_name() for port in node.inputs())


def _calibrate(model: Any, tiles: Sequence[Tensor], kept: set[str]) -> Any:
    """The model in INT8 but for some operators, its ranges read from the tiles.

    Bias correction and channel alignment are off: they change weights for the whole graph in INT8, and a block that is
    given back would keep the changes. Weights take half of the range of INT8: a processor without VNNI adds pairs of
    products in 16 bits, which would overflow. The activations are symmetric: OpenVINO has no mixture of shifted INT8
    and bfloat16 for every convolution.
    """
    nncf = import_optional("nncf", _EXTRA)
    advanced = import_optional("nncf.quantization.advanced_parameters", _EXTRA)
    samples = [sample[None].contiguous().numpy() for tile in tiles for sample in tile.float()]
    with quiet_nncf(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NNCF to its own developers
        return nncf.quantize(
            model,
            nncf.Dataset(samples),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=sorted(kept), validate=False),
            advanced_parameters=advanced.AdvancedQuantizationParameters(
                overflow_fix=advanced.OverflowFix.ENABLE, disable_bias_correction=True, disable_channel_alignment=True
            ),
        )
