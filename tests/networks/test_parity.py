"""Our networks against numbers of the official implementations, with the same filled weights."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from effvit_med.networks import build_backbone, build_network

FOLDER = Path(os.environ.get("EFFVIT_MED_SHARED", Path(__file__).parents[2].parent / "shared")) / "parity"
FIXTURES = sorted(
    [path.stem for kind in ("backbone", "seg") for path in FOLDER.glob(f"efficientvit_{kind}_*.json")]
) or [pytest.param("none", marks=pytest.mark.skip(reason="the parity fixtures are not here: set EFFVIT_MED_SHARED"))]
GATE = 2e-5


def _filler() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_fill", FOLDER / "fill.py")
    if spec is None or spec.loader is None:
        pytest.skip("fill.py is not among the parity fixtures")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _build(name: str, manifest: dict[str, Any]) -> torch.nn.Module:
    _, kind, size, *rest = name.split("_")
    channels, eps = manifest["input_shape"][1], manifest["norm_eps"]
    if kind == "backbone":
        return build_backbone(2, channels, f"efficientvit_{size}", norm_eps=eps)
    classes = {"cityscapes": 19, "ade20k": 150}[rest[0]]
    head = f"seg_{size}_{rest[0]}"
    return build_network(2, channels, classes, f"efficientvit_{size}", "seg_head", head=head, norm_eps=eps)


@pytest.mark.parametrize("name", FIXTURES)
def test_outputs_are_those_of_the_official_code(name: str) -> None:
    """Names, shapes and order of weights are the official ones; every output agrees to 2e-5 of its deviation."""
    numpy = pytest.importorskip("numpy")
    fill = _filler()
    manifest = json.loads((FOLDER / f"{name}.json").read_text())
    network = _build(name, manifest)
    fill.fill_model(network)
    assert fill.digest(network.state_dict()) == manifest["weights_sha256"]
    x = torch.from_numpy(fill.make_input(manifest["input_shape"]))
    with torch.inference_mode():
        features = getattr(network, "backbone", network).features(x)
        outputs = {f"stage{index}": each for index, each in enumerate(features)}
        if hasattr(network, "logits"):
            outputs["segout"] = network.logits(x)
    with numpy.load(FOLDER / f"{name}.npz") as wanted:
        distances = {each: fill.compare(wanted, each, out)["max_over_std"] for each, out in outputs.items()}
    assert sorted(distances) == sorted(manifest["outputs"])
    assert max(distances.values()) <= GATE, distances
