"""A layer that the plugin adds beside what is under review. Knows napari's viewer model, but no Qt."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


class OwnLayer:
    """A layer of ours, which the user may delete at any time and which never becomes the active one.

    Args:
        viewer: napari's viewer or its model.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Any = None

    @property
    def layer(self) -> Any:
        """The layer; None before there is one and after it was deleted."""
        if self._layer is not None and self._layer not in self._viewer.layers:
            self._layer = None
        return self._layer

    def remove(self) -> None:
        """Take the layer away."""
        if self.layer is not None:
            with contextlib.suppress(ValueError):
                self._viewer.layers.remove(self._layer)
        self._layer = None

    @contextlib.contextmanager
    def _keep_selection(self) -> Iterator[None]:
        """What is selected and active stays so, whatever is added within."""
        selection = self._viewer.layers.selection
        selected, active = set(selection), selection.active
        yield
        self._viewer.layers.selection = selected
        self._viewer.layers.selection.active = active
