"""The foot of the panel, and the plain table of what a run found."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from effvit_med import NOT_FOR_CLINICAL_USE
from effvit_med.volume import LabelTable
from effvit_med.volume.measurements import Measurement
from napari_effvit_med.running import TaskRunner


class PanelFoot(QWidget):  # type: ignore[misc]  # Qt has no types here
    """Where the mouse is, how far the work is, what there is to say; always in sight.

    Attributes:
        place: the place of the mouse in the patient.
        progress: of the running task.
        stop_button: stops it.
        message: what there is to say.
    """

    def __init__(self) -> None:
        super().__init__()
        column, row = QVBoxLayout(self), QHBoxLayout()
        column.setContentsMargins(0, 0, 0, 0)
        self.progress = QProgressBar()
        self.stop_button = QPushButton("Cancel")
        row.addWidget(self.progress, 1)
        row.addWidget(self.stop_button)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        notice = QLabel(NOT_FOR_CLINICAL_USE)
        for label in (self.message, notice):
            label.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self.place = QLabel()
        self.place.setToolTip("The place of the mouse in the patient")
        column.addWidget(self.place)
        column.addLayout(row)
        column.addWidget(self.message)
        column.addWidget(notice)

    def show_runner(self, runner: TaskRunner) -> None:
        """Show how far the work is and what was said.

        Args:
            runner: of the tasks.
        """
        running = bool(runner.running)
        self.progress.setVisible(running)
        self.stop_button.setVisible(running)
        self.progress.setRange(0, 0 if runner.fraction is None else 1000)
        self.progress.setValue(round(1000 * (runner.fraction or 0)))
        self.message.setText(runner.message)
        self.message.setStyleSheet("font-weight: bold" if runner.is_error else "")


class FoundTable(QTableWidget):  # type: ignore[misc]  # Qt has no types here
    """What a run found, where no review was begun: structures and their volumes."""

    def __init__(self) -> None:
        super().__init__(0, 2)
        self.setHorizontalHeaderLabels(["structure", "mL"])
        self.verticalHeader().hide()
        self.horizontalHeader().setStretchLastSection(True)
        self.setEditTriggers(QTableWidget.EditTrigger.NoEditTriggers)
        self.setMinimumHeight(180)

    def set_rows(self, rows: Sequence[Measurement], table: LabelTable) -> None:
        """Show what was measured.

        Args:
            rows: one for each structure.
            table: of the labels.
        """
        self.setRowCount(len(rows))
        colours = {label.value: label.colour for label in table}
        for number, row in enumerate(rows):
            picture = QPixmap(12, 12)
            picture.fill(QColor(*colours[row.value]))
            self.setItem(number, 0, QTableWidgetItem(QIcon(picture), row.structure))
            volume = "not found" if row.volume_ml is None else f"{row.volume_ml:.1f}"
            item = QTableWidgetItem(volume + (" (cut)" if row.cut_by_field_of_view else ""))
            item.setToolTip("It reaches the border of the scan" if row.cut_by_field_of_view else row.reason)
            self.setItem(number, 1, item)
        self.resizeColumnToContents(0)
