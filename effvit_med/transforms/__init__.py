"""From a scan to a tensor and back: grids, values, slices. Knows volumes and tensors, no files and no networks."""

from effvit_med.transforms.intensity import Intensity, scale_intensity
from effvit_med.transforms.pipeline import Prepared, Preprocess, prepare, prepare_labels, stack_neighbours
from effvit_med.transforms.spatial import label_grid, map_axes, network_grid, resample, strided_grid

__all__ = [
    "Intensity",
    "Prepared",
    "Preprocess",
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
