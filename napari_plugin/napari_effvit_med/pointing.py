"""Shift and Ctrl with the mouse become prompts. Knows napari's events, but no Qt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_effvit_med.layers import DisplayGrid, record_of
from napari_effvit_med.looking import slider_axis

if TYPE_CHECKING:
    from napari_effvit_med.desk import ReviewDesk

Tool = Literal["click", "box", "lasso"]
TOOLS: tuple[Tool, ...] = ("click", "box", "lasso")
"""What dragging draws: a scribble along its way, the corners of a box, or an outline."""

DRAG_VOXELS = 2.0
"""A way shorter than this is a click."""

_LOOKING = {"pan_zoom"}
_OURS = {"Image", "Labels"}


class PromptPointer:
    """Listens to the mouse of a viewer while a review is open: Shift adds, Ctrl removes.

    It looks only while an image or labels layer is active that moves the view, so that it never comes between a user
    and another tool.

    Args:
        viewer: napari's viewer or its model.
        desk: what the prompts go to.
        say: as of `napari_effvit_med.desk.ReviewDesk`.

    Attributes:
        tool: what dragging draws.
    """

    def __init__(self, viewer: Any, desk: ReviewDesk, say: Callable[..., None]) -> None:
        self.tool: Tool = "click"
        self._viewer, self._desk, self._say = viewer, desk, say
        viewer.mouse_drag_callbacks.append(self._drag)

    def remove(self) -> None:
        """Listen no more."""
        if self._drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._drag)

    def _drag(self, _: Any, event: Any) -> Iterator[None]:
        adds = _adds(event)
        if adds is None or self._desk.layer is None or self._desk.current is None or not self._is_looking():
            return
        if self._viewer.dims.ndisplay != 2:
            self._say("Corrections by clicking work in the flat view; press the 2D/3D button first.", error=True)
            return
        began, places = time.monotonic(), [np.asarray(event.position, dtype=float)]
        yield
        while event.type == "mouse_move":
            places.append(np.asarray(event.position, dtype=float))
            yield
        places.append(np.asarray(event.position, dtype=float))  # the canvas leaves out moves that follow quickly
        self._make(np.stack(places), adds, time.monotonic() - began)

    def _make(self, places: npt.NDArray[np.float64], adds: bool, duration_s: float) -> None:
        from effvit_med.errors import EffvitError

        layer, value = self._desk.layer, self._desk.current
        record = record_of(layer.metadata) if layer is not None else None
        if record is None or value is None:
            return
        shown = np.stack([layer.world_to_data(place) for place in places])
        axis = slider_axis(self._viewer)
        shown[:, axis] = np.round(shown[0, axis])
        if not _inside(shown[0], record.grid):
            self._say("You pointed outside the scan.", error=True)
            return
        shown = np.clip(shown, 0, np.array(record.grid.shape) - 1)
        try:
            self._desk.prompt(_prompt(self.tool, shown, record.grid, axis, value, adds), duration_s)
        except EffvitError as error:
            self._say(str(error), error=True)

    def _is_looking(self) -> bool:
        active = self._viewer.layers.selection.active
        if active is None:
            return True
        return type(active).__name__ in _OURS and str(active.mode) in _LOOKING


def _adds(event: Any) -> bool | None:
    """Whether Shift (True) or Ctrl (False), and nothing else, is held with the left button."""
    if event.button != 1:
        return None
    held = {str(getattr(key, "name", key)) for key in event.modifiers}
    return {frozenset({"Shift"}): True, frozenset({"Control"}): False}.get(frozenset(held))


def _inside(index: npt.NDArray[np.float64], grid: DisplayGrid) -> bool:
    return bool(((index > -0.5) & (index < np.array(grid.shape) - 0.5)).all())


def _prompt(tool: Tool, shown: npt.NDArray[np.float64], grid: DisplayGrid, axis: int, value: int, adds: bool) -> Any:
    from effvit_med.volume.prompts import Prompt

    extent = float(np.ptp(shown, axis=0).max())
    index = grid.to_index(shown)
    across = grid.axes[axis]
    if extent < DRAG_VOXELS:
        return Prompt("point", value, adds, _vertices(index[:1]))
    if tool == "box":
        return Prompt("box", value, adds, _vertices(index[[0, -1]]), across)
    index = _thinned(index)
    if tool == "lasso" and len(index) > 2:
        return Prompt("lasso", value, adds, _vertices(index), across)
    return Prompt("scribble", value, adds, _vertices(index))


def _vertices(index: npt.NDArray[np.float64]) -> tuple[tuple[float, float, float], ...]:
    return tuple((round(float(a), 2), round(float(b), 2), round(float(c), 2)) for a, b, c in index)


def _thinned(index: npt.NDArray[np.float64], step: float = 1.0) -> npt.NDArray[np.float64]:
    """The way of the mouse without places that are nearer than a voxel to the one before; its end stays."""
    kept = [index[0]]
    for place in index[1:]:
        if np.abs(place - kept[-1]).max() >= step:
            kept.append(place)
    if np.abs(index[-1] - kept[-1]).max() > 0:
        kept.append(index[-1])
    return np.stack(kept)
