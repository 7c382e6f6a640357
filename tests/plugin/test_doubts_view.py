"""The list of places to look at, with real clicks and keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("qtpy.QtWidgets", reason="no Qt binding can be loaded", exc_type=ImportError)
from qtpy.QtCore import Qt

from napari_effvit_med.doubts_view import DoubtsView
from napari_effvit_med.rows import DoubtRow

_LEFT = Qt.MouseButton.LeftButton
_WHY = "The network wavers here between this structure and its neighbours over many voxels."
ROWS = (
    DoubtRow(5, 1, "liver", (221, 130, 101), 2.1, _WHY, 34, seen=True),
    DoubtRow(8, 4, "kidney_left", (185, 102, 83), 0.8, _WHY, 12, seen=False),
    DoubtRow(2, 0, "background", (0, 0, 0), 0.5, "It has 3 parts.", 50, seen=False),
)


@pytest.fixture(name="view")
def _view(bot: Any) -> DoubtsView:
    view = DoubtsView()
    bot.addWidget(view)
    view.resize(340, 280)
    view.set_rows(ROWS)
    view.show()
    bot.waitExposed(view)
    return view


@pytest.fixture(name="sent")
def _sent(view: DoubtsView) -> list[tuple[str, int]]:
    """What the view has said, in order."""
    sent: list[tuple[str, int]] = []
    for name in ("jumped", "stepped", "dismissed"):
        getattr(view, name).connect(lambda value, name=name: sent.append((name, value)))
    return sent


def _click(view: DoubtsView, bot: Any, at: int, *, twice: bool = False) -> None:
    place = view.list.visualItemRect(view.list.item(at)).center()
    (bot.mouseDClick if twice else bot.mouseClick)(view.list.viewport(), _LEFT, pos=place)


def test_a_click_jumps_to_a_place(view: DoubtsView, sent: list[Any], bot: Any) -> None:
    """Its number is said, not its line; a double click says it again; keys walk on."""
    _click(view, bot, 1)
    assert sent == [("jumped", 8)]
    _click(view, bot, 1, twice=True)
    bot.keyClick(view.list, Qt.Key.Key_Down)
    assert sent == [("jumped", 8), ("jumped", 8), ("jumped", 2)]


def test_buttons_step_and_dismiss(view: DoubtsView, sent: list[Any], bot: Any) -> None:
    """A place must be selected to be dismissed."""
    assert not view.dismiss_button.isEnabled()
    view.set_current(8)
    for button in (view.next_button, view.previous_button, view.dismiss_button):
        bot.mouseClick(button, _LEFT)
    assert sent == [("stepped", 1), ("stepped", -1), ("dismissed", 8)]


def test_new_rows_keep_the_place_and_say_nothing(view: DoubtsView, sent: list[Any]) -> None:
    """Seen ones, another order, one less."""
    view.set_current(8)
    view.set_rows([replace(row, seen=True) for row in ROWS])
    assert view.current == 8
    assert view.list.item(1).text().startswith("✓ kidney_left")
    view.set_rows(ROWS[::-1])
    assert view.current == 8
    view.set_rows([ROWS[0], ROWS[2]])
    assert view.current is None
    assert not view.dismiss_button.isEnabled()
    assert sent == []


def test_the_header_counts_and_adds_up(view: DoubtsView) -> None:
    """All places that are listed; words where there are none."""
    assert view.header.text() == "3 places, about 3.4 mL likely wrong"
    view.set_rows([])
    assert view.header.text() == "Nothing in doubt"
    assert not view.next_button.isEnabled()


def test_a_note_is_shown_while_there_is_one(view: DoubtsView) -> None:
    """It takes no room else."""
    assert not view.note.isVisible()
    view.set_note("No confidence map: only rules are listed")
    assert view.note.isVisible()


def test_seen_places_are_paler(view: DoubtsView) -> None:
    """And their message is in the tooltip with the slice."""
    first, second = (view.list.item(at) for at in (0, 1))
    assert first.foreground().color() != second.foreground().color()
    assert second.toolTip() == f"Slice 12. {_WHY}"


def test_a_style_sheet_sets_the_colours(view: DoubtsView, bot: Any) -> None:
    """As napari's dark theme does: seen places are grey on black, and the others have the colour of the sheet."""
    view.setStyleSheet("QWidget { color: white; background-color: black; }")
    bot.waitUntil(lambda: 100 < view.list.item(0).foreground().color().lightness() < 200)
    assert view.list.item(1).data(Qt.ItemDataRole.ForegroundRole) is None


def test_it_fits_at_340_pixels(view: DoubtsView) -> None:
    """The buttons, too."""
    assert view.minimumSizeHint().width() <= 340
