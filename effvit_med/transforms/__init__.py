"""From a scan to a tensor and back: grids, values, slices, labels. Knows volumes and tensors, no files, no networks."""

from effvit_med.transforms.axes import map_axes
from effvit_med.transforms.intensity import Intensity, scale_intensity
from effvit_med.transforms.labelling import Labeller, label_grid
from effvit_med.transforms.mirroring import cut_mirrored
from effvit_med.transforms.pipeline import (
    Prepared,
    PreparedRows,
    Preprocess,
    prepare,
    prepare_labels,
    stack_neighbours,
)
from effvit_med.transforms.resampling import resample
from effvit_med.transforms.spatial import network_grid, strided_grid

__all__ = [
    "Intensity",
    "Labeller",
    "Prepared",
    "PreparedRows",
    "Preprocess",
    "cut_mirrored",
    "label_grid",
    "map_axes",
    "network_grid",
    "prepare",
    "prepare_labels",
    "resample",
    "scale_intensity",
    "stack_neighbours",
    "strided_grid",
]
