"""Letters of the patient at the edges of napari's canvas, for as long as the panel is open."""

from __future__ import annotations

import contextlib
from typing import Any

from napari_effvit_med.letters import EdgeLetters, edge_letters

_PREFIX = "effvit_med_letter"
_EDGES = {"top": "top_center", "bottom": "bottom_center", "left": "middle_left", "right": "middle_right"}


class OrientationLetters:
    """R, L, A, P, S and I where they belong; napari before 0.9 shows them as a small compass.

    Args:
        viewer: napari's viewer.

    Attributes:
        shown: the letters on the canvas; None in three dimensions, or where there are not three axes.
    """

    def __init__(self, viewer: Any) -> None:
        self.shown: EdgeLetters | None = None
        self._viewer = viewer
        self._overlays: dict[str, Any] = {}
        canvas = getattr(viewer, "canvas", None)
        overlays = getattr(canvas, "overlays", None)
        self._has_edges = overlays is not None
        if overlays is not None:
            from napari.components.overlays import TextOverlay

            for edge, position in _EDGES.items():
                key = f"{_PREFIX}_{edge}"
                overlays[key] = TextOverlay(position=position, font_size=16)
                self._overlays[edge] = overlays[key]
        else:
            self._before = (viewer.text_overlay.text, viewer.text_overlay.visible)
        self._camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
        self._events = [viewer.dims.events.order, viewer.dims.events.ndisplay, viewer.dims.events.ndim]
        self._events.append(self._camera.events.orientation)
        for event in self._events:
            event.connect(self.update)
        self.update()

    def update(self, _: object = None) -> None:
        """Put the letters of what is shown now."""
        dims = self._viewer.dims
        flat = dims.ndisplay == 2
        self.shown = edge_letters(dims.order, [str(each) for each in self._camera.orientation2d]) if flat else None
        if self._has_edges:
            for edge, overlay in self._overlays.items():
                overlay.text = getattr(self.shown, edge) if self.shown else ""
                overlay.visible = self.shown is not None
        else:
            self._viewer.text_overlay.text = self.shown.to_compass() if self.shown else ""
            self._viewer.text_overlay.visible = self.shown is not None

    def remove(self) -> None:
        """Take the letters off the canvas and listen no more."""
        for event in self._events:
            event.disconnect(self.update)
        self._events = []
        if self._has_edges:
            for edge in self._overlays:
                with contextlib.suppress(KeyError):
                    del self._viewer.canvas.overlays[f"{_PREFIX}_{edge}"]
            self._overlays = {}
        else:
            self._viewer.text_overlay.text, self._viewer.text_overlay.visible = self._before
