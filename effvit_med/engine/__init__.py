"""The whole path, from a volume to a segmentation and from a folder to results."""

from effvit_med.engine.batch import BatchResult, CaseResult, segment_input
from effvit_med.engine.model import Model, read_model, shipped_bundle
from effvit_med.engine.results import Job
from effvit_med.engine.segmenter import Segmenter, open_model, segment
from effvit_med.engine.settings import OutputType, Remedy, Settings
from effvit_med.engine.tiling import Tiling

__all__ = [
    "BatchResult",
    "CaseResult",
    "Job",
    "Model",
    "OutputType",
    "Remedy",
    "Segmenter",
    "Settings",
    "Tiling",
    "open_model",
    "read_model",
    "segment",
    "segment_input",
    "shipped_bundle",
]
