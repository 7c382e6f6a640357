"""The table of structures of the review with its buttons: it shows rows and says what the user pressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from qtpy.QtCore import QEvent, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QGridLayout,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_effvit_med.rows import STATE_WORDS, StructureRow, describe_ml, describe_share
from napari_effvit_med.swatches import make_padlock, make_swatch

NAME, VOLUME, DOUBT, STATE, LOCK = range(5)
_TITLES = (
    ("Structure", "Select one to paint and correct it; double-click goes there again"),
    ("mL", "Volume as it is now"),
    ("Doubt", "mL that are likely wrong, as the network's confidence says"),
    ("State", "How far its review is"),
    ("Lock", "A locked structure is safe from every edit"),
)
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class StructuresView(QWidget):  # type: ignore[misc]  # Qt has no types here
    """Structures with volume, doubt, state and lock; under them what can be done with the selected one.

    Args:
        parent: the widget it is a part of.

    Attributes:
        chosen: a value; the user selected its row, or double-clicked it again.
        accepted: a value; it shall be accepted.
        rejected: a value; it shall be rejected.
        reset: a value; it shall be as the automatic result had it.
        reopened: a value; that it was accepted or rejected is taken back.
        lock_changed: a value, and whether it shall be locked.
        solo_changed: whether only the selected structure shall be shown.
        table: one row per structure.
        accept_button: sends ``accepted``, or ``reopened`` for an accepted one.
        reject_button: sends ``rejected``, or ``reopened`` for a rejected one.
        reset_button: sends ``reset``.
        solo_button: sends ``solo_changed``.
    """

    chosen = Signal(int)
    accepted = Signal(int)
    rejected = Signal(int)
    reset = Signal(int)
    reopened = Signal(int)
    lock_changed = Signal(int, bool)
    solo_changed = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[StructureRow, ...] = ()
        self.table = self._make_table()
        self.accept_button = _make_button("Accept", "It is right as it is; an accepted structure is reopened")
        self.reject_button = _make_button("Reject", "It is not to be used; a rejected structure is reopened")
        self.reset_button = _make_button("Reset", "As the automatic result had it; can be undone")
        self.solo_button = _make_button("Only this one", "Hide the other structures")
        self.solo_button.setCheckable(True)
        self.accept_button.clicked.connect(lambda: self._settle("accepted"))
        self.reject_button.clicked.connect(lambda: self._settle("rejected"))
        self.reset_button.clicked.connect(self._reset)
        self.solo_button.toggled.connect(self.solo_changed)
        buttons = QGridLayout()
        for place, button in enumerate((self.accept_button, self.reject_button, self.reset_button, self.solo_button)):
            buttons.addWidget(button, *divmod(place, 2))
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.table)
        column.addLayout(buttons)
        self._update_buttons()

    def _make_table(self) -> QTableWidget:
        table = QTableWidget(0, len(_TITLES))
        table.setAccessibleName("Structures")
        for column, (title, tip) in enumerate(_TITLES):
            item = QTableWidgetItem(title)
            item.setToolTip(tip)
            table.setHorizontalHeaderItem(column, item)
        header = table.horizontalHeader()
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        table.verticalHeader().hide()
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setTabKeyNavigation(False)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.setMinimumHeight(150)
        table.itemSelectionChanged.connect(self._choose)
        table.itemActivated.connect(lambda _: self._choose())
        table.itemChanged.connect(self._change_lock)
        return table

    @property
    def selected(self) -> int | None:
        """The value of the selected structure; None if none is."""
        row = self._selected_row()
        return None if row is None else row.value

    def select(self, value: int | None) -> None:
        """Select a structure without a signal.

        Args:
            value: of the structure; None, or one that is not listed, for none.
        """
        numbers = {row.value: number for number, row in enumerate(self._rows)}
        with self._quiet():
            if value in numbers:
                self.table.selectRow(numbers[value])
            else:
                self.table.clearSelection()
        self._update_buttons()

    def set_rows(self, rows: Sequence[StructureRow]) -> None:
        """Show rows, without a signal; the same structure stays selected while it is listed.

        Args:
            rows: from top to bottom, each value once.
        """
        selected, before = self.selected, self._rows
        self._rows = tuple(rows)
        same = [row.value for row in before] == [row.value for row in self._rows]
        with self._quiet():
            if not same:
                self.table.clearSelection()
                self.table.setRowCount(0)
                self.table.setRowCount(len(self._rows))
            for number, row in enumerate(self._rows):
                if not same or row != before[number]:
                    self._show(number, row)
        if not same:
            self.select(selected)
        self._update_buttons()

    def set_solo(self, solo: bool) -> None:
        """Show, without a signal, whether only the selected structure is shown."""
        self.solo_button.blockSignals(True)
        self.solo_button.setChecked(solo)
        self.solo_button.blockSignals(False)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        before = self.table.blockSignals(True)
        try:
            yield
        finally:
            self.table.blockSignals(before)

    def _show(self, number: int, row: StructureRow) -> None:
        edited = f"{describe_share(row.edited_fraction)} differs from the automatic result"
        volume = "not found" if row.volume_ml is None else f"{row.volume_ml:.3f} mL"
        name = self._set(number, NAME, row.name, row.name)
        name.setIcon(make_swatch(row.colour, self.palette()))
        self._set(number, VOLUME, describe_ml(row.volume_ml), volume).setTextAlignment(_RIGHT)
        doubt = describe_ml(row.doubt_ml)
        self._set(number, DOUBT, doubt, f"{row.doubt_ml:.3f} mL likely wrong").setTextAlignment(_RIGHT)
        self._set(number, STATE, STATE_WORDS.get(row.state, row.state), edited)
        lock = self._set(number, LOCK, "", "Locked: no edit changes it" if row.locked else "Not locked")
        lock.setFlags(lock.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        lock.setCheckState(Qt.CheckState.Checked if row.locked else Qt.CheckState.Unchecked)
        lock.setIcon(make_padlock(self.palette(), locked=row.locked))

    def _set(self, number: int, column: int, text: str, tip: str) -> QTableWidgetItem:
        item = self.table.item(number, column)
        if item is None:
            item = QTableWidgetItem()
            self.table.setItem(number, column, item)
        item.setText(text)
        item.setToolTip(tip)
        return item

    def _selected_row(self) -> StructureRow | None:
        found = self.table.selectionModel().selectedRows()
        return self._rows[found[0].row()] if found else None

    def _choose(self) -> None:
        self._update_buttons()
        if self.selected is not None:
            self.chosen.emit(self.selected)

    def _change_lock(self, item: QTableWidgetItem) -> None:
        if item.column() != LOCK:
            return
        row, locked = self._rows[item.row()], item.checkState() == Qt.CheckState.Checked
        if locked != row.locked:
            with self._quiet():  # the box shows what the rows say, until they say otherwise
                self._show(item.row(), row)
            self.lock_changed.emit(row.value, locked)

    def _settle(self, state: str) -> None:
        row = self._selected_row()
        if row is not None:
            signal = self.accepted if state == "accepted" else self.rejected
            (self.reopened if row.state == state else signal).emit(row.value)

    def _reset(self) -> None:
        if self.selected is not None:
            self.reset.emit(self.selected)

    def _update_buttons(self) -> None:
        row = self._selected_row()
        for button in (self.accept_button, self.reject_button, self.reset_button):
            button.setEnabled(row is not None)
        self.solo_button.setEnabled(row is not None or self.solo_button.isChecked())
        state = row.state if row else ""
        self.accept_button.setText("Reopen" if state == "accepted" else "Accept")
        self.reject_button.setText("Reopen" if state == "rejected" else "Reject")

    def changeEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Draw the pictures anew in another theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange):
            with self._quiet():
                for number, row in enumerate(self._rows):
                    self._show(number, row)


def _make_button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button
