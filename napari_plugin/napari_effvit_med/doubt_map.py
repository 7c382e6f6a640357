"""Where the network was unsure, as a glow over the scan. Knows napari's viewer model, but no Qt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_effvit_med.layers import DisplayGrid
from napari_effvit_med.own_layer import OwnLayer

NAME = "doubt"
ASIDE = "effvit_med_aside"
"""A layer with this in its metadata is no scan."""
_LEAST = 20
"""Below this (of 255) nothing glows: the network was nearly sure."""


class DoubtMap(OwnLayer):
    """An image layer of doubt, made when it is first wanted."""

    def show(self, doubt: npt.NDArray[np.uint8], grid: DisplayGrid) -> None:
        """Lay doubt over the scan; what is active stays so.

        Args:
            doubt: 0 to 255 on the scan's own grid.
            grid: how the scan is shown.
        """
        self.remove()
        looks = {"colormap": "inferno", "blending": "additive", "contrast_limits": (_LEAST, 255), "opacity": 0.8}
        place = grid.layer_arguments()
        with self._keep_selection():
            self._layer = self._viewer.add_image(
                grid.view(doubt), name=NAME, metadata={ASIDE: True}, rgb=False, **looks, **place
            )


def invert(confidence: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Doubt from confidence: 255 for a tie of two classes, 0 for certain.

    Args:
        confidence: 0 to 255.

    Examples:
        >>> invert(np.array([0, 255], np.uint8)).tolist()
        [255, 0]
    """
    return np.asarray(np.bitwise_not(confidence), np.uint8)
