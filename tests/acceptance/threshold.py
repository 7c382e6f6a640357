"""A model that labels by value alone, so that it must find the phantom's structures voxel by voxel.

It is a real exported model: an ONNX file with a contract, which the engine opens, tiles and runs as any other. Its
logits are straight lines of the value that cross where one structure ends and the next begins.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from effvit_med.engine.contract import (
    Contract,
    ContractFile,
    ContractModel,
    ContractParity,
    ContractTensor,
    hash_file,
    write_contract,
)
from effvit_med.engine.tiling import Tiling
from effvit_med.io import read_case
from effvit_med.io.cases import DicomSeries
from effvit_med.transforms import Preprocess
from effvit_med.transforms.intensity import Intensity
from effvit_med.volume import Code, Label, LabelTable, Provenance, Segmentation, Volume
from effvit_med.volume.labels import LATERALITIES
from tests.acceptance.series import KIDNEY_TO, LIVER_FROM

TABLE = LabelTable(
    (
        Label(1, "liver", Code("10200004", "Liver"), colour=(221, 130, 101)),
        Label(2, "kidney_left", Code("64033007", "Kidney"), laterality=LATERALITIES["left"], colour=(76, 175, 80)),
    )
)
LOW, HIGH = -4000.0, 4000.0
WINDOW = (16, 32, 32)


def threshold(volume: Volume) -> Segmentation:
    """The structures of a phantom by their values, without any engine."""
    labels = np.where(volume.array >= LIVER_FROM, 1, np.where(volume.array <= KIDNEY_TO, 2, 0))
    findings = volume.source.findings if volume.source else ()
    provenance = Provenance(
        bundle="threshold",
        bundle_version="1",
        weights_sha256="0" * 64,
        settings={},
        versions={"effvit-med": "test"},
        device="cpu",
        started="2026-01-02T03:04:05+00:00",
        source=volume.source,
        findings=findings,
    )
    certain = np.full(labels.shape, 255, np.uint8)
    return Segmentation(labels.astype(np.uint8), volume.geometry, TABLE, provenance, certain)


def threshold_case(case: DicomSeries) -> tuple[Volume, Segmentation]:
    """A case read, and its structures."""
    volume = read_case(case)
    return volume, threshold(volume)


def write_threshold_bundle(folder: Path, modalities: tuple[str, ...] = ()) -> Path:
    """An exported model that thresholds on the scan's own grid.

    Args:
        folder: is made.
        modalities: what the model says that it was trained on.
    """
    folder.mkdir(parents=True)
    _write_network(folder / "model.onnx")
    network = {"preset": "efficientvit_b0", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "decoder_stride": 1}
    model = ContractModel(
        name="threshold",
        version="1",
        description="labels by value",
        modalities=modalities,
        network={**network, "decoder": "high_resolution"},
        preprocess=Preprocess((None, None, None), intensity=Intensity("window", LOW, HIGH)),
        tiling=Tiling(WINDOW, 0.25),
        labels=tuple(TABLE.to_dicts()),
    )
    axes = ("depth", "height", "width")
    contract = Contract(
        model=model,
        weights_sha256="1" * 64,
        runtime="onnx",
        precision="float32",
        files=(ContractFile(name="model.onnx", sha256=hash_file(folder / "model.onnx")),),
        input=ContractTensor(name="image", axes=("batch", "channel", *axes), shape=(None, 1, None, None, None)),
        output=ContractTensor(name="output", axes=("batch", "class", *axes), shape=(None, 3, None, None, None)),
        window=WINDOW,
        output_stride=(1, 1, 1),
        parity=ContractParity(
            case="none", voxels=0, agreement=1.0, least_agreement=1.0, dice={}, computed_in="float32"
        ),
        versions={"torch": torch.__version__},
    )
    write_contract(folder, contract)
    return folder


def _write_network(path: Path) -> None:
    """Logits 0, x - a and b - x of a value x that the engine scaled to -1 to 1."""
    high, low = (2 * (limit - LOW) / (HIGH - LOW) - 1 for limit in (LIVER_FROM - 0.5, KIDNEY_TO + 0.5))
    steep = 1000.0
    weights = np.array([0, 1, -1], np.float32).reshape(3, 1, 1, 1, 1) * steep
    bias = np.array([0, -high, low], np.float32) * steep
    shape = ["batch", 1, "depth", "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weights", "bias"], ["output"], kernel_shape=[1, 1, 1])],
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3, *shape[2:]])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
