"""Through which window a scan is looked at: soft tissue in a CT is a twentieth of the range from air to bone."""

from __future__ import annotations

import numpy as np

from effvit_med.volume import Volume
from effvit_med.volume.prompts import Prompt

CT_HALF_WIDTH_HU = 250.0
"""Of the window that a CT is seen through: about what was first pointed at, this much to both sides."""


def find_window(volume: Volume, prompt: Prompt, axis: int) -> tuple[float, float] | None:
    """The window about what a prompt points at; None for a scan without an absolute unit.

    Args:
        volume: the scan.
        prompt: the first about a structure; the median of a few voxels about its middle counts.
        axis: that of the scan's slices.

    Examples:
        >>> from effvit_med.volume import Geometry
        >>> scan = Volume(np.full((3, 9, 9), 40.0), Geometry(np.eye(4), (3, 9, 9)), "CT")
        >>> find_window(scan, Prompt("point", 1, True, ((1, 4, 4),)), 0)
        (-210.0, 290.0)
    """
    if volume.modality != "CT":
        return None
    middle = np.rint(np.asarray(prompt.index).mean(axis=0)).astype(int)
    reach = [0 if each == axis else 2 for each in range(3)]
    rows = zip(middle, reach, volume.geometry.shape, strict=True)
    box = tuple(slice(min(max(0, at - few), size - 1), min(size, max(0, at) + few + 1)) for at, few, size in rows)
    value = round(float(np.median(volume.array[box])), 1)
    return value - CT_HALF_WIDTH_HU, value + CT_HALF_WIDTH_HU
