"""A small model for photographs with random weights, and pictures to try it on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import yaml
from PIL import Image

from effvit_med.engine import read_model
from effvit_med.networks import save_weights


def write_photograph_bundle(folder: Path, name: str = "tiny-eyes", window: int = 64) -> Path:
    """A bundle for photographs that looks at green alone, with random weights."""
    content = {
        "name": name,
        "version": "0.0.1",
        "description": "Random weights for tests.",
        "modalities": ["XC"],
        "weights": "models/tiny.safetensors",
        "colour_weights": [0, 1, 0],
        "network": {
            "preset": "efficientvit_b0",
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 2,
            "decoder": "high_resolution",
            "decoder_stride": 1,
        },
        "preprocess": {
            "spacing_mm": [None, None, None],
            "orientation": "SPL",
            "intensity": {"kind": "window", "low": 0, "high": 255},
            "spatial_dims": 2,
        },
        "tiling": {"window": [1, window, window], "overlap": 0.5},
        "labels": [{"value": 1, "name": "vessel", "type": ["59820001", "SCT", "Blood vessel"]}],
    }
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "model.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    model = read_model(folder)
    torch.manual_seed(0)
    save_weights(model.build_network(), model.weights)
    return folder


def colours(height: int = 40, width: int = 56, seed: int = 0) -> npt.NDArray[np.uint8]:
    """(height, width, 3) noise of large grains, which even JPEG keeps roughly."""
    grains = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return grains.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def save(pixels: npt.NDArray[np.generic], path: Path, **options: object) -> Path:
    """Pixels as a picture of the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)  # type: ignore[arg-type]
    return path
