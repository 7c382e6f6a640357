"""The stages review and finish of the panel: what is under review, what is in doubt, and how it is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_effvit_med.desk import ReviewDesk
from napari_effvit_med.doubt_strip import DoubtStrip
from napari_effvit_med.doubts_view import DoubtsView
from napari_effvit_med.keys import MOUSE_SHORTCUTS, SHORTCUTS, KeyBindings
from napari_effvit_med.measurements_view import MeasurementsView
from napari_effvit_med.opening import OpenedReview
from napari_effvit_med.pointing import TOOLS, PromptPointer
from napari_effvit_med.settings import PluginSettings
from napari_effvit_med.structures_view import StructuresView

_SLICES = 10
_TOOL_WORDS = {"click": "click or scribble", "box": "box", "lasso": "outline"}


class ReviewPanel(QWidget):  # type: ignore[misc]  # Qt has no types here
    """Structures, doubts and tools of a review, and below how it is saved.

    Args:
        desk: the review.
        settings: what the user prefers.
        say: called with a message for the user.

    Attributes:
        structures: the table of structures.
        doubts: the places in doubt.
        strip: expected wrong volume per slice.
        measurements: the table of measurements.
        pointer: what the mouse draws.
        next_window_asked: the key for the next window was pressed.
    """

    next_window_asked = Signal()

    def __init__(self, desk: ReviewDesk, settings: PluginSettings, say: Callable[..., None]) -> None:
        super().__init__()
        self._desk, self._settings, self._say = desk, settings, say
        self._shown_doubts: object = None
        self._measured: object = None
        self._allowed_for: OpenedReview | None = None
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        self.review_box, self.finish_box = self._make_review(), self._make_finish()
        column.addWidget(self.review_box)
        column.addWidget(self.finish_box)
        self.pointer = PromptPointer(desk.viewer, desk, say)
        self._keys = KeyBindings(desk.viewer)
        self._bind()
        desk.viewer.dims.events.current_step.connect(self._follow_slice)
        desk.viewer.dims.events.order.connect(self._follow_order)
        self.update_all()

    def _make_review(self) -> QGroupBox:
        box = QGroupBox("3  Review")
        column = QVBoxLayout(box)
        self.structures = StructuresView()
        self.doubts = DoubtsView()
        self.strip = DoubtStrip()
        self.tool = QComboBox()
        for tool in TOOLS:
            self.tool.addItem(_TOOL_WORDS[tool], tool)
        self.tool.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.tool.setMinimumContentsLength(8)
        self.tool.setToolTip("What Shift (adds) or Ctrl (removes) draws while the mouse is dragged")
        self.tool.currentIndexChanged.connect(self._set_tool)
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self.undo_button.clicked.connect(self._desk.undo)
        self.redo_button.clicked.connect(self._desk.redo)
        self.help_button = QPushButton("Keys")
        self.help_button.setCheckable(True)
        row = QHBoxLayout()
        row.addWidget(QLabel("Tool"))
        row.addWidget(self.tool, 1)
        for button in (self.undo_button, self.redo_button, self.help_button):
            row.addWidget(button)
        self.help = QLabel(shortcuts_text())
        self.help.setWordWrap(True)
        self.help.hide()
        self.help_button.toggled.connect(self.help.setVisible)
        column.addWidget(self.structures)
        column.addLayout(self._make_hints())
        column.addLayout(row)
        self.doubt_check = QCheckBox("Show doubt on the scan")
        self.doubt_check.setToolTip("Where the network was unsure, as a glow over the picture")
        self.doubt_check.toggled.connect(self._desk.show_doubt)
        for part in (self.help, self.doubt_check, QLabel("Likely wrong, per slice"), self.strip, self.doubts):
            column.addWidget(part)
        desk = self._desk
        self.structures.chosen.connect(desk.choose)
        self.structures.accepted.connect(desk.accept)
        self.structures.rejected.connect(lambda value: desk.set_state(value, "rejected"))
        self.structures.reopened.connect(desk.reopen)
        self.structures.reset.connect(desk.reset)
        self.structures.lock_changed.connect(desk.set_locked)
        self.structures.solo_changed.connect(desk.show_only)
        self.doubts.jumped.connect(desk.jump)
        self.doubts.stepped.connect(desk.step_doubt)
        self.doubts.dismissed.connect(desk.dismiss)
        self.strip.slice_chosen.connect(desk.go_to_slice)
        return box

    def _make_hints(self) -> QHBoxLayout:
        hint = QLabel("Shift+click: belongs to it. Ctrl+click: does not.")
        hint.setWordWrap(True)
        self.carry_button = QPushButton("Carry")
        self.carry_button.setToolTip("From this slice through those beside it, as far as the structure goes (C)")
        self.carry_button.clicked.connect(self._desk.carry)
        hints = QHBoxLayout()
        hints.addWidget(hint, 1)
        hints.addWidget(self.carry_button)
        return hints

    def _make_finish(self) -> QGroupBox:
        box = QGroupBox("4  Finish")
        column, row, buttons = QVBoxLayout(box), QHBoxLayout(), QHBoxLayout()
        self.measurements = MeasurementsView()
        self.measure_button = QPushButton("Measure")
        self.measure_button.setToolTip("Volume and mean value of every structure as it is now")
        self.measure_button.clicked.connect(self._desk.measure)
        self.seg_check, self.nifti_check = QCheckBox("DICOM SEG"), QCheckBox("NIfTI")
        self.seg_check.setChecked(self._settings.save_dicom_seg)
        self.nifti_check.setChecked(self._settings.save_nifti)
        self.save_button, self.save_as_button = QPushButton("Save"), QPushButton("Save to ...")
        self.save_button.setToolTip("Beside the journal of the review; measurements and the record are saved, too")
        self.save_button.clicked.connect(self._save_here)
        self.save_as_button.clicked.connect(self._save_there)
        for part in (self.seg_check, self.nifti_check):
            row.addWidget(part)
        row.addStretch()
        for part in (self.measure_button, self.save_button, self.save_as_button):
            buttons.addWidget(part)
        self.folder = QLabel()
        self.folder.setWordWrap(True)
        column.addWidget(self.measurements)
        column.addLayout(row)
        column.addLayout(buttons)
        column.addWidget(self.folder)
        return box

    def update_all(self) -> None:
        """Show what the desk knows."""
        desk = self._desk
        opened = desk.opened
        self.review_box.setVisible(opened is not None)
        self.finish_box.setVisible(opened is not None)
        if opened is None:
            self.doubt_check.setChecked(False)
            return
        self.doubt_check.setEnabled(opened.session.confidence is not None)
        if opened is not self._allowed_for:
            self._allow_types(opened)
        self.structures.set_rows(desk.structure_rows())
        if self.structures.selected != desk.current:
            self.structures.select(desk.current)
        self.doubts.set_rows(desk.doubt_rows())
        self.doubts.set_current(desk.doubt)
        if opened.session.confidence is None:
            self.doubts.set_note("There is no confidence map: only what rules say is listed.")
        strip = desk.strip()
        self.strip.setVisible(len(strip) > 0)
        self.strip.set_values(strip.tolist(), desk.slice_number())
        self.undo_button.setEnabled(opened.session.can_undo)
        self.redo_button.setEnabled(opened.session.can_redo)
        for button in (self.save_button, self.save_as_button):
            button.setEnabled(not desk.saving)
        self.carry_button.setText("Stop" if desk.carrying else "Carry")
        self.carry_button.setVisible(desk.can_carry)
        if desk.measured is not self._measured:
            self._measured = desk.measured
            self.measurements.set_rows(desk.measured)
        self.measurements.setVisible(bool(desk.measured))
        self.folder.setText(f"{desk.saved}, in {opened.session.folder}")

    def _allow_types(self, opened: OpenedReview) -> None:
        """Offer only what the scan can be saved as, else nothing at all would be saved."""
        from effvit_med.io import why_no_dicom_seg

        self._allowed_for = opened
        reason = why_no_dicom_seg(opened.volume)
        self.seg_check.setEnabled(reason is None)
        self.seg_check.setToolTip(reason.message if reason else "")
        regular = opened.volume.geometry.is_regular
        self.nifti_check.setEnabled(regular)
        self.nifti_check.setToolTip("" if regular else "NIfTI cannot hold slices at unequal distances.")

    def release(self) -> None:
        """Give keys, mouse and events of the viewer back."""
        self._keys.release()
        self.pointer.remove()
        self._desk.viewer.dims.events.current_step.disconnect(self._follow_slice)
        self._desk.viewer.dims.events.order.disconnect(self._follow_order)

    def output_types(self) -> list[str]:
        """What is saved: what is wanted and the scan allows."""
        checks = {"dicom-seg": self.seg_check, "nifti": self.nifti_check}
        return [kind for kind, check in checks.items() if check.isChecked() and check.isEnabled()]

    def _save_here(self) -> None:
        if self._desk.opened is not None:
            self._desk.save(self._desk.opened.session.folder, self.output_types())

    def _save_there(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Where to save")
        if folder:
            self._desk.save(Path(folder), self.output_types())

    def _set_tool(self, _: int) -> None:
        self.pointer.tool = self.tool.currentData()

    def _follow_slice(self, _: object = None) -> None:
        if self._desk.opened is not None:
            self.strip.set_current(self._desk.slice_number())

    def _follow_order(self, _: object = None) -> None:
        if self._desk.opened is not None:
            self.update_all()

    def _bind(self) -> None:
        desk = self._desk
        actions: dict[str, Callable[[], None]] = {
            "next_doubt": lambda: desk.step_doubt(1),
            "previous_doubt": lambda: desk.step_doubt(-1),
            "next_structure": lambda: desk.choose_next(1),
            "previous_structure": lambda: desk.choose_next(-1),
            "accept": lambda: self._with_current(desk.accept),
            "reopen": lambda: self._with_current(desk.reopen),
            "focus": lambda: self._with_current(desk.choose),
            "carry": desk.carry,
            "dismiss": lambda: None if desk.doubt is None else desk.dismiss(desk.doubt),
            "outline": self._toggle_outline,
            "window": self.next_window_asked.emit,
            "forward": lambda: desk.go_to_slice(desk.slice_number() + _SLICES),
            "back": lambda: desk.go_to_slice(desk.slice_number() - _SLICES),
        }
        self._keys.bind(actions, {"hide": self._hide})

    def _with_current(self, act: Callable[[int], Any]) -> None:
        if self._desk.current is not None:
            act(self._desk.current)

    def _toggle_outline(self) -> None:
        layer = self._desk.layer
        if layer is not None:
            layer.contour = 0 if layer.contour else 1

    def _hide(self, hidden: bool) -> None:
        if self._desk.layer is not None:
            self._desk.layer.visible = not hidden


def shortcuts_text() -> str:
    """The table of keys as rich text for a label."""
    rows = [*MOUSE_SHORTCUTS, *((key, meaning) for key, _, meaning in SHORTCUTS)]
    cells = "".join(f"<tr><td><b>{key}</b>&nbsp;&nbsp;</td><td>{meaning}</td></tr>" for key, meaning in rows)
    return f"<table>{cells}</table>"
