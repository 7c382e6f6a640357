"""The table of measurements, with real clicks and keys."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("qtpy.QtWidgets", reason="no Qt binding can be loaded", exc_type=ImportError)
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication

from napari_effvit_med.measurements_view import MEAN, NAME, VOLUME, VOXELS, MeasurementsView
from napari_effvit_med.rows import MeasurementRow

ROWS = (
    MeasurementRow("liver", 1523.4, 812345, 55.25, 0.0, "reaches the border of the scan", "HU"),
    MeasurementRow("kidney_left", 153.0, 81234, 101.0, 0.126, "", "HU"),
    MeasurementRow("spleen", None, None, None, 0.0, "not found by the model", "HU"),
)
_COPY = (Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier)


@pytest.fixture(name="view")
def _view(bot: Any) -> MeasurementsView:
    view = MeasurementsView()
    bot.addWidget(view)
    view.set_rows(ROWS)
    view.show()
    bot.waitExposed(view)
    QGuiApplication.clipboard().clear()
    return view


def test_what_is_not_there_has_a_dash(view: MeasurementsView) -> None:
    """Never 0; the unit is in the title."""
    assert [view.item(2, column).text() for column in (VOLUME, VOXELS, MEAN)] == ["–", "–", "–"]
    assert view.item(0, VOLUME).text() == "1523"
    assert view.horizontalHeaderItem(MEAN).text() == "Mean HU"


def test_copy_takes_all_rows_where_none_is_selected(view: MeasurementsView, bot: Any) -> None:
    """With titles, tabs between the columns, and numbers as they were measured."""
    bot.keyClick(view, *_COPY)
    lines = [line.split("\t") for line in QGuiApplication.clipboard().text().splitlines()]
    assert [line[0] for line in lines] == ["structure", "liver", "kidney_left", "spleen"]
    assert lines[1] == ["liver", "1523.4", "812345", "55.25", "HU", "0", "reaches the border of the scan"]
    assert lines[3][1:4] == ["", "", ""]


def test_copy_takes_the_selected_rows(view: MeasurementsView, bot: Any) -> None:
    """In their order in the table."""
    for number, keys in ((2, Qt.KeyboardModifier.NoModifier), (0, Qt.KeyboardModifier.ControlModifier)):
        place = view.visualItemRect(view.item(number, NAME)).center()
        bot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, keys, place)
    bot.keyClick(view, *_COPY)
    lines = QGuiApplication.clipboard().text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["structure", "liver", "spleen"]


def test_fewer_rows_replace_more(view: MeasurementsView) -> None:
    """Nothing of the old ones stays."""
    view.set_rows(ROWS[1:2])
    assert view.rowCount() == 1
    assert view.item(0, NAME).text() == "kidney_left"
