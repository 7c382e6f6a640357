"""The table of structures, with real clicks and keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("qtpy.QtWidgets", reason="no Qt binding can be loaded", exc_type=ImportError)
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QStyle, QStyleOptionViewItem

from napari_effvit_med.rows import StructureRow
from napari_effvit_med.structures_view import LOCK, NAME, STATE, VOLUME, StructuresView

_LEFT = Qt.MouseButton.LeftButton
ROWS = (
    StructureRow(1, "liver", (221, 130, 101), 1523.4, 3.4, "unseen", locked=False, edited_fraction=0.0),
    StructureRow(4, "kidney_left_with_a_very_long_name", (185, 102, 83), 153.0, 0.8, "edited", False, 0.126),
    StructureRow(7, "spleen", (157, 108, 162), None, 0.0, "accepted", locked=True, edited_fraction=0.0),
    StructureRow(9, "pancreas", (249, 180, 111), 71.2, 0.04, "rejected", locked=False, edited_fraction=0.5),
)
SIGNALS = ("chosen", "accepted", "rejected", "reset", "reopened", "lock_changed", "solo_changed")


@pytest.fixture(name="view")
def _view(bot: Any) -> StructuresView:
    view = StructuresView()
    bot.addWidget(view)
    view.resize(340, 260)
    view.set_rows(ROWS)
    view.show()
    bot.waitExposed(view)
    return view


@pytest.fixture(name="sent")
def _sent(view: StructuresView) -> list[tuple[Any, ...]]:
    """What the view has said, in order."""
    sent: list[tuple[Any, ...]] = []
    for name in SIGNALS:
        getattr(view, name).connect(lambda *values, name=name: sent.append((name, *values)))
    return sent


def _click(view: StructuresView, bot: Any, number: int, column: int = NAME) -> None:
    place = view.table.visualItemRect(view.table.item(number, column)).center()
    bot.mouseClick(view.table.viewport(), _LEFT, pos=place)


def _click_box(view: StructuresView, bot: Any, number: int) -> None:
    item = view.table.item(number, LOCK)
    option = QStyleOptionViewItem()
    option.rect = view.table.visualItemRect(item)
    option.features = QStyleOptionViewItem.ViewItemFeature.HasCheckIndicator
    box = view.table.style().subElementRect(QStyle.SubElement.SE_ItemViewItemCheckIndicator, option, view.table)
    bot.mouseClick(view.table.viewport(), _LEFT, pos=QPoint(box.center().x(), option.rect.center().y()))


def test_a_click_chooses_a_structure(view: StructuresView, sent: list[Any], bot: Any) -> None:
    """Its value is said once, and the buttons can be pressed from then on."""
    assert view.selected is None
    assert not view.accept_button.isEnabled()
    _click(view, bot, 1)
    assert sent == [("chosen", 4)]
    assert view.selected == 4
    assert view.accept_button.isEnabled()


def test_keys_walk_the_table(view: StructuresView, sent: list[Any], bot: Any) -> None:
    """Down goes to the next structure."""
    _click(view, bot, 0)
    bot.keyClick(view.table, Qt.Key.Key_Down)
    assert sent == [("chosen", 1), ("chosen", 4)]


def test_a_double_click_says_it_again(view: StructuresView, sent: list[Any], bot: Any) -> None:
    """So that one can go back to a structure that is selected already."""
    _click(view, bot, 1)
    place = view.table.visualItemRect(view.table.item(1, NAME)).center()
    bot.mouseDClick(view.table.viewport(), _LEFT, pos=place)
    assert sent == [("chosen", 4), ("chosen", 4)]


@pytest.mark.parametrize(
    ("number", "button", "said"),
    [
        (0, "accept_button", ("accepted", 1)),
        (0, "reject_button", ("rejected", 1)),
        (1, "reset_button", ("reset", 4)),
        (2, "accept_button", ("reopened", 7)),
        (2, "reject_button", ("rejected", 7)),
        (3, "reject_button", ("reopened", 9)),
        (3, "accept_button", ("accepted", 9)),
    ],
)
def test_buttons_act_on_the_selected_structure(
    view: StructuresView, sent: list[Any], bot: Any, number: int, button: str, said: tuple[str, int]
) -> None:
    """Accept on an accepted one, and Reject on a rejected one, take it back."""
    view.select(ROWS[number].value)
    bot.mouseClick(getattr(view, button), _LEFT)
    assert sent == [said]


def test_buttons_say_what_they_will_do(view: StructuresView) -> None:
    """For an accepted structure Accept is Reopen, also when it becomes accepted while selected."""
    view.select(1)
    assert (view.accept_button.text(), view.reject_button.text()) == ("Accept", "Reject")
    view.set_rows([replace(ROWS[0], state="accepted"), *ROWS[1:]])
    assert (view.accept_button.text(), view.reject_button.text()) == ("Reopen", "Reject")


def test_new_rows_keep_the_selection_and_say_nothing(view: StructuresView, sent: list[Any]) -> None:
    """The same structures with other values, and another order, and one less."""
    view.select(4)
    view.set_rows([replace(row, volume_ml=2.0, locked=not row.locked, state="edited") for row in ROWS])
    assert view.selected == 4
    assert view.table.item(2, VOLUME).text() == "2.0"
    view.set_rows(ROWS[::-1])
    assert view.selected == 4
    assert view.table.item(0, NAME).text() == "pancreas"
    assert view.table.currentRow() == 2
    view.set_rows(ROWS[2:])
    assert view.selected is None
    assert not view.reset_button.isEnabled()
    view.set_rows([])
    assert view.table.rowCount() == 0
    assert sent == []


def test_a_lock_is_changed_by_its_box(view: StructuresView, sent: list[Any], bot: Any) -> None:
    """The value and the new lock are said."""
    _click_box(view, bot, 1)
    assert ("lock_changed", 4, True) in sent
    sent.clear()
    view.set_rows([ROWS[0], replace(ROWS[1], locked=True), *ROWS[2:]])
    _click_box(view, bot, 2)
    assert ("lock_changed", 7, False) in sent


def test_a_lock_that_was_refused_is_shown_as_it_is(view: StructuresView, bot: Any) -> None:
    """The box follows the rows, not the click."""
    _click_box(view, bot, 1)
    assert view.table.item(1, LOCK).checkState() == Qt.CheckState.Unchecked


def test_only_this_one_is_a_switch(view: StructuresView, sent: list[Any], bot: Any) -> None:
    """It can be switched off also when the selection is gone; set_solo says nothing."""
    view.select(1)
    bot.mouseClick(view.solo_button, _LEFT)
    view.select(None)
    bot.mouseClick(view.solo_button, _LEFT)
    assert sent == [("solo_changed", True), ("solo_changed", False)]
    view.set_solo(True)
    assert view.solo_button.isChecked()
    assert len(sent) == 2


def test_everything_fits_at_340_pixels(view: StructuresView) -> None:
    """No column but the name is narrower than what it shows, and the name has room."""
    assert view.minimumSizeHint().width() <= 340
    table = view.table
    assert sum(table.columnWidth(column) for column in range(5)) <= table.viewport().width()
    for column in (VOLUME, STATE):
        assert table.columnWidth(column) >= table.sizeHintForColumn(column)
    assert table.columnWidth(NAME) >= 80
