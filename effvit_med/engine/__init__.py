"""The whole path, from a volume to a segmentation and from a folder to results.

Names are loaded when they are first used: what does without torch, such as the parent of a batch, never loads it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effvit_med.engine.batch import BatchResult, segment_input
    from effvit_med.engine.estimating import Estimate
    from effvit_med.engine.model import Model, read_model
    from effvit_med.engine.results import Job
    from effvit_med.engine.segmenter import Segmenter, open_model, segment
    from effvit_med.engine.settings import OutputType, Remedy, Settings
    from effvit_med.engine.shelf import find_bundle, shipped_bundle
    from effvit_med.engine.stages import CaseResult
    from effvit_med.engine.tiling import Tiling

__all__ = [
    "BatchResult",
    "CaseResult",
    "Estimate",
    "Job",
    "Model",
    "OutputType",
    "Remedy",
    "Segmenter",
    "Settings",
    "Tiling",
    "find_bundle",
    "open_model",
    "read_model",
    "segment",
    "segment_input",
    "shipped_bundle",
]

_MODULES = {
    "batch": ("BatchResult", "segment_input"),
    "estimating": ("Estimate",),
    "model": ("Model", "read_model"),
    "results": ("Job",),
    "segmenter": ("Segmenter", "open_model", "segment"),
    "settings": ("OutputType", "Remedy", "Settings"),
    "shelf": ("find_bundle", "shipped_bundle"),
    "stages": ("CaseResult",),
    "tiling": ("Tiling",),
}


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
