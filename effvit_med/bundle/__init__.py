"""What the YAML files of a MONAI bundle name: our own functions in MONAI's dress.

`read_model` gives the bundle's model as the engine sees it, so that training, MONAI inference and the command line
share one preprocessing, one tiling and one label table.
"""

from effvit_med.bundle.inferer import VolumeInferer
from effvit_med.bundle.loading import list_cases, start_from
from effvit_med.bundle.marking import MarkLabelsd, MarkOutputsd, MarkTruthd
from effvit_med.bundle.saving import SaveSegmentationd
from effvit_med.bundle.transforms import LabelSourced, LoadVolumed, PrepareVolumed, SlicesToChannelsd
from effvit_med.engine.model import read_model

__all__ = [
    "LabelSourced",
    "LoadVolumed",
    "MarkLabelsd",
    "MarkOutputsd",
    "MarkTruthd",
    "PrepareVolumed",
    "SaveSegmentationd",
    "SlicesToChannelsd",
    "VolumeInferer",
    "list_cases",
    "read_model",
    "start_from",
]
