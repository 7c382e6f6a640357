"""Keys of the review, on the viewer for as long as the panel is open. Knows napari's key bindings, but no Qt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

SHORTCUTS: tuple[tuple[str, str, str], ...] = (
    ("N", "next_doubt", "next place in doubt"),
    ("Shift-N", "previous_doubt", "the place in doubt before"),
    ("K", "next_structure", "next structure"),
    ("J", "previous_structure", "the structure before"),
    ("Q", "accept", "accept the structure and go on to the next"),
    ("Shift-Q", "reopen", "take back that it was accepted or rejected"),
    ("C", "carry", "carry the structure from this slice through those beside it; again: stop"),
    ("D", "dismiss", "the place in doubt is right as it is"),
    ("U", "outline", "filled or as outlines"),
    ("H", "hide", "hide the labels while held"),
    ("W", "window", "next window of the scan"),
    ("G", "focus", "go to the structure"),
    (".", "forward", "ten slices on"),
    (",", "back", "ten slices back"),
)
"""Key, name of the action, and what it does."""

MOUSE_SHORTCUTS: tuple[tuple[str, str], ...] = (
    ("Shift + click", "this belongs to the structure"),
    ("Ctrl + click", "this does not belong to it"),
    ("Shift or Ctrl + drag", "the same along a way, in a box, or in an outline (see Tool)"),
    ("Ctrl + Z", "undo, also across structures and sittings"),
    ("Ctrl + Shift + Z", "redo"),
)


class KeyBindings:
    """Binds keys of a viewer, and gives back what was there before.

    Args:
        viewer: napari's viewer or its model.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._before: dict[Any, Any] = {}
        self._ours: dict[Any, Any] = {}

    def bind(self, actions: Mapping[str, Callable[[], None]], held: Mapping[str, Callable[[bool], None]]) -> None:
        """Bind every key of `SHORTCUTS` whose action is given.

        Args:
            actions: by name, called when the key is pressed.
            held: by name, called with True when the key goes down and with False when it goes up.
        """
        before = dict(self._viewer.keymap)
        for key, name, _ in SHORTCUTS:
            if name in actions:
                self._viewer.bind_key(key, _pressed(actions[name]), overwrite=True)
            elif name in held:
                self._viewer.bind_key(key, _held(held[name]), overwrite=True)
        for bound, function in self._viewer.keymap.items():
            if function is not before.get(bound):
                self._before[bound], self._ours[bound] = before.get(bound), function

    def release(self) -> None:
        """Give the keys back, but for those that somebody else has bound since."""
        for key, function in self._before.items():
            if self._viewer.keymap.get(key) is self._ours[key]:
                self._viewer.bind_key(key, function, overwrite=True)
        self._before, self._ours = {}, {}


def _pressed(action: Callable[[], None]) -> Callable[[Any], None]:
    def call(_: Any) -> None:
        action()

    return call


def _held(action: Callable[[bool], None]) -> Callable[[Any], Iterator[None]]:
    def call(_: Any) -> Iterator[None]:
        action(True)
        yield
        action(False)

    return call
