"""The table of measurements; what is selected, or all of it, can be copied into a spreadsheet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QGuiApplication, QKeySequence
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem, QWidget

from napari_effvit_med.rows import NO_VALUE, MeasurementRow, describe_ml, describe_share, measurements_to_tsv

NAME, VOLUME, VOXELS, MEAN, EDITED, REMARK = range(6)
_TITLES = ("Structure", "mL", "Voxels", "Mean", "Edited", "Remark")
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class MeasurementsView(QTableWidget):  # type: ignore[misc]  # Qt has no types here
    """A row per structure; Ctrl+C copies the selected rows, or all where none is, with titles and tabs.

    Args:
        parent: the widget it is a part of.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(_TITLES), parent)
        self._rows: tuple[MeasurementRow, ...] = ()
        self.setAccessibleName("Measurements")
        self.setToolTip("Ctrl+C copies the selected rows, or all, for a spreadsheet")
        self.setHorizontalHeaderLabels(_TITLES)
        self.verticalHeader().hide()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        header = self.horizontalHeader()
        header.setMinimumSectionSize(20)
        header.setHighlightSections(False)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)

    def set_rows(self, rows: Sequence[MeasurementRow]) -> None:
        """Show rows.

        Args:
            rows: from top to bottom.
        """
        self._rows = tuple(rows)
        units = {row.unit for row in rows if row.unit}
        unit = f" {units.pop()}" if len(units) == 1 else ""
        self.horizontalHeaderItem(MEAN).setText(f"Mean{unit}")
        self.setRowCount(len(self._rows))
        for number, row in enumerate(self._rows):
            cells = (
                row.structure,
                describe_ml(row.volume_ml),
                NO_VALUE if row.voxels is None else str(row.voxels),
                NO_VALUE if row.mean is None else f"{row.mean:.1f}",
                describe_share(row.edited_fraction),
                row.remark,
            )
            for column, text in enumerate(cells):
                item = QTableWidgetItem(text)
                item.setToolTip(row.remark or text)
                if column not in (NAME, REMARK):
                    item.setTextAlignment(_RIGHT)
                self.setItem(number, column, item)

    def copy_rows(self) -> None:
        """Put the selected rows, or all where none is selected, on the clipboard."""
        chosen = sorted(index.row() for index in self.selectionModel().selectedRows())
        rows = [self._rows[number] for number in chosen] or self._rows
        QGuiApplication.clipboard().setText(measurements_to_tsv(rows))

    def event(self, event: Any) -> bool:
        """Take Ctrl+C before a menu of the window does."""
        if event.type() == QEvent.Type.ShortcutOverride and event.matches(QKeySequence.StandardKey.Copy):
            event.accept()
            return True
        return bool(super().event(event))

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Copy on Ctrl+C; the rest is Qt's."""
        if event.matches(QKeySequence.StandardKey.Copy):
            self.copy_rows()
            event.accept()
        else:
            super().keyPressEvent(event)
