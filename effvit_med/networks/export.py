"""Networks as graphs for other runtimes: a torch program, or an ONNX file; one graph serves images of every size.

What is exported is for inference: a copy in eval mode, its batch normalisations folded into the convolutions.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effvit_med.errors import OutputError, SettingsError
from effvit_med.networks.weights import fold_batchnorm

_INPUT = "image"
_ONNX_PACKAGES = ("onnx", "onnxscript")
_AXES = {2: ("batch", "height", "width"), 3: ("batch", "depth", "height", "width")}
#: A graph with free axes is recorded at sizes so large that every network has several windows on every axis.
_RECORDED_SIZES = (4030, 4038, 4046)
_RECORDED_BATCH = 2


@dataclass(frozen=True)
class OnnxExport:
    """What an ONNX file holds; the same is written into its metadata.

    Attributes:
        path: the file.
        opset: the version of the ONNX operators that it needs.
        input_names: ``image`` alone.
        output_names: ``output``; or ``map_0`` and so on for several maps, finest first.
        dynamic: whether the batch and the spatial axes are free.
    """

    path: Path
    opset: int
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic: bool


def export_program(network: nn.Module, example: Tensor, dynamic: bool = True) -> torch.export.ExportedProgram:
    """A network as a graph of torch operators, without its Python code.

    Args:
        network: a backbone, a segmentation network, a classifier or an image encoder; it is not changed.
        example: an image, (batch, channels, *space); only its shape, type and device matter, and with free axes not
            even the sizes of these.
        dynamic: whether the batch and the spatial axes are free, from 1 on; else they are the example's.

    Returns:
        The program; ``program.module()`` runs it and `torch.export.save` keeps it.

    Raises:
        SettingsError: if the example is no image of this network, or the network cannot be recorded or ties an axis
            that shall be free to one size.

    Examples:
        >>> from effvit_med.networks.build import build_network
        >>> network = build_network(2, in_channels=1, out_channels=3).eval()
        >>> program = export_program(network, torch.zeros(1, 1, 32, 32), dynamic=False)
        >>> image = torch.rand(1, 1, 32, 32)
        >>> torch.allclose(program.module()(image), network(image), atol=1e-4)
        True
    """
    _check_example(network, example)
    folded = fold_batchnorm(network).requires_grad_(requires_grad=False)
    import torch.export  # with it come sympy and much else, which nobody needs who exports nothing

    free: Sequence[int] = (0, *range(2, example.dim())) if dynamic else ()
    if dynamic:
        shape = (_RECORDED_BATCH, example.shape[1], *_RECORDED_SIZES[: example.dim() - 2])
        example = example.new_zeros((1,) * example.dim()).expand(shape)  # so large an image is not stored
    try:
        with (
            warnings.catch_warnings(),
            torch.enable_grad(),
        ):  # without, activations are recorded as written in place, which converters split up
            warnings.simplefilter("ignore")  # of torch to its own developers
            shapes = (dict.fromkeys(free, torch.export.Dim.AUTO),) if free else None
            program = torch.export.export(folded, (example,), dynamic_shapes=shapes)
    except (RuntimeError, ValueError) as error:
        raise SettingsError(f"{type(network).__name__} cannot be recorded as a graph: {error}") from error
    if dynamic:
        _free_axes(program, free, type(network).__name__)
    return program


def export_onnx(network: nn.Module, path: str | Path, example: Tensor, dynamic: bool = True) -> OnnxExport:
    """Writes a network as an ONNX file; the file appears whole or not at all.

    Args:
        network: a backbone, a segmentation network, a classifier or an image encoder; it is not changed.
        path: the file to write; one that exists is replaced.
        example: an image, (batch, channels, *space); only its shape, type and device matter, and with free axes not
            even the sizes of these.
        dynamic: whether the batch and the spatial axes are free, from 1 on; else they are the example's.

    Returns:
        The operator version and the names of input and outputs.

    Raises:
        SettingsError: if the packages for ONNX are not installed, the example is no image of this network, or the
            network cannot be recorded, ties an axis that shall be free to one size, or has no counterpart in ONNX.
        OutputError: if the file cannot be written.
    """
    absent = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        raise SettingsError(
            f"ONNX export needs {' and '.join(absent)}, which cannot be found; install effvit-med[onnx]."
        )
    program = export_program(network, example, dynamic)
    outputs = len(program.graph_signature.user_outputs)
    names = ("output",) if outputs == 1 else tuple(f"map_{index}" for index in range(outputs))
    converted = _convert(program, names, _AXES[example.dim() - 2] if dynamic else ())
    result = OnnxExport(Path(path), converted.model.opset_imports[""], (_INPUT,), names, dynamic)
    converted.model.metadata_props.update(
        {
            "opset": str(result.opset),
            "input_names": json.dumps(result.input_names),
            "output_names": json.dumps(result.output_names),
            "dynamic": json.dumps(dynamic),
        }
    )
    _save(converted, result.path)
    return result


def _check_example(network: nn.Module, example: Tensor) -> None:
    backbone = getattr(network, "backbone", network)
    dims, channels = getattr(backbone, "spatial_dims", None), getattr(backbone, "in_channels", None)
    if dims is None or channels is None:
        raise SettingsError(
            f"{type(network).__name__} has no spatial_dims and in_channels, nor a backbone that has; export a "
            "backbone or a network of one."
        )
    if example.dim() != dims + 2 or example.shape[1] != channels or example.numel() == 0:
        raise SettingsError(
            f"The example has the shape {tuple(example.shape)}; this network takes (batch, {channels} channels, "
            f"{dims} spatial axes)."
        )


def _free_axes(program: torch.export.ExportedProgram, free: Sequence[int], name: str) -> None:
    """Lets a program take sizes from 1 on.

    While recording, torch notes as conditions which axes had a single voxel, since these lie differently in memory. The
    operators do not mind, and our networks have no other branch. Upper limits are refused; what a module chooses below
    some size cannot be told from the layout and is lost.
    """
    from torch.utils._sympy.numbers import int_oo
    from torch.utils._sympy.value_ranges import ValueRanges

    image = program.graph_signature.user_inputs[0]
    shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == image)
    unlimited = {str(symbol) for symbol, sizes in program.range_constraints.items() if sizes.upper == int_oo}
    tied = [axis for axis in free if str(shape[axis]) not in unlimited]
    if tied or len({str(shape[axis]) for axis in free}) < len(free):
        axes = ", ".join(map(str, tied or free))
        raise SettingsError(f"{name} limits the sizes of the image along axes {axes}; export it with dynamic=False.")
    for symbol in program.range_constraints:
        program.range_constraints[symbol] = ValueRanges(1, int_oo)
    program._guards_code = []  # noqa: SLF001  the conditions; torch has no public way to drop them


def _convert(program: torch.export.ExportedProgram, outputs: tuple[str, ...], axes: tuple[str, ...]) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch to its own developers
            converted: Any = torch.onnx.export(
                program,
                input_names=[_INPUT],
                output_names=list(outputs),
                dynamo=True,
                verbose=False,
                external_data=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise SettingsError(f"The network has no counterpart in ONNX: {error}") from error
    if axes:
        batch, _, *space = converted.model.graph.inputs[0].shape
        converted.rename_axes(dict(zip((str(batch), *map(str, space)), axes, strict=True)))
    return converted


def _save(converted: Any, path: Path) -> None:
    temporary = path.with_name(f".{secrets.token_hex(4)}.part-{path.name}")
    try:
        converted.save(temporary, external_data=False)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"The ONNX file cannot be written to {path}: {error}. Check the folder and its space."
        ) from error
    finally:
        with contextlib.suppress(OSError):  # where the folder is none, nothing was begun
            temporary.unlink(missing_ok=True)
