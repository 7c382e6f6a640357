"""The whole path, from a volume to a segmentation and from a folder to results."""

from effvit_med.engine.batch import BatchResult, CaseResult, Job, segment_input
from effvit_med.engine.model import Model, read_model, shipped_bundle
from effvit_med.engine.segmenter import Segmenter, segment
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
    "read_model",
    "segment",
    "segment_input",
    "shipped_bundle",
]
