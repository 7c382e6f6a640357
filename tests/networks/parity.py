"""The parity fixtures: weights filled from their published names, and outputs of the official implementations."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("EFFVIT_MED_SHARED", Path(__file__).parents[2].parent / "shared")) / "parity"
GATE = 2e-5


def fixture_names(prefix: str = "") -> list[Any]:
    """The fixtures that are here, or one that skips with the reason."""
    names = sorted(path.stem for path in FOLDER.glob(f"{prefix}*.json"))
    reason = "the parity fixtures are not here: set EFFVIT_MED_SHARED"
    return list(names) or [pytest.param("none", marks=pytest.mark.skip(reason=reason))]


def filler() -> ModuleType:
    """The module that fills weights and makes inputs."""
    spec = importlib.util.spec_from_file_location("parity_fill", FOLDER / "fill.py")
    if spec is None or spec.loader is None:
        pytest.skip("fill.py is not among the parity fixtures")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def manifest_of(name: str) -> dict[str, Any]:
    """What a fixture says of itself."""
    manifest: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return manifest


def published_weights(manifest: dict[str, Any]) -> dict[str, Tensor]:
    """The state dict of the official model, filled as its fixture says."""
    fill = filler()
    empty = {key: torch.zeros(shape, dtype=getattr(torch, dtype)) for key, shape, dtype in manifest["state_dict"]}
    filled: dict[str, Tensor] = fill.fill_state_dict(empty, manifest["fill"])
    return filled


def image_of(manifest: dict[str, Any]) -> Tensor:
    """The input of a fixture."""
    return torch.from_numpy(filler().make_input(manifest["input_shape"]))


def distances(name: str, outputs: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference of each output over its standard deviation."""
    numpy = pytest.importorskip("numpy")
    fill = filler()
    with numpy.load(FOLDER / f"{name}.npz") as wanted:
        return {each: fill.compare(wanted, each, out)["max_over_std"] for each, out in outputs.items()}
