"""A hand for tests: real mouse and key events of Qt on the canvas of a real viewer, at places of napari's world."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication, QStyle, QStyleOptionViewItem

from napari_effvit_med.looking import camera_of
from napari_effvit_med.structures_view import LOCK

NONE, SHIFT = Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier
CTRL = Qt.KeyboardModifier.ControlModifier
LEFT = Qt.MouseButton.LeftButton
MOVE_MS = 20
"""Between two moves of a mouse; the canvas does not take more than one within 10 ms."""


class Hand:
    """Points, drags and types on the canvas of a viewer.

    Args:
        viewer: of napari, with a window.
        bot: of pytest-qt.
    """

    def __init__(self, viewer: Any, bot: Any) -> None:
        self.viewer, self.bot = viewer, bot
        window = viewer.window._qt_window
        window.show()
        bot.waitExposed(window)
        self.canvas = viewer.window._qt_viewer.canvas.native
        QApplication.processEvents()

    @property
    def camera(self) -> Any:
        """The camera of the canvas."""
        return camera_of(self.viewer)

    def pixel(self, world: Sequence[float]) -> QPoint:
        """Where on the canvas a place of the world is drawn."""
        camera = self.camera
        shown = [float(world[axis]) for axis in self.viewer.dims.displayed]
        middle = np.array([self.canvas.height(), self.canvas.width()]) / 2
        y, x = (np.array(shown) - np.array(camera.center[-2:])) * camera.zoom + middle
        point = QPoint(round(float(x)), round(float(y)))
        assert self.canvas.rect().contains(point), f"{world} is not on the canvas"
        return point

    def look_at(self, layer: Any, index: Iterable[float]) -> np.ndarray:
        """Go to the slice of a voxel and bring it into the middle, and say where it is."""
        world = np.array(layer.data_to_world(tuple(float(at) for at in index)))
        for axis in self.viewer.dims.not_displayed:
            self.viewer.dims.set_point(axis, world[axis])
        self.camera.center = (0.0, *(world[axis] for axis in self.viewer.dims.displayed))
        QApplication.processEvents()
        return world

    def click(self, world: Sequence[float], held: Any = NONE) -> None:
        """Press and let go at one place."""
        self.bot.mouseClick(self.canvas, LEFT, held, self.pixel(world))

    def drag(self, worlds: Sequence[Sequence[float]], held: Any = NONE) -> None:
        """Press at the first place, go along the others, and let go at the last."""
        pixels = [self.pixel(world) for world in worlds]
        self.bot.mousePress(self.canvas, LEFT, held, pixels[0])
        for pixel in pixels[1:]:
            self.bot.wait(MOVE_MS)
            _move(self.canvas, pixel, held)
        self.bot.mouseRelease(self.canvas, LEFT, held, pixels[-1])

    def key(self, key: Any, held: Any = NONE) -> None:
        """Press and let go of a key."""
        self.bot.keyClick(self.canvas, key, held)


def _move(canvas: Any, pixel: QPoint, held: Any) -> None:
    """Move the mouse with the left button down; ``qtbot.mouseMove`` holds neither button nor key."""
    where, there = QPointF(pixel), QPointF(canvas.mapToGlobal(pixel))
    event = QMouseEvent(QEvent.Type.MouseMove, where, there, Qt.MouseButton.NoButton, LEFT, held)
    QApplication.sendEvent(canvas, event)


def click_structure(view: Any, number: int, column: int, bot: Any) -> None:
    """Click on a cell of the table of structures; on its box where it has one."""
    table = view.table
    item = table.item(number, column)
    table.scrollToItem(item)
    option = QStyleOptionViewItem()
    option.rect = table.visualItemRect(item)
    place = option.rect.center()
    if column == LOCK:
        option.features = QStyleOptionViewItem.ViewItemFeature.HasCheckIndicator
        box = table.style().subElementRect(QStyle.SubElement.SE_ItemViewItemCheckIndicator, option, table)
        place.setX(box.center().x())
    bot.mouseClick(table.viewport(), LEFT, pos=place)
