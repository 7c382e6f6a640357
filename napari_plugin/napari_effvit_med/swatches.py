"""The small pictures of the lists: a structure's colour and a padlock, in the colours of the theme."""

from __future__ import annotations

from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPalette, QPen, QPixmap

from napari_effvit_med.rows import Colour

SIZE = 14


def make_swatch(colour: Colour, palette: QPalette, *, faint: bool = False) -> QIcon:
    """A square of a colour with a border, so that dark ones show on a dark ground; the same when selected.

    Args:
        colour: red, green and blue, 0 to 255.
        palette: of the widget.
        faint: whether it is half transparent.
    """
    picture = QPixmap(SIZE, SIZE)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setOpacity(0.4 if faint else 1)
    painter.setPen(QPen(palette.color(QPalette.ColorRole.Text), 1))
    painter.setBrush(QColor(*colour))
    painter.drawRect(1, 1, SIZE - 3, SIZE - 3)
    painter.end()
    return _make_icon(picture)


def make_padlock(palette: QPalette, *, locked: bool) -> QIcon:
    """A padlock, closed or, faintly, open.

    Args:
        palette: of the widget.
        locked: whether it is closed.
    """
    ink = palette.color(QPalette.ColorRole.Text)
    picture = QPixmap(SIZE, SIZE)
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setOpacity(1 if locked else 0.35)
    painter.setPen(QPen(ink, 1.6))
    side = 0 if locked else 4
    painter.drawArc(QRectF(4 + side, 1.5, 6, 7), 0, 180 * 16)
    painter.drawLine(QPointF(4 + side, 5), QPointF(4 + side, 7))
    if locked:
        painter.drawLine(QPointF(10, 5), QPointF(10, 7))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(ink)
    painter.drawRoundedRect(QRectF(2, 6.5, 10, 6.5), 1, 1)
    painter.end()
    return _make_icon(picture)


def mix_text(palette: QPalette, share: float) -> QColor:
    """A colour between the ground of lists and their text, in any theme.

    Args:
        palette: of the widget.
        share: how much of it is text, 0 to 1.
    """
    ink, ground = palette.color(QPalette.ColorRole.Text), palette.color(QPalette.ColorRole.Base)
    pairs = ((ink.red(), ground.red()), (ink.green(), ground.green()), (ink.blue(), ground.blue()))
    return QColor(*(round(share * mine + (1 - share) * other) for mine, other in pairs))


def _make_icon(picture: QPixmap) -> QIcon:
    icon = QIcon(picture)
    icon.addPixmap(picture, QIcon.Mode.Selected)  # else the style tints it
    return icon
