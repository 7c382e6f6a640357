"""A model as a folder that other programs and runtimes can use, written only if it labels as the model does."""

from __future__ import annotations

import copy
import platform
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import effvit_med
from effvit_med.engine.contract import (
    CONTRACT_FILE,
    Contract,
    ContractFile,
    ContractParity,
    ContractTensor,
    ExportFormat,
    ExportPrecision,
    check_files,
    describe_contract_model,
    hash_file,
    read_contract,
    write_contract,
)
from effvit_med.engine.model import Model
from effvit_med.engine.runtimes import Runtime, RuntimeRequest, open_runtime
from effvit_med.engine.runtimes.graph import Graph, LogitsOf, write_graph
from effvit_med.engine.runtimes.onnx_runtime import OnnxRuntime
from effvit_med.engine.runtimes.openvino_runtime import OpenVinoRuntime
from effvit_med.engine.runtimes.package import load_package, package_versions
from effvit_med.engine.runtimes.program_runtime import ProgramRuntime
from effvit_med.engine.scoring import label_volume
from effvit_med.engine.shelf import shipped_bundle
from effvit_med.errors import InputError, OutputError, SettingsError
from effvit_med.io import open_input, read_case
from effvit_med.networks import SegmentationNetwork, fold_batchnorm
from effvit_med.networks.export import export_program
from effvit_med.volume import Volume

Progress = Callable[[str, int, int], None]
"""Called as progress(phase, done, total)."""

Quantise = Callable[[Model, ExportFormat, Path], tuple[str, ...]]
"""Writes a model as an int8 network into a folder; returns the names of the files, the one to open first."""

_PRECISIONS: dict[ExportFormat, tuple[ExportPrecision, ...]] = {
    "onnx": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
    "program": ("float32",),
}

_AXES = {2: ("height", "width"), 3: ("g0", "g1", "g2")}


@dataclass(frozen=True)
class ExportOptions:
    """What to export, and how well it must agree.

    Attributes:
        format: ``onnx``, ``openvino`` or ``program`` (of ``torch.export``).
        precision: ``float32``; ``bfloat16`` (OpenVINO: weights kept in 16 bits, computed in bfloat16 where the
            processor has it); ``int8`` (onnx and openvino, with ``quantise``).
        case: the sample case of the parity gate, any input of the command ``segment``, of which the first case is
            taken; None for the phantom that comes with effvit-med.
        least_agreement: share of voxels of the sample case that must get the label that eager float32 gives.
        quantise: makes the int8 network.

    Raises:
        SettingsError: if the format or the precision is unknown, or the format has not the precision.
    """

    format: ExportFormat = "onnx"
    precision: ExportPrecision = "float32"
    case: Path | None = None
    least_agreement: float = 0.999
    quantise: Quantise | None = None

    def __post_init__(self) -> None:
        if self.format not in _PRECISIONS:
            raise SettingsError(f"The format is {self.format!r}; use {', '.join(_PRECISIONS)}.")
        if self.precision not in _PRECISIONS[self.format]:
            known = ", ".join(_PRECISIONS[self.format])
            raise SettingsError(f"The precision is {self.precision!r}; the format {self.format} has {known}.")
        if self.precision == "int8" and self.quantise is None:
            raise SettingsError("int8 needs something that quantises; give ExportOptions its `quantise`.")


@dataclass(frozen=True)
class ExportResult:
    """What was exported.

    Attributes:
        folder: where it lies.
        contract: what stands beside the network, with the result of the parity gate.
    """

    folder: Path
    contract: Contract


def export_model(
    model: Model, folder: Path, options: ExportOptions | None = None, progress: Progress | None = None
) -> ExportResult:
    """A model as a folder with the network in the form of a runtime and its whole contract.

    Everything is made in a hidden folder beside the target and takes its place at the end: after the parity gate, in
    which the file labels a sample case and is compared with the network in eager float32. An earlier export in the
    target is replaced.

    Args:
        model: what the bundle says.
        folder: the folder to make.
        options: what to export; None for ONNX in float32.
        progress: called as progress(phase, done, total); phases ``convert``, ``eager`` and ``exported``.

    Returns:
        Where it lies, and its contract.

    Raises:
        SettingsError: if the model is an ensemble of folds, packages are missing, or the network has no counterpart in
            the format.
        WeightsError: if the weights do not belong to the network.
        InputError: if the sample case cannot be used.
        OutputError: if the file labels too many voxels otherwise, the folder holds something else, or it cannot be
            written; nothing is left behind.
    """
    options, tell = options or ExportOptions(), progress or (lambda *_: None)
    if len(model.folds) > 1:
        raise SettingsError(
            f"{model.name} has {len(model.folds)} folds; a file holds one network. Choose one with `Model.with_fold` "
            "(--fold on the command line)."
        )
    network = fold_batchnorm(model.load_network())
    with _replaced_folder(folder) as hidden:
        tell("convert", 0, 1)
        names = _write_network(model, network, options, hidden)
        tell("convert", 1, 1)
        graph = _graph_of(model, network, hidden / names[0], options.precision)
        parity = _compare(model, network, _open_graph(options.format, graph), options, tell)
        _require_agreement(parity, options)
        contract = Contract(
            model=describe_contract_model(model),
            weights_sha256=model.weights_sha256,
            runtime=options.format,
            precision=options.precision,
            files=tuple(ContractFile(name=name, sha256=hash_file(hidden / name)) for name in names),
            input=_describe_input(network),
            output=_describe_output(network),
            window=graph.window,
            output_stride=network.output_stride,
            parity=parity,
            versions=_versions(),
        )
        write_contract(hidden, contract)
    return ExportResult(folder, contract)


def open_exported(folder: Path, device: torch.device, threads: int | None = None, *, batch_size: int = 1) -> Runtime:
    """An exported model, ready to run.

    Args:
        folder: the exported folder.
        device: where tiles are computed.
        threads: processor threads; None for as many as torch uses.
        batch_size: tiles in one call; for a 2D network times the slices of a window.

    Returns:
        The runtime. A bfloat16 file on a processor without bfloat16 runs in float32, and its ``precision`` says so.

    Raises:
        InputError: if the folder has no contract.
        SettingsError: if the contract is wrong, packages are missing, or the runtime cannot use the device.
        WeightsError: if a file is missing or damaged.
    """
    contract = read_contract(folder)
    check_files(folder, contract)
    slices = contract.model.tiling.window[0] if len(contract.window) == 2 else 1
    if contract.precision == "int8":  # its file takes one tile at a time
        batch_size = slices = 1
    graph = Graph(
        path=folder / contract.files[0].name,
        device=device,
        precision=contract.precision,
        in_channels=contract.input.shape[1] or 1,
        classes=len(contract.model.labels) + 1,
        stride=contract.output_stride,
        window=contract.window,
        batch_size=batch_size * slices,
        threads=threads or torch.get_num_threads(),
    )
    return _open_graph(contract.runtime, graph)


def _write_network(model: Model, network: SegmentationNetwork, options: ExportOptions, folder: Path) -> tuple[str, ...]:
    """Write the network in the wanted form; returns the names of the files, the one to open first."""
    if options.precision == "int8" and options.quantise:
        return options.quantise(model, options.format, folder)
    if options.format == "onnx":
        write_graph(network, folder / "model.onnx")
        return ("model.onnx",)
    if options.format == "program":
        _save_program(network, folder / "model.pt2")
        return ("model.pt2",)
    openvino = load_package("openvino", "openvino")
    write_graph(network, folder / "model.onnx")
    graph = openvino.Core().read_model(folder / "model.onnx")
    openvino.save_model(graph, folder / "model.xml", compress_to_fp16=options.precision == "bfloat16")
    del graph  # it may still read from the file
    (folder / "model.onnx").unlink()
    return ("model.xml", "model.bin")


def _save_program(network: SegmentationNetwork, path: Path) -> None:
    plain = LogitsOf(copy.deepcopy(network)).eval()
    for parameter in plain.parameters():
        parameter.data = parameter.data.contiguous()  # the only layout that the file has
    program = export_program(plain, torch.zeros(1, network.in_channels, *(64,) * network.spatial_dims))
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # names folders of this machine
    torch.export.save(program, path)


def _open_graph(runtime: ExportFormat, graph: Graph) -> Runtime:
    if runtime == "onnx":
        return OnnxRuntime(graph)
    return ProgramRuntime(graph) if runtime == "program" else OpenVinoRuntime(graph, strict=False)


def _graph_of(model: Model, network: SegmentationNetwork, path: Path, precision: str) -> Graph:
    dims = network.spatial_dims
    return Graph(
        path=path,
        device=torch.device("cpu"),
        precision=precision,
        in_channels=network.in_channels,
        classes=network.out_channels,
        stride=network.output_stride,
        window=model.tiling.window[-dims:],
        batch_size=1 if dims == 3 else model.tiling.window[0],
        threads=torch.get_num_threads(),
    )


def _compare(
    model: Model, network: SegmentationNetwork, exported: Runtime, options: ExportOptions, tell: Progress
) -> ContractParity:
    """The labels of a sample case by the file, against those in eager float32."""
    name, volume = _read_sample(options.case)
    dims = network.spatial_dims
    request = RuntimeRequest(
        network, torch.device("cpu"), "float32", model.tiling.window[-dims:], 1, model.weights_sha256
    )
    eager = open_runtime("eager", request)
    exact, found = (
        label_volume(runtime.predict, volume, model, partial(tell, phase))
        for phase, runtime in (("eager", eager), ("exported", exported))
    )
    equal = exact == found
    classes = len(model.labels) + 1
    sizes = np.bincount(exact.ravel(), minlength=classes) + np.bincount(found.ravel(), minlength=classes)
    both = np.bincount(exact[equal], minlength=classes)
    return ContractParity(
        case=name,
        voxels=exact.size,
        agreement=float(equal.mean()),
        least_agreement=options.least_agreement,
        dice={
            label.name: 2 * int(both[value]) / int(sizes[value]) if sizes[value] else None
            for value, label in enumerate(model.labels, start=1)
        },
        computed_in=exported.precision,
    )


def _read_sample(case: Path | None) -> tuple[str, Volume]:
    source = case or shipped_bundle() / "sample_data" / "ct_axial"
    with open_input(source) as found:
        if not found.cases:
            raise InputError(f"{source} holds no case that can be segmented; name another sample case.")
        return found.cases[0].case_id, read_case(found.cases[0])


def _require_agreement(parity: ContractParity, options: ExportOptions) -> None:
    if parity.agreement < options.least_agreement:
        dice = {name: value for name, value in parity.dice.items() if value is not None}
        worst = min(dice, key=dice.__getitem__, default="")
        hint = f" {worst} differs most, with a Dice coefficient of {dice[worst]:.4f}." if worst else ""
        raise OutputError(
            f"The {options.format} file in {options.precision} gives {parity.agreement:.4%} of the voxels of "
            f"{parity.case} the label that eager float32 gives; at least {options.least_agreement:.4%} are due.{hint} "
            "Nothing was written. Use a higher precision, or ask for less agreement."
        )


def _describe_input(network: SegmentationNetwork) -> ContractTensor:
    dims = network.spatial_dims
    axes = ("batch", "channel", *_AXES[dims])
    return ContractTensor(name="image", axes=axes, shape=(None, network.in_channels, *(None,) * dims))


def _describe_output(network: SegmentationNetwork) -> ContractTensor:
    dims = network.spatial_dims
    axes = ("batch", "class", *_AXES[dims])
    return ContractTensor(name="output", axes=axes, shape=(None, network.out_channels, *(None,) * dims))


def _versions() -> dict[str, str]:
    names = ("torch", "numpy", "onnx", "onnxruntime", "openvino", "nncf")
    return {"effvit-med": effvit_med.__version__, "python": platform.python_version(), **package_versions(*names)}


def _require_ours(folder: Path) -> None:
    """Nothing, if a folder holds an export and nothing else, so that it may be replaced; or nothing at all.

    Raises:
        OutputError: if something of the user's lies in it.
    """
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; choose a folder for the export.")
    present = {path.name for path in folder.iterdir()}
    if not present:
        return
    if CONTRACT_FILE not in present:
        raise OutputError(f"{folder} holds something that is no exported model; choose another folder.")
    ours = {CONTRACT_FILE, *(file.name for file in read_contract(folder).files)}
    strange = sorted(present - ours)
    if strange:
        named = ", ".join(strange[:5]) + (" ..." if len(strange) > 5 else "")
        raise OutputError(
            f"{folder} holds an earlier export and also {named}; choose another folder, or move that away."
        )


@contextmanager
def _replaced_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder to fill, which becomes ``folder`` when the block ends well and is removed when it does not."""
    if folder.exists():
        _require_ours(folder)
    mark = secrets.token_hex(4)
    hidden, former = (folder.with_name(f".{folder.name}.{mark}.{kind}") for kind in ("partial", "former"))
    try:
        hidden.mkdir(parents=True)
        yield hidden
        if folder.exists():
            folder.replace(former)
        hidden.replace(folder)
        shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        if former.exists() and not folder.exists():
            former.replace(folder)
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}. Choose another folder.") from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
