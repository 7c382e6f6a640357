"""What the record of a segmentation says beside its steps: versions, choices, and what is odd about the scan."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import platform
from typing import Any

import torch

import effvit_med
from effvit_med.engine.model import Model
from effvit_med.engine.tiling import Tiling
from effvit_med.errors import RefusedError
from effvit_med.volume import Finding, Volume


def describe_model(model: Model, tiling: Tiling) -> dict[str, Any]:
    """The choices of a bundle that change the labels, as plain values for the record."""
    preprocess = dataclasses.asdict(model.preprocess)
    labels = model.labels.to_dicts()
    colours = {} if model.colour_weights is None else {"colour_weights": list(model.colour_weights)}
    return {
        "network": model.network,
        "preprocess": preprocess,
        **dataclasses.asdict(tiling),
        "labels": labels,
        **colours,
    }


def refuse_photograph(volume: Volume, model: Model) -> None:
    """Nothing, unless the scan is a photograph and the model is not made for any.

    Args:
        volume: the scan.
        model: what the bundle says.

    Raises:
        RefusedError: ``NOT_FOR_PHOTOGRAPHS``.
    """
    if volume.is_photograph and model.colour_weights is None:
        known = f", trained on {', '.join(model.modalities)}" if model.modalities else ""
        raise RefusedError(
            "NOT_FOR_PHOTOGRAPHS",
            f"This is a photograph; {model.name} is a model for scans{known}.",
            "Choose a bundle for photographs: effvit-med bundles lists them.",
        )


def library_versions() -> dict[str, str]:
    """The versions of effvit-med and of what computes and writes for it."""
    return {"effvit-med": effvit_med.__version__, "python": platform.python_version(), **_installed()}


@functools.cache
def _installed() -> dict[str, str]:
    names = ("torch", "numpy", "pydicom", "highdicom", "nibabel")
    return {name: importlib.metadata.version(name) for name in names}


def describe_device(device: torch.device) -> str:
    """A device and, for CUDA, its name."""
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def find_oddities(volume: Volume, value_range: tuple[float, float], model: Model) -> list[Finding]:
    """What speaks against a model for a scan: another modality, or values that lie mostly outside what it looks at.

    Args:
        volume: the scan.
        value_range: its smallest and largest value.
        model: what the bundle says.
    """
    findings = []
    if model.modalities and volume.modality and volume.modality not in model.modalities:
        known = ", ".join(model.modalities)
        message = f"The modality is {volume.modality}; {model.name} was trained on {known} only."
        findings.append(Finding("OTHER_MODALITY", message))
    intensity = model.preprocess.intensity
    low, high = value_range
    seen = min(high, intensity.high) - max(low, intensity.low)
    if intensity.kind == "window" and seen < 0.1 * (intensity.high - intensity.low):  # no CT uses so little of it
        message = (
            f"The values lie from {low:g} to {high:g}; {model.name} looks from {intensity.low:g} to {intensity.high:g}."
        )
        findings.append(Finding("UNUSUAL_VALUES", message))
    return findings
