"""Facts about heads and partial labels put together: from files to a network that has learnt, and back to labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureTyped

from effvit_med.bundle import LabelSourced, LoadVolumed, MarkLabelsd, MarkOutputsd, MarkTruthd, PrepareVolumed
from effvit_med.engine.model import Model
from effvit_med.engine.tiling import Tiling
from effvit_med.io import write_volume
from effvit_med.training.label_codes import list_annotations
from effvit_med.training.losses import HeadLoss
from effvit_med.transforms import Intensity, Preprocess
from effvit_med.volume import Geometry, Volume
from tests.training.test_losses import OVERLAPPING, REGIONS, SOFTMAX

SHAPE = (16, 16, 16)
GRID = Geometry(np.diag([1.0, 1.0, 1.0, 1.0]), SHAPE)


def _model(model: Model) -> Model:
    """On a grid of 1 mm, from the values as they are, with a network of stride 1."""
    network: dict[str, Any] = {
        "preset": "efficientvit_b0",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": len(model.head.names(model.labels)),
        "decoder": "high_resolution",
        "decoder_stride": 1,
    }
    preprocess = Preprocess((1.0, 1.0, 1.0), orientation=None, intensity=Intensity("window", 0.0, 30.0))
    return replace(model, network=network, preprocess=preprocess, tiling=Tiling(SHAPE, 0.0))


def _draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Three nested balls, the inner the brighter, and which of them each voxel is in last."""
    rng = np.random.default_rng(number)
    middle = rng.uniform(6, 9, 3)
    distance = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - middle, axis=-1)
    balls = sum((distance < radius).astype(np.int16) for radius in (6.0, 4.0, 2.5))
    return (10 * balls + rng.normal(0, 1, SHAPE)).astype(np.int16), balls


def _write(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Eight cases: of regions every other only with the outer, of classes without the inner, with an ignored corner."""
    cases = []
    for number in range(8):
        image, balls = _draw(number)
        write_volume(Volume(image, GRID), folder / f"image_{number}.nii.gz")
        case: dict[str, Any] = {"image": str(folder / f"image_{number}.nii.gz")}
        if kind == "overlapping":
            case["label"] = {}
            for value, name in enumerate(("s1", "s2", "s4"), start=1):
                case["label"][name] = str(folder / f"{name}_{number}.nii.gz")
                write_volume(Volume((balls >= value).astype(np.int16), GRID), Path(case["label"][name]))
            if number % 2:
                del case["label"]["s4"]
                case["annotated"] = ["s1", "s2"]
        else:
            if number % 2:
                case["annotated"] = ["all"] if kind == "regions" else ["s1", "s2"]
                balls = np.minimum(balls, 1) if kind == "regions" else np.where(balls == 3, 0, balls)
            balls[:3, :3, :3] = 9
            case["label"] = str(folder / f"label_{number}.nii.gz")
            write_volume(Volume(balls.astype(np.int16), GRID), Path(case["label"]))
        cases.append(case)
    return cases


@pytest.mark.parametrize("plain", [SOFTMAX, REGIONS, OVERLAPPING], ids=lambda model: model.head.kind)
def test_a_network_learns_from_partial_labels(plain: Model, tmp_path: Path) -> None:
    """Files, of which half lack a structure, become a network that finds it in new images, on the scan's own grid."""
    model = _model(plain)
    kind = model.head.kind
    cases = _write(tmp_path, kind)
    annotations = list_annotations(cases)
    steps = [
        LoadVolumed(["image", "label"]),
        PrepareVolumed("image", model, label_key="label", annotations=annotations, ignore=9),
    ]
    untracked = EnsureTyped(["image", "label"], track_meta=False)
    dataset = CacheDataset(cases, Compose([*steps, untracked]), num_workers=1, progress=False)
    loader = DataLoader(dataset, batch_size=4, shuffle=True)
    torch.manual_seed(0)
    network = UNet(3, 1, len(model.head.names(model.labels)), (8, 16), (2,), norm="instance")
    optimiser, loss = torch.optim.Adam(network.parameters(), 0.02), HeadLoss(model, annotations)
    for _ in range(20):
        for batch in loader:
            optimiser.zero_grad()
            loss(network(batch["image"]), batch["label"]).backward()
            optimiser.step()
    case = Compose(steps)(cases[0])
    with torch.inference_mode():
        case["pred"] = network.eval()(case["image"].as_tensor()[None])[0]
    marked = MarkOutputsd(model, annotations)(case)
    dice = DiceMetric(include_background=False, reduction="none")(marked["pred"][None], marked["label"][None])[0]
    assert dice.min() > 0.8
    found = LabelSourced("pred", model)(case)
    labels = found["pred"][0].numpy()
    wanted = {"overlapping": np.array([0, 1, 3, 7])}.get(kind, np.arange(4))[_draw(0)[1]]
    assert (labels == wanted)[3:, 3:, 3:].mean() > 0.97
    whole = MarkTruthd("label", model, ignore=9)(LoadVolumed(["image", "label"])(cases[0]))
    scored = MarkLabelsd(model)({**found, "label": whole["label"]})
    dice = DiceMetric(include_background=False, reduction="none")(scored["pred"][None], scored["label"][None])[0]
    assert dice.min() > 0.8  # on the scan's own grid, as evaluate.yaml has it
