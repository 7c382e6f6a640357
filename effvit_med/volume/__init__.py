"""The nouns of effvit-med: frozen values that know numpy and nothing else."""

from effvit_med import NOT_FOR_CLINICAL_USE
from effvit_med.volume.geometry import Geometry
from effvit_med.volume.labels import Code, Label, LabelTable
from effvit_med.volume.provenance import Provenance, Step
from effvit_med.volume.segmentation import Segmentation
from effvit_med.volume.volume import Finding, Source, SourceFile, Volume

__all__ = [
    "NOT_FOR_CLINICAL_USE",
    "Code",
    "Finding",
    "Geometry",
    "Label",
    "LabelTable",
    "Provenance",
    "Segmentation",
    "Source",
    "SourceFile",
    "Step",
    "Volume",
]
