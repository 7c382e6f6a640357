"""Which operator of a converted graph belongs to which block of the network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from effvit_med.engine.quantisation.options import Precision, Predict
from effvit_med.errors import SettingsError
from effvit_med.networks import SegmentationNetwork

_HALVES = ("context_module", "local_module")
_LEVEL_PARTS = ("narrow", "skip", "refine")
_SEARCHED = 5


@dataclass(frozen=True)
class Block:
    """A part of a network that is quantised as one.

    Attributes:
        name: its path in the torch module tree.
        layers: convolutions and matrix products with weights in it.
        fixed: whether it stays in higher precision whatever is measured: it gives the logits.
    """

    name: str
    layers: int
    fixed: bool = False


@runtime_checkable
class Candidate(Protocol):
    """A network with known ranges, of which any set of blocks can be run or written in INT8.

    Attributes:
        blocks: in the network's order.
    """

    blocks: tuple[Block, ...]

    def predict(self, int8: frozenset[str], precision: Precision) -> Predict:
        """The network with these blocks in INT8 and the others in ``precision``."""
        ...

    def write(self, int8: frozenset[str], folder: Path) -> tuple[Path, ...]:
        """Writes that network into a folder and returns the files."""
        ...


def block_of(layer: str) -> str:
    """The block that a layer belongs to.

    Blocks are those that BRECQ reconstructs: the stem, each residual block of a stage, and where a block has an
    attention half and a local half, each of these. What a decoder does at one resolution is one block.

    Args:
        layer: dotted path of a convolution or linear layer in a segmentation network.

    Source:
        Li et al., BRECQ, ICLR 2021 (arXiv 2102.05426), section 3.2: blocks as the unit of reconstruction.

    Examples:
        >>> block_of("backbone.stages.2.op_list.1.context_module.main.qkv.conv")
        'backbone.stages.2.op_list.1.context_module'
        >>> block_of("head.refine.3.op_list.0.main.point_conv.conv"), block_of("backbone.input_stem.op_list.0.conv")
        ('head.level_3', 'backbone.input_stem')
    """
    parts = layer.split(".")
    if len(parts) > 2 and parts[0] == "head" and parts[1] in _LEVEL_PARTS:
        return f"head.level_{parts[2]}"
    if len(parts) > 1 and parts[1] in ("input_stem", "patch_embed"):
        return ".".join(parts[:2])
    for half in _HALVES:
        if half in parts:
            return ".".join(parts[: parts.index(half) + 1])
    numbers = [index for index, part in enumerate(parts[:_SEARCHED]) if part.isdigit()]
    return ".".join(parts[: numbers[-1] + 1] if numbers else parts[:2])


class LayerNames:
    """Finds the torch layer that a constant of a converted graph came from, by its bytes.

    Converters name and order operators as they like, but the weights stay what they are.

    Args:
        network: the network that was converted, its batch normalisations folded.
    """

    def __init__(self, network: nn.Module) -> None:
        self._names: dict[str, list[str]] = {}
        for name, parameter in network.named_parameters():
            layer, _, kind = name.rpartition(".")
            if kind == "weight" and parameter.dim() >= 2:
                forms = [parameter, parameter.mT] if parameter.dim() == 2 else [parameter]
                for form in forms:
                    self._names.setdefault(_fingerprint(form.detach().cpu().contiguous().numpy()), []).append(layer)

    def of(self, weight: Any) -> str | None:
        """The layer with this weight, a float32 array; equal weights are given out in the network's order."""
        names = self._names.get(_fingerprint(weight), [])
        return names.pop(0) if len(names) > 1 else (names[0] if names else None)


def _fingerprint(array: Any) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


@dataclass(frozen=True)
class Operator:
    """One operator of a converted graph.

    Attributes:
        name: unique in the graph.
        inputs: names of the operators it takes from.
        layer: the torch layer whose weights it has, or None.
    """

    name: str
    inputs: tuple[str, ...]
    layer: str | None = None


def assign_blocks(operators: Iterable[Operator]) -> dict[str, str]:
    """The block of each operator: that of its layer, or of the input with the most layers behind it.

    Args:
        operators: each after those it takes from.

    Returns:
        Block by operator; operators before the first layer are left out.

    Examples:
        >>> graph = [Operator("a", (), "stem.conv"), Operator("b", ("a",), "body.conv"), Operator("+", ("a", "b"))]
        >>> assign_blocks(graph)
        {'a': 'stem.conv', 'b': 'body.conv', '+': 'body.conv'}
    """
    depth: dict[str, int] = {}
    blocks: dict[str, str] = {}
    for operator in operators:
        before = max(operator.inputs, key=lambda name: depth.get(name, 0), default="")
        depth[operator.name] = depth.get(before, 0) + (operator.layer is not None)
        if operator.layer is not None:
            blocks[operator.name] = block_of(operator.layer)
        elif before in blocks:
            blocks[operator.name] = blocks[before]
    return blocks


def list_blocks(network: nn.Module, layers: Sequence[str], last: Sequence[str]) -> tuple[Block, ...]:
    """The blocks of the layers that were found in a graph, in the network's order.

    Args:
        network: the network.
        layers: the layers found.
        last: those that give the logits; their blocks are fixed.

    Raises:
        SettingsError: if no layer gives the logits, or no block is left to quantise.
    """
    fixed = {block_of(layer) for layer in last}
    order = [block_of(name) for name, _ in network.named_modules() if name in layers]
    blocks = tuple(
        Block(name, sum(block_of(layer) == name for layer in layers), fixed=name in fixed)
        for name in dict.fromkeys(order)
    )
    if not fixed or all(block.fixed for block in blocks):
        raise SettingsError(
            f"In the converted {type(network).__name__} {len(layers)} layers were found, in {len(blocks)} blocks of "
            f"which {len(fixed)} give the logits; INT8 needs one that does and others before it."
        )
    return blocks


class LogitsOf(nn.Module):
    """A segmentation network as a module whose forward gives logits at the decoder's own resolution.

    Args:
        network: the network.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network
        self.spatial_dims, self.in_channels = network.spatial_dims, network.in_channels

    def forward(self, x: Tensor) -> Tensor:
        """The logits, (batch, classes, *less_space)."""
        return self.network.logits(x)


def ancestors(start: Iterable[str], inputs: Mapping[str, Sequence[str]], stop: frozenset[str]) -> set[str]:
    """Some operators and all that leads to them, up to but without those in ``stop``.

    Args:
        start: where to begin.
        inputs: what each operator takes from.
        stop: operators that end the search.
    """
    found: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name not in found and name not in stop:
            found.add(name)
            waiting.extend(inputs.get(name, ()))
    return found
