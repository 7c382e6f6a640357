"""Review of an automatic result by a person: corrections, doubts, states, a journal that loses nothing. No Qt here.

Names are loaded when they are first used: a reader of changes alone loads no file formats.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effvit_med.review.doubts import Doubt, find_doubts, measure_strip
    from effvit_med.review.prompted import NetworkRefiner
    from effvit_med.review.record import ReviewRecord, StructureReview
    from effvit_med.review.refining import LocalRefiner, Refiner, RefineRequest, ScanRefiner, SliceCarrier
    from effvit_med.review.saving import SavedReview, save_review
    from effvit_med.review.session import ReviewSession
    from effvit_med.review.steps import STATES

__all__ = [
    "STATES",
    "Doubt",
    "LocalRefiner",
    "NetworkRefiner",
    "RefineRequest",
    "Refiner",
    "ReviewRecord",
    "ReviewSession",
    "SavedReview",
    "ScanRefiner",
    "SliceCarrier",
    "StructureReview",
    "find_doubts",
    "measure_strip",
    "save_review",
]

_MODULES = {
    "doubts": ("Doubt", "find_doubts", "measure_strip"),
    "prompted": ("NetworkRefiner",),
    "record": ("ReviewRecord", "StructureReview"),
    "refining": ("LocalRefiner", "RefineRequest", "Refiner", "ScanRefiner", "SliceCarrier"),
    "saving": ("SavedReview", "save_review"),
    "session": ("ReviewSession",),
    "steps": ("STATES",),
}


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
