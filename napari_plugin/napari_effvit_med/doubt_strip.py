"""A thin chart of where along the slices something is likely wrong; a click goes there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QPainter, QPalette, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_effvit_med.rows import describe_ml
from napari_effvit_med.swatches import mix_text

HEIGHT = 28


def column_peaks(values: Sequence[float], columns: int) -> list[float]:
    """The largest value that falls on each column of pixels, so that no peak is lost where slices are many.

    Args:
        values: one per slice.
        columns: how many there are.

    Examples:
        >>> column_peaks([0, 5, 1, 2], 2), column_peaks([1, 2], 4), column_peaks([], 3)
        ([5, 2], [1, 1, 2, 2], [])
    """
    count = len(values)
    if not count:
        return []
    starts = [column * count // columns for column in range(columns + 1)]
    return [max(values[start : max(stop, start + 1)]) for start, stop in pairwise(starts)]


class DoubtStrip(QWidget):  # type: ignore[misc]  # Qt has no types here
    """A bar per slice, as high as the volume in it that is likely wrong, and a mark at the slice that is shown.

    Args:
        parent: the widget it is a part of.

    Attributes:
        slice_chosen: a slice; the user clicked, dragged or pressed a key to go there.
    """

    slice_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._values: tuple[float, ...] = ()
        self._current = -1
        self.setFixedHeight(HEIGHT)
        self.setMinimumWidth(60)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName("Volume per slice that is likely wrong")
        self._describe()

    @property
    def current(self) -> int:
        """The slice that is marked; -1 if there is none."""
        return self._current

    def set_values(self, values: Sequence[float], current: int) -> None:
        """Show other values, without a signal.

        Args:
            values: mL that are likely wrong, one per slice, in the order of the slider.
            current: the slice that is shown.
        """
        self._values = tuple(float(value) for value in values)
        self.set_current(current)
        self.update()

    def set_current(self, current: int) -> None:
        """Mark another slice, without a signal; one outside marks the nearest."""
        current = min(max(current, 0), len(self._values) - 1)
        if current != self._current:
            self._current = current
            self.update()
        self._describe()

    def slice_at(self, x: float) -> int:
        """The slice under a place from the left, in pixels; the first or last beyond the ends, -1 if there is none."""
        count = len(self._values)
        return min(max(int(x * count // max(1, self.width())), 0), count - 1)

    def sizeHint(self) -> QSize:  # noqa: N802  Qt's name
        """As wide as the panel."""
        return QSize(320, HEIGHT)

    def paintEvent(self, event: Any) -> None:  # noqa: ARG002, N802  Qt's name
        """Draw the bars, then the mark."""
        painter, palette = QPainter(self), self.palette()
        painter.fillRect(self.rect(), palette.color(QPalette.ColorRole.Base))
        width, height = self.width(), self.height()
        top, ink = max(self._values, default=0.0), mix_text(palette, 0.6)
        for column, value in enumerate(column_peaks(self._values, width)):
            if value > 0:
                tall = max(1, round(value / top * (height - 2)))
                painter.fillRect(column, height - tall, 1, tall, ink)
        if self._values:
            self._mark(painter)
        if self.hasFocus():
            painter.setPen(palette.color(QPalette.ColorRole.Highlight))
            painter.drawRect(0, 0, width - 1, height - 1)
        painter.end()

    def _mark(self, painter: QPainter) -> None:
        palette = self.palette()
        step = self.width() / len(self._values)
        left, wide = self._current * step, max(2.0, step)
        wash = palette.color(QPalette.ColorRole.Highlight)
        wash.setAlpha(110)
        painter.fillRect(QRectF(left, 0, wide, self.height()), wash)
        middle = left + wide / 2
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(palette.color(QPalette.ColorRole.Text))
        painter.drawPolygon(QPolygonF([QPointF(middle - 4, 0), QPointF(middle + 4, 0), QPointF(middle, 6)]))
        painter.fillRect(QRectF(middle - 0.5, 0, 1, self.height()), palette.color(QPalette.ColorRole.Text))
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, on=False)
        painter.setBrush(Qt.BrushStyle.NoBrush)

    def mousePressEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Go to the slice under the mouse."""
        if event.button() == Qt.MouseButton.LeftButton and self._values:
            self._choose(self.slice_at(event.position().x()), again=True)

    def mouseMoveEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Follow the mouse while its button is down."""
        if event.buttons() & Qt.MouseButton.LeftButton and self._values:
            self._choose(self.slice_at(event.position().x()))

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Left and right go one slice, Home and End to the ends."""
        last = len(self._values) - 1
        keys = {
            Qt.Key.Key_Left: self._current - 1,
            Qt.Key.Key_Right: self._current + 1,
            Qt.Key.Key_Home: 0,
            Qt.Key.Key_End: last,
        }
        if event.key() in keys and self._values:
            self._choose(min(max(keys[event.key()], 0), last))
        else:
            super().keyPressEvent(event)

    def event(self, event: Any) -> bool:
        """Say which slice is under the mouse and what is likely wrong in it."""
        if event.type() == QEvent.Type.ToolTip and self._values:
            QToolTip.showText(event.globalPos(), self.describe(self.slice_at(event.pos().x())), self)
            return True
        return bool(super().event(event))

    def describe(self, number: int) -> str:
        """A slice in words."""
        return f"Slice {number}: {describe_ml(self._values[number])} mL likely wrong"

    def _choose(self, number: int, *, again: bool = False) -> None:
        if again or number != self._current:
            self.set_current(number)
            self.slice_chosen.emit(number)

    def _describe(self) -> None:
        self.setAccessibleDescription(self.describe(self._current) if self._values else "Nothing to show")
