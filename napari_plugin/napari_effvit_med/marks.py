"""What the reader pointed at, as a layer of points that is never active. Knows napari's viewer model, but no Qt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_effvit_med.layers import AXIS_LABELS, UNITS, DisplayGrid
from napari_effvit_med.own_layer import OwnLayer

if TYPE_CHECKING:
    from effvit_med.review.steps import Step
    from effvit_med.volume.prompts import Prompt

NAME = "prompts"
SIZE_MM = 3.0
ADDS, REMOVES = "#3ddc84", "#ff5d5d"
MOST = 400
"""So many points at most are shown, the newest ones."""


class PromptMarks(OwnLayer):
    """Points where something was added (green) or removed (red) for the chosen structure.

    Args:
        viewer: napari's viewer or its model.
    """

    def __init__(self, viewer: Any) -> None:
        super().__init__(viewer)
        self._shown: tuple[npt.NDArray[np.float64], list[str]] = (np.zeros((0, 3)), [])

    def prepare(self, labels: Any) -> None:
        """Make the layer of points now, empty: napari takes half a second for its first, and no click should wait.

        Args:
            labels: the layer under review.
        """
        if self.layer is None:
            self._make(np.zeros((0, 3)), [], labels)

    def add(self, prompt: Prompt, grid: DisplayGrid, labels: Any) -> None:
        """Mark what was just pointed at, before its answer is there.

        Args:
            prompt: in indices of the scan's own grid.
            grid: how the scan is shown.
            labels: the layer under review.
        """
        points, colours = self._shown
        new = _points_of(prompt, grid)
        self._draw(np.vstack([points, new]), [*colours, *[_colour(prompt)] * len(new)], labels)

    def show(self, steps: Iterable[Step], value: int | None, grid: DisplayGrid, labels: Any) -> None:
        """Mark what stands of the prompts of a structure.

        Args:
            steps: of the review.
            value: the structure.
            grid: how the scan is shown.
            labels: the layer under review.
        """
        points, colours = [np.zeros((0, 3))], []
        for prompt in standing_prompts(steps, value):
            points.append(_points_of(prompt, grid))
            colours += [_colour(prompt)] * len(points[-1])
        self._draw(np.vstack(points), colours, labels)

    def remove(self) -> None:
        """Take the layer away."""
        super().remove()
        self._shown = (np.zeros((0, 3)), [])

    def _draw(self, points: npt.NDArray[np.float64], colours: list[str], labels: Any) -> None:
        points, colours = points[-MOST:], colours[-MOST:]
        self._shown = (points, colours)
        if self.layer is None:
            if not len(points):
                return
            self._make(points, colours, labels)
            return
        self._layer.data = points
        if len(points):
            self._layer.face_color = colours

    def _make(self, points: npt.NDArray[np.float64], colours: list[str], labels: Any) -> None:
        size = SIZE_MM / float(np.min(labels.scale))
        looks = {"size": size, "border_width": 0, "opacity": 0.9, "name": NAME}
        place = {"scale": labels.scale, "translate": labels.translate, "units": UNITS, "axis_labels": AXIS_LABELS}
        if colours:
            looks["face_color"] = colours
        with self._keep_selection():
            self._layer = self._viewer.add_points(points, **looks, **place)
            self._layer.editable = False


def standing_prompts(steps: Iterable[Step], value: int | None) -> list[Prompt]:
    """The prompts of a structure among steps, the oldest first.

    Args:
        steps: of a review.
        value: the structure.
    """
    from effvit_med.review.answering import prompts_of

    return prompts_of(steps, value) if value else []


def _points_of(prompt: Prompt, grid: DisplayGrid) -> npt.NDArray[np.float64]:
    """The points of a prompt on the data that is shown; lines are dotted."""
    index = np.asarray(prompt.index, dtype=float)
    if prompt.kind == "box" and prompt.axis is not None:
        a, b = (axis for axis in range(3) if axis != prompt.axis)
        corners = np.repeat(index[:1], 4, axis=0)
        corners[1, a] = corners[2, a] = index[1, a]
        corners[2, b] = corners[3, b] = index[1, b]
        index = corners
    if prompt.kind in ("box", "lasso"):
        index = np.vstack([index, index[:1]])
    if prompt.kind != "point":
        index = _dotted(index)
    return grid.from_index(index)


def _dotted(line: npt.NDArray[np.float64], step: float = 4.0) -> npt.NDArray[np.float64]:
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    places = np.arange(0.0, lengths[-1] + 1e-9, step)
    return np.stack([np.interp(places, lengths, line[:, axis]) for axis in range(3)], axis=1)


def _colour(prompt: Prompt) -> str:
    return ADDS if prompt.adds else REMOVES
