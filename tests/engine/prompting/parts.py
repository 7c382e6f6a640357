"""A small scan and a promptable bundle with random weights: enough for everything but what is true of the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml

from effvit_med.networks import save_weights
from effvit_med.networks.prompt import build_prompt_network
from effvit_med.volume import Geometry, Volume
from effvit_med.volume.prompts import Prompt


def make_scan(shape: tuple[int, int, int] = (3, 48, 56), modality: str = "MR") -> Volume:
    """A bright ball in noise."""
    grid = np.indices(shape)
    away = sum(((at - size / 2) / (0.3 * size + 1)) ** 2 for at, size in zip(grid, shape, strict=True) if size > 3)
    noise = np.random.default_rng(0).normal(0, 5, shape)
    return Volume((100.0 * (away < 1) + noise).astype(np.float32), Geometry(np.diag([3.0, 1, 1, 1]), shape), modality)


def write_bundle(folder: Path, *, slices: int | None = 1, blocks: bool = False, seed: int = 0) -> Path:
    """A bundle of untrained networks: one for slices that sees so many of them at once, one for blocks."""
    torch.manual_seed(seed)
    content: dict[str, object] = {"name": "untrained", "version": "0.0.1"}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    for key, dims, channels in (("slices", 2, slices), ("blocks", 3, 1 if blocks else None)):
        if channels:
            network = build_prompt_network(dims, channels, "prompt_tiny", "batch")
            save_weights(network, folder / "models" / f"{key}.safetensors")
            part = {"weights": f"models/{key}.safetensors", "preset": "prompt_tiny", "in_channels": channels}
            content[key] = part
    (folder / "configs" / "prompt.yaml").write_text(yaml.safe_dump(content))
    return folder


def click(row: float, column: float, *, adds: bool = True, number: float = 1, value: int = 1) -> Prompt:
    """A point."""
    return Prompt("point", value, adds, ((number, row, column),))
