"""The chart of doubt per slice, with real clicks, keys and pixels."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("qtpy.QtWidgets", reason="no Qt binding can be loaded", exc_type=ImportError)
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QHelpEvent, QMouseEvent
from qtpy.QtWidgets import QApplication, QToolTip

from napari_effvit_med.doubt_strip import DoubtStrip

_LEFT = Qt.MouseButton.LeftButton


@pytest.fixture(name="strip")
def _strip(bot: Any) -> DoubtStrip:
    strip = DoubtStrip()
    bot.addWidget(strip)
    strip.resize(200, 28)
    strip.set_values([0.0] * 7 + [2.0] + [0.0] * 2, 0)
    strip.show()
    bot.waitExposed(strip)
    return strip


@pytest.fixture(name="sent")
def _sent(strip: DoubtStrip) -> list[int]:
    sent: list[int] = []
    strip.slice_chosen.connect(sent.append)
    return sent


def _drag_to(strip: DoubtStrip, x: int) -> None:
    place = QPointF(x, 10)
    event = QMouseEvent(
        QEvent.Type.MouseMove,
        place,
        QPointF(strip.mapToGlobal(QPoint(x, 10))),
        Qt.MouseButton.NoButton,
        _LEFT,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(strip, event)


def _inked_columns(strip: DoubtStrip) -> list[int]:
    """The columns whose pixel in the middle is not the ground."""
    picture = strip.grab().toImage()
    ground = strip.palette().base().color()
    middle = picture.height() // 2
    return [x for x in range(picture.width()) if picture.pixelColor(x, middle) != ground]


def test_a_click_chooses_the_slice_under_it(strip: DoubtStrip, sent: list[int], bot: Any) -> None:
    """Ten slices on 200 pixels; the ends belong to the first and the last."""
    for x in (150, 0, 199):
        bot.mouseClick(strip, _LEFT, pos=QPoint(x, 10))
    assert sent == [7, 0, 9]
    assert strip.current == 9


def test_a_drag_says_each_slice_once(strip: DoubtStrip, sent: list[int], bot: Any) -> None:
    """Also beyond the ends, where it stays at the last."""
    bot.mousePress(strip, _LEFT, pos=QPoint(30, 10))
    for x in (31, 50, 55, 500):
        _drag_to(strip, x)
    bot.mouseRelease(strip, _LEFT)
    assert sent == [1, 2, 9]


def test_keys_go_along_the_slices(strip: DoubtStrip, sent: list[int], bot: Any) -> None:
    """Not beyond the ends."""
    for key in (Qt.Key.Key_Left, Qt.Key.Key_Right, Qt.Key.Key_End, Qt.Key.Key_Right, Qt.Key.Key_Home):
        bot.keyClick(strip, key)
    assert sent == [1, 9, 0]


def test_setting_says_nothing(strip: DoubtStrip, sent: list[int]) -> None:
    """A slice outside marks the nearest; fewer slices bring the mark back inside."""
    strip.set_current(99)
    assert strip.current == 9
    strip.set_values([1.0, 2.0], 5)
    assert strip.current == 1
    assert sent == []


def test_the_bars_stand_where_the_doubt_is(strip: DoubtStrip) -> None:
    """Slice 7 of 10 fills the pixels from 140 to 159; the mark is at slice 0."""
    inked = _inked_columns(strip)
    assert [x for x in inked if x >= 20] == list(range(140, 160))
    assert set(range(20)) & set(inked)


def test_a_peak_is_seen_among_more_slices_than_pixels(strip: DoubtStrip) -> None:
    """One slice of 2000 on 200 pixels."""
    strip.set_values([0.01] * 1503 + [3.0] + [0.01] * 496, 0)
    assert 150 in _inked_columns(strip)


def test_an_empty_strip_can_be_clicked(strip: DoubtStrip, sent: list[int], bot: Any) -> None:
    """Nothing is said and nothing breaks; nor where nothing is in doubt."""
    strip.set_values([], 0)
    bot.mouseClick(strip, _LEFT)
    bot.keyClick(strip, Qt.Key.Key_Right)
    assert not strip.grab().isNull()
    strip.set_values([0.0, 0.0], 0)
    assert not strip.grab().isNull()
    assert sent == []


def test_the_tooltip_says_slice_and_volume(strip: DoubtStrip) -> None:
    """Of what is under the mouse; the current one is described for a screen reader."""
    place = QPoint(150, 10)
    QApplication.sendEvent(strip, QHelpEvent(QEvent.Type.ToolTip, place, strip.mapToGlobal(place)))
    assert QToolTip.text() == "Slice 7: 2.0 mL likely wrong"
    QToolTip.hideText()
    strip.set_current(7)
    assert strip.accessibleName()
    assert strip.accessibleDescription() == "Slice 7: 2.0 mL likely wrong"
