"""The list of places to look at: it shows rows and says where the user wants to go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QEvent, QSize, Qt, Signal
from qtpy.QtGui import QBrush
from qtpy.QtWidgets import QHBoxLayout, QLabel, QListWidget, QListWidgetItem, QPushButton, QVBoxLayout, QWidget

from napari_effvit_med.rows import DoubtRow, describe_doubts, describe_ml
from napari_effvit_med.swatches import make_swatch, mix_text


class DoubtsView(QWidget):  # type: ignore[misc]  # Qt has no types here
    """Places to look at, the worst first; under them the ways through.

    Args:
        parent: the widget it is a part of.

    Attributes:
        jumped: the number of a place; the user selected it, or double-clicked it again.
        stepped: +1 for the next place, -1 for the one before.
        dismissed: the number of a place that the user finds right as it is.
        header: how many places there are.
        note: what else should be known; hidden while empty.
        list: one item per place.
        previous_button: sends ``stepped`` with -1.
        next_button: sends ``stepped`` with 1.
        dismiss_button: sends ``dismissed``.
    """

    jumped = Signal(int)
    stepped = Signal(int)
    dismissed = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[DoubtRow, ...] = ()
        self.header, self.note = QLabel(), QLabel()
        for label in (self.header, self.note):
            label.setWordWrap(True)
        self.list = QListWidget()
        self.list.setAccessibleName("Places to look at")
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setMinimumHeight(120)
        self.list.itemSelectionChanged.connect(self._jump)
        self.list.itemActivated.connect(lambda _: self._jump())
        self.previous_button, self.next_button = QPushButton("Previous"), QPushButton("Next")
        self.dismiss_button = QPushButton("Right as it is")
        self.dismiss_button.setToolTip("Nothing has to be changed at this place")
        self.previous_button.clicked.connect(lambda: self.stepped.emit(-1))
        self.next_button.clicked.connect(lambda: self.stepped.emit(1))
        self.dismiss_button.clicked.connect(self._dismiss)
        column, buttons = QVBoxLayout(self), QHBoxLayout()
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.header, self.note, self.list):
            column.addWidget(part)
        for button in (self.previous_button, self.next_button, self.dismiss_button):
            buttons.addWidget(button)
        column.addLayout(buttons)
        self.set_note("")
        self.set_rows(())

    @property
    def current(self) -> int | None:
        """The number of the selected place; None if none is."""
        items = self.list.selectedItems()
        return self._rows[self.list.row(items[0])].number if items else None

    def set_note(self, text: str) -> None:
        """Say something under the header, such as that there is no confidence map; empty for nothing."""
        self.note.setText(text)
        self.note.setVisible(bool(text))

    def set_current(self, number: int | None) -> None:
        """Select a place without a signal.

        Args:
            number: of the place; None, or one that is not listed, for none.
        """
        found = next((at for at, row in enumerate(self._rows) if row.number == number), None)
        before = self.list.blockSignals(True)
        if found is None:
            self.list.setCurrentRow(-1)
            self.list.clearSelection()
        else:
            self.list.setCurrentRow(found)
            self.list.scrollToItem(self.list.item(found))
        self.list.blockSignals(before)
        self._update_buttons()

    def set_rows(self, rows: Sequence[DoubtRow]) -> None:
        """Show rows, without a signal; the same place stays selected while it is listed.

        Args:
            rows: from top to bottom, each number once.
        """
        current, before = self.current, self._rows
        self._rows = tuple(rows)
        same = [row.number for row in before] == [row.number for row in self._rows]
        blocked = self.list.blockSignals(True)
        if not same:
            self.list.clear()
            for _ in self._rows:
                self.list.addItem(QListWidgetItem())
        for at, row in enumerate(self._rows):
            if not same or row != before[at]:
                self._show(self.list.item(at), row)
        self.list.blockSignals(blocked)
        self.header.setText(describe_doubts(self._rows))
        if same:
            self._update_buttons()
        else:
            self.set_current(current)

    def _show(self, item: QListWidgetItem, row: DoubtRow) -> None:
        palette = self.palette()  # not the list's, which a style sheet changes later than this widget's
        mark = "✓ " if row.seen else ""
        item.setText(f"{mark}{row.structure}   {describe_ml(row.expected_wrong_ml)} mL\n{row.message}")
        seen = " Seen." if row.seen else ""
        item.setToolTip(f"Slice {row.slice_number}. {row.message}{seen}")
        item.setIcon(make_swatch(row.colour, palette, faint=row.seen))
        item.setData(Qt.ItemDataRole.ForegroundRole, QBrush(mix_text(palette, 0.7)) if row.seen else None)
        item.setSizeHint(QSize(0, 2 * self.list.fontMetrics().lineSpacing() + 6))

    def _jump(self) -> None:
        self._update_buttons()
        if self.current is not None:
            self.jumped.emit(self.current)

    def _dismiss(self) -> None:
        if self.current is not None:
            self.dismissed.emit(self.current)

    def _update_buttons(self) -> None:
        self.previous_button.setEnabled(bool(self._rows))
        self.next_button.setEnabled(bool(self._rows))
        self.dismiss_button.setEnabled(self.current is not None)

    def changeEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Draw the rows anew in another theme."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.PaletteChange, QEvent.Type.StyleChange, QEvent.Type.FontChange):
            for at, row in enumerate(self._rows):
                self._show(self.list.item(at), row)
