"""The panel: what the user sees and presses. It sets and shows; the controller does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_effvit_med.controller import Controller
from napari_effvit_med.foot import FoundTable, PanelFoot
from napari_effvit_med.layers import record_of
from napari_effvit_med.letters import describe_world
from napari_effvit_med.outcomes import Result
from napari_effvit_med.overlay import OrientationLetters
from napari_effvit_med.review_panel import ReviewPanel
from napari_effvit_med.settings import read_settings
from napari_effvit_med.state import DEVICES, ScanRow, shelf_folder
from napari_effvit_med.windows import windows_for

POLL_MS = 20
_MARKS = {"read": "", "findings": "⚠ ", "refused": "✖ "}


class SegmentationPanel(QWidget):  # type: ignore[misc]  # Qt has no types here
    """Study, segment, review and finish, from top to bottom.

    Args:
        napari_viewer: the viewer it belongs to.
        controller: what does the work; by default one of its own.

    Attributes:
        controller: what does the work.
        letters: those on the canvas.
        review: the stages review and finish.
    """

    def __init__(self, napari_viewer: Any, controller: Controller | None = None) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.controller = controller or Controller(napari_viewer, settings=read_settings())
        self.letters = OrientationLetters(napari_viewer)
        self._window: QWidget | None = None
        self._is_closing = False
        self._offered: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
        self._shown_result: Result | None = None
        self._shown_rows: tuple[ScanRow, ...] | None = None
        self.setMinimumWidth(360)
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(2, 2, 2, 2)
        self.review = ReviewPanel(self.controller.desk, self.controller.settings, self._say)
        self.review.next_window_asked.connect(self._next_window)
        self.table = FoundTable()
        self.foot = PanelFoot()
        self.foot.stop_button.clicked.connect(self.controller.stop)
        for box in (self._make_study(), self._make_segment(), self.table, self.review):
            column.addWidget(box)
        column.addStretch()
        self.area = area = QScrollArea()
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(inside)
        whole = QVBoxLayout(self)
        whole.addWidget(area)
        whole.addWidget(self.foot)
        self._show_scale_bar()
        self.viewer.layers.events.inserted.connect(self._update_layers)
        self.viewer.layers.events.removed.connect(self._update_layers)
        self.viewer.layers.events.reordered.connect(self._update_layers)
        self.viewer.cursor.events.position.connect(self._show_place)
        self.controller.on_change = self.controller.desk.on_change = self.update_all
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self.controller.poll)
        self._timer.start()
        self._update_layers()
        self._update_windows()
        self.update_all()

    def _make_study(self) -> QGroupBox:
        box = QGroupBox("1  Study")
        column, buttons = QVBoxLayout(box), QHBoxLayout()
        self.folder_button = QPushButton("Open folder ...")
        self.folder_button.setToolTip("A folder with DICOM files or NIfTI; what it holds is listed below")
        self.folder_button.clicked.connect(self._ask_folder)
        self.file_button = QPushButton("Open file ...")
        self.file_button.clicked.connect(self._ask_file)
        buttons.addWidget(self.folder_button)
        buttons.addWidget(self.file_button)
        self.scans = QListWidget()
        self.scans.setWordWrap(True)
        self.scans.setMaximumHeight(150)
        self.scans.currentRowChanged.connect(self._show_details)
        self.scans.itemActivated.connect(lambda _: self._open_chosen())
        self.details = QLabel()
        self.details.setWordWrap(True)
        self.open_button = QPushButton("Show this scan")
        self.open_button.clicked.connect(self._open_chosen)
        row = QHBoxLayout()
        self.windows = QComboBox()
        self.windows.setToolTip("Which values are black and white in the selected scan")
        self.windows.activated.connect(self._set_window)
        row.addWidget(QLabel("Window"))
        row.addWidget(self.windows, 1)
        column.addLayout(buttons)
        for part in (self.scans, self.details, self.open_button):
            column.addWidget(part)
        column.addLayout(row)
        return box

    def _make_segment(self) -> QGroupBox:
        box = QGroupBox("2  Segment")
        column = QVBoxLayout(box)
        self.layers = QComboBox()
        self.layers.setToolTip("The image layer to segment")
        self.layers.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.layers.currentIndexChanged.connect(self._take_layer)
        self.model_name = QLabel()
        self.model_name.setWordWrap(True)
        self.model_button = QPushButton("Other model ...")
        self.model_button.setToolTip("The folder of another bundle")
        self.model_button.clicked.connect(self._ask_model)
        self.model_summary = QLabel()
        self.model_summary.setWordWrap(True)
        self.device = QComboBox()
        self.device.addItems(DEVICES)
        self.device.setCurrentText(self.controller.device)
        self.device.currentTextChanged.connect(self._set_device)
        self.run_button = QPushButton("Segment")
        self.run_button.clicked.connect(self._segment)
        self.time_button = QPushButton("How long?")
        self.time_button.setToolTip("Times one window of the network on this machine")
        self.time_button.clicked.connect(self._measure_time)
        self.continue_button = QPushButton()
        self.continue_button.clicked.connect(self._continue_review)
        self.labels = QComboBox()
        self.labels.setToolTip("Labels of the scan that are open already, such as those of a DICOM SEG")
        self.labels.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.review_button = QPushButton("Review")
        self.review_button.setToolTip("Review these labels; the review works on a copy")
        self.review_button.clicked.connect(self._review_labels)
        for label, part in (("Scan", self.layers), ("Device", self.device)):
            row = QHBoxLayout()
            row.addWidget(QLabel(label))
            row.addWidget(part, 1)
            column.addLayout(row)
        run, labels = QHBoxLayout(), QHBoxLayout()
        run.addWidget(self.run_button, 1)
        run.addWidget(self.time_button)
        self.labels_label = QLabel("or labels")
        labels.addWidget(self.labels_label)
        labels.addWidget(self.labels, 1)
        labels.addWidget(self.review_button)
        for part in (self.model_name, self.model_summary, self.model_button):
            column.addWidget(part)
        column.addLayout(run)
        column.addLayout(labels)
        column.addWidget(self.continue_button)
        return box

    def update_all(self) -> None:
        """Show what the controller knows."""
        control = self.controller
        running = bool(control.running)
        self.foot.show_runner(control)
        self.model_name.setText(f"Model {control.card.name} {control.card.version}")
        self.model_summary.setText(control.card.summary)
        if control.rows is not self._shown_rows:
            self._show_scans(control.rows)
        if control.result is not self._shown_result and control.result is not None:
            self._shown_result = control.result
            self.table.set_rows(control.result.rows, control.result.segmentation.table)
        self.run_button.setEnabled(not running and self.layers.count() > 0 and control.card.has_weights)
        self.open_button.setEnabled(not running and self._chosen() is not None)
        for button in (self.folder_button, self.file_button, self.model_button, self.continue_button):
            button.setEnabled(not running)
        self.time_button.setEnabled(self.run_button.isEnabled())
        self.time_button.setText(control.expected or "How long?")
        self.review_button.setEnabled(not running and self.labels.count() > 0 and self.layers.count() > 0)
        for part in (self.labels_label, self.labels, self.review_button):
            part.setVisible(self.labels.count() > 0)
        found = control.found_review()
        self.continue_button.setVisible(found is not None)
        if found is not None:
            when = found.changed.astimezone()
            self.continue_button.setText(f"Continue the review of {when:%d %b %Y, %H:%M}")
        self.table.setVisible(control.result is not None and control.desk.opened is None)
        self.review.update_all()
        bar = self.area.verticalScrollBar().sizeHint().width()
        self.area.setMinimumWidth(self.area.widget().minimumSizeHint().width() + bar + 4)

    def _show_scans(self, rows: tuple[ScanRow, ...]) -> None:
        self._shown_rows = rows
        self.scans.clear()
        for row in rows:
            item = QListWidgetItem(_MARKS[row.status] + row.title)
            item.setToolTip(row.details)
            self.scans.addItem(item)
        if rows:
            self.scans.setCurrentRow(0)

    def _chosen(self) -> ScanRow | None:
        number = self.scans.currentRow()
        return self.controller.rows[number] if 0 <= number < len(self.controller.rows) else None

    def _show_details(self, _: int) -> None:
        row = self._chosen()
        self.details.setText(row.details if row else "")
        self.open_button.setEnabled(row is not None and row.can_open and not self.controller.running)

    def _open_chosen(self) -> None:
        row = self._chosen()
        if row is not None:
            self.controller.open_scan(row)

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "A folder with scans")
        if folder:
            self.controller.look(Path(folder))

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "A scan")
        if path:
            self.controller.look(Path(path))

    def _ask_model(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "The folder of a bundle", shelf_folder())
        if folder:
            self.controller.choose_model(Path(folder))

    def _set_device(self, device: str) -> None:
        self.controller.device, self.controller.expected = device, ""
        self.time_button.setText("How long?")

    def _layer(self, offered: tuple[Any, ...] | None = None) -> Any:
        """The image layer that is chosen among those that are listed; None if there is none."""
        layers, number = self._offered[0] if offered is None else offered, self.layers.currentIndex()
        return layers[number] if 0 <= number < len(layers) else None

    def _segment(self) -> None:
        layer = self._layer()
        if layer is not None:
            self.controller.segment(layer)

    def _measure_time(self) -> None:
        layer = self._layer()
        if layer is not None:
            self.controller.measure_time(layer)

    def _review_labels(self) -> None:
        layer, labels, number = self._layer(), self._offered[1], self.labels.currentIndex()
        if layer is not None and 0 <= number < len(labels):
            self.controller.review_labels(labels[number], layer)

    def _continue_review(self) -> None:
        layer, found = self._layer(), self.controller.found_review()
        if layer is not None and found is not None:
            self.controller.continue_review(found, layer)

    def _say(self, message: str, *, error: bool = False) -> None:
        self.controller.say(message, error=error)

    def _next_window(self) -> None:
        if self.windows.count():
            number = (self.windows.currentIndex() + 1) % self.windows.count()
            self.windows.setCurrentIndex(number)
            self._set_window(number)

    def _update_layers(self, _: object = None) -> None:
        """List the layers; names follow when they are changed, and the chosen ones stay chosen."""
        control, before = self.controller, self._offered
        self._offered = (control.image_layers(), control.labels_layers())
        was = self._layer(before[0])
        for box, old, new in zip((self.layers, self.labels), before, self._offered, strict=True):
            chosen = old[box.currentIndex()] if 0 <= box.currentIndex() < len(old) else None
            box.blockSignals(True)
            box.clear()
            for layer in new:
                layer.events.name.disconnect(self._update_layers)
                layer.events.name.connect(self._update_layers)
                box.addItem(layer.name)
            box.setCurrentIndex(next((number for number, each in enumerate(new) if each is chosen), 0 if new else -1))
            box.blockSignals(False)
        if self._layer() is not was:
            self._take_layer()
        self.update_all()

    def _take_layer(self, _: object = None) -> None:
        self._update_windows()
        self.controller.look_for_reviews(self._layer())

    def _update_windows(self, _: object = None) -> None:
        """The presets that fit the chosen layer."""
        layer = self._layer()
        self.windows.clear()
        self.windows.setEnabled(layer is not None)
        for window in windows_for(_modality_of(layer)) if layer is not None else ():
            self.windows.addItem(window.name)

    def _set_window(self, number: int) -> None:
        layer = self._layer()
        if layer is not None:
            window = windows_for(_modality_of(layer))[number]
            layer.contrast_limits = window.limits_of(layer.data)

    def _show_place(self, _: object = None) -> None:
        """Read out where the mouse is in the patient, also where a scan is shown straightened."""
        position = self.viewer.cursor.position
        records = (record_of(layer.metadata) for layer in reversed(self.viewer.layers))
        record = next((each for each in records if each is not None), None)
        if record is None or len(position) != 3:
            self.foot.place.setText("")
        else:
            self.foot.place.setText(describe_world(record.grid.to_world(position).tolist()))

    def _show_scale_bar(self) -> None:
        overlays = getattr(getattr(self.viewer, "canvas", None), "overlays", None)
        bar = self.viewer.scale_bar if overlays is None else overlays.scale_bar
        bar.visible = True

    def showEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Watch the window, so that closing it while a task runs asks first."""
        super().showEvent(event)
        if self._window is not self.window():
            self._window = self.window()
            self._window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802  Qt's name
        """Ask before the user closes the window on a running task."""
        if watched is not self._window:
            return False
        if event.type() == QEvent.Type.Close:
            if self.controller.unfinished:
                if event.spontaneous() and not self._may_stop():
                    event.ignore()
                    return True
                self.controller.stop()
            self._is_closing = True  # napari may still ask; it hides the window when that is answered with yes
        elif event.type() == QEvent.Type.Hide and self._is_closing and not event.spontaneous():
            self.close()
        return False

    def _may_stop(self) -> bool:
        what = "Wait for it" if self.controller.desk.saving else "Stop it"
        text = f"{self.controller.unfinished} is not finished. {what} and close?"
        return bool(QMessageBox.question(self, "effvit-med", text) == QMessageBox.StandardButton.Yes)

    def changeEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Close when the dock is closed: napari takes the panel out of it and sends no event of closing."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.close()

    def closeEvent(self, event: Any) -> None:  # noqa: N802  Qt's name
        """Let go of the viewer: no event, overlay or thread of ours stays."""
        self._timer.stop()
        self.review.release()
        self.controller.close()
        self.letters.remove()
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None
        self.viewer.layers.events.inserted.disconnect(self._update_layers)
        self.viewer.layers.events.removed.disconnect(self._update_layers)
        self.viewer.layers.events.reordered.disconnect(self._update_layers)
        self.viewer.cursor.events.position.disconnect(self._show_place)
        for layer in self.viewer.layers:
            layer.events.name.disconnect(self._update_layers)
        super().closeEvent(event)


def _modality_of(layer: Any) -> str:
    record = record_of(layer.metadata)
    return record.volume.modality if record is not None and record.volume is not None else ""
