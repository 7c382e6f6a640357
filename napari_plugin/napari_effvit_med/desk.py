"""A review in napari: what is shown, chosen, corrected, undone and saved. Knows napari's viewer model, but no Qt."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_effvit_med.layers import record_of
from napari_effvit_med.looking import find_middle, look_at
from napari_effvit_med.marks import PromptMarks
from napari_effvit_med.opening import DONE_STATES, DoubtSurvey, OpenedReview, SettledPlaces, survey_doubts
from napari_effvit_med.rows import DoubtRow, MeasurementRow, StructureRow, rows_of_measurements
from napari_effvit_med.tasks import Failed, Finished, Worker

if TYPE_CHECKING:
    from effvit_med.review import Doubt, Refiner
    from effvit_med.volume.prompts import Prompt

Say = Callable[..., None]
Answer = Finished | Failed

_KINDS = {"paint": "brush", "erase": "eraser", "fill": "fill", "polygon": "polygon"}


class ReviewDesk:
    """One review at a time; every method is called from the thread of the window.

    What changes the review runs in one worker, in the order it was asked for, so that no correction is lost and none
    is made on labels that are not there any more. What takes long (places in doubt, saving) runs in another.

    Args:
        viewer: napari's viewer, or its model.
        say: called with a message for the user, and ``error=True`` where it is bad news.
        refiner: what a prompt is answered with; None for the one that looks at the image alone.
        inline: work where it is asked for, for scripts and tests.

    Attributes:
        opened: the review; None if there is none.
        layer: its labels.
        current: the structure that is chosen.
        doubts: places to look at.
        doubt: number of the place that is looked at; None before the first.
        measured: the table of measurements, as it was last made.
        extent_mm: how much of the scan about a click is looked at.
        saving: whether files are being written.
        waited_s: from the last prompt to the changed picture, and how long its answer took to compute.
        on_change: called after anything changed.
    """

    def __init__(self, viewer: Any, say: Say, refiner: Refiner | None = None, *, inline: bool = False) -> None:
        self.viewer = viewer
        self.opened: OpenedReview | None = None
        self.layer: Any = None
        self.current: int | None = None
        self.doubts: tuple[Doubt, ...] = ()
        self.doubt: int | None = None
        self.measured: tuple[MeasurementRow, ...] = ()
        self.extent_mm = 60.0
        self.saving = False
        self.waited_s: tuple[float, float] = (0.0, 0.0)
        self.on_change: Callable[[], None] = lambda: None
        self._say, self._refiner, self._inline = say, refiner, inline
        self._quick: Worker | None = None
        self._slow: Worker | None = None
        self._marks = PromptMarks(viewer)
        self._seen: set[tuple[int, int, int]] = set()
        self._strips: tuple[npt.NDArray[np.float64], ...] = ()
        self._survey_due = self._surveying = self._settle_anew = False
        self._painted_with: tuple[str, int] | None = None
        self._saved = ""

    # the review as a whole

    def open(self, opened: OpenedReview) -> None:
        """Show a review; one that is open is closed.

        Args:
            opened: as `napari_effvit_med.opening` makes it.
        """
        self.close()
        self.opened = opened
        self._quick, self._slow = Worker("Correcting", inline=self._inline), Worker("Saving", inline=self._inline)
        data, arguments, _ = opened.layer
        self.layer = self.viewer.add_labels(data, **arguments)
        self.layer.bind_key("Control-Z", lambda _: self.undo(), overwrite=True)  # napari's own forgets, and tells nobody
        self.layer.bind_key("Control-Shift-Z", lambda _: self.redo(), overwrite=True)
        self.layer.events.paint.connect(self._painted)
        self.layer.events.selected_label.connect(self._follow_label)
        self.viewer.layers.events.removed.connect(self._removed)
        self._take_survey(opened.survey)
        present = [row.value for row in self.structure_rows() if row.volume_ml]
        self.current = present[0] if present else opened.session.table.values[0]
        self.layer.selected_label = self.current
        self._note_saved()
        self.on_change()

    def close(self, timeout_s: float = 30.0) -> None:
        """Finish what is under way, let go of the review and of the viewer; the labels stay as a layer.

        Args:
            timeout_s: wait so long at most for corrections that are under way.
        """
        if self.opened is None:
            return
        self._adopt()
        opened, self.opened = self.opened, None
        for worker in (self._quick, self._slow):
            if worker is not None:
                worker.close(timeout_s)
        opened.session.close()
        self._marks.remove()
        self.viewer.layers.events.removed.disconnect(self._removed)
        if self.layer is not None:
            self.layer.events.paint.disconnect(self._painted)
            self.layer.events.selected_label.disconnect(self._follow_label)
            for key in ("Control-Z", "Control-Shift-Z"):
                self.layer.bind_key(key, None, overwrite=True)
        self.layer, self.current, self.doubts, self.doubt = None, None, (), None
        self.measured, self._strips, self._saved = (), (), ""
        self._seen.clear()
        self.saving = self._surveying = self._survey_due = self._settle_anew = False
        self.on_change()

    def shows(self, layer: Any) -> bool:
        """Whether a layer is the one under review."""
        record = record_of(layer.metadata)
        made = record.segmentation if record is not None else None
        return self.opened is not None and made is not None and made.labels is self.opened.session.labels

    def poll(self) -> None:
        """Take in what the workers did; the window calls this many times a second."""
        self._adopt()
        for worker in (self._quick, self._slow):
            if worker is not None:
                worker.poll()
        self._survey()

    @property
    def busy(self) -> bool:
        """Whether a correction or a saving is under way."""
        return bool(self._quick and self._quick.unfinished) or self.saving or self._painted_with is not None

    @property
    def settling(self) -> bool:
        """Whether anything at all is under way, or due."""
        return self.busy or self._surveying or self._survey_due or bool(self._slow and self._slow.unfinished)

    @property
    def saved(self) -> str:
        """When the last correction reached the disk, as the user reads it."""
        return self._saved

    # what is shown

    def structure_rows(self) -> tuple[StructureRow, ...]:
        """The table of structures."""
        if self.opened is None:
            return ()
        session = self.opened.session
        volumes, states, locked = session.volumes_ml(), session.states, session.locked
        doubt_ml: dict[int, float] = {}
        for doubt in self.doubts:
            doubt_ml[doubt.value] = doubt_ml.get(doubt.value, 0.0) + doubt.expected_wrong_ml
        return tuple(
            StructureRow(
                label.value,
                label.name,
                label.colour,
                volumes[label.value] or None,
                doubt_ml.get(label.value, 0.0),
                states[label.value],
                label.value in locked,
                session.edited_fraction(label.value),
            )
            for label in session.table
        )

    def doubt_rows(self) -> tuple[DoubtRow, ...]:
        """The places in doubt, as they are listed."""
        if self.opened is None:
            return ()
        table, grid, axis = self.opened.session.table, self.opened.grid, self._slider_axis()
        names = {label.value: (label.name, label.colour) for label in table}
        rows = []
        for number, doubt in enumerate(self.doubts):
            name, colour = names.get(doubt.value, ("background", (128, 128, 128)))
            slice_number = round(float(grid.from_index(doubt.index)[axis]))
            seen = doubt.index in self._seen
            row = DoubtRow(
                number, doubt.value, name, colour, doubt.expected_wrong_ml, doubt.message, slice_number, seen
            )
            rows.append(row)
        return tuple(rows)

    def strip(self) -> npt.NDArray[np.float64]:
        """The expected wrong volume in mL of each slice of the slider, in its order; empty if it is not known."""
        if self.opened is None or not self._strips:
            return np.zeros(0)
        grid, axis = self.opened.grid, self._slider_axis()
        values = self._strips[grid.axes[axis]]
        return values[::-1] if grid.flips[axis] else values

    def slice_number(self) -> int:
        """The slice that is looked at, as `strip` counts."""
        if self.layer is None:
            return 0
        return round(float(self.layer.world_to_data(self.viewer.dims.point)[self._slider_axis()]))

    def go_to_slice(self, number: int) -> None:
        """Look at a slice of the strip."""
        if self.layer is None:
            return
        axis = self._slider_axis()
        index = np.array(self.layer.world_to_data(self.viewer.dims.point), dtype=float)
        index[axis] = number
        self.viewer.dims.set_point(axis, self.layer.data_to_world(index)[axis])

    # choosing

    def choose(self, value: int, *, jump: bool = True) -> None:
        """Take a structure to look at and to correct.

        Args:
            value: its label value.
            jump: go to its most doubtful place, or to its largest slice.
        """
        if self.opened is None or self.layer is None or self._quick is None:
            return
        session = self.opened.session
        self.current = value
        if self.layer.selected_label != value:
            self.layer.selected_label = value
        if session.states[value] == "unseen":
            self._put(lambda: session.set_state(value, "looked"), self._took)
        if jump:
            number = next((n for n, doubt in enumerate(self.doubts) if doubt.value == value), None)
            if number is not None:
                self.jump(number)
            else:
                axis = self.opened.grid.axes[self._slider_axis()]
                self._quick.put(lambda: find_middle(session.labels, axis, value), self._show_middle)
        self._mark()
        self.on_change()

    def choose_next(self, step: int) -> None:
        """Choose the next structure of the table, or the one before; after the last comes the first."""
        values = [row.value for row in self.structure_rows()]
        if values:
            at = values.index(self.current) if self.current in values else 0
            self.choose(values[(at + step) % len(values)])

    def show_only(self, only: bool) -> None:
        """Show the chosen structure alone, or all."""
        if self.layer is not None:
            self.layer.show_selected_label = only

    def jump(self, number: int) -> None:
        """Look at a place in doubt.

        Args:
            number: as of `doubt_rows`.
        """
        if self.opened is None or self.layer is None or not 0 <= number < len(self.doubts):
            return
        doubt, self.doubt = self.doubts[number], number
        self._seen.add(doubt.index)
        grid = self.opened.grid
        corners = grid.from_index([[a for a, _ in doubt.box], [b - 1 for _, b in doubt.box]])
        look_at(self.viewer, self.layer, grid.from_index(doubt.index), corners)
        if doubt.value and doubt.value != self.current:
            self.choose(doubt.value, jump=False)
        self.on_change()

    def step_doubt(self, step: int) -> None:
        """Look at the next place in doubt, or at the one before; after the last comes the first."""
        if self.doubts:
            start = (-1 if step > 0 else 0) if self.doubt is None else self.doubt
            self.jump((start + step) % len(self.doubts))
        elif self.opened is not None:
            self._say("No place is in doubt any more.")

    # correcting

    def prompt(self, prompt: Prompt, duration_s: float | None = None) -> None:
        """Correct the chosen structure by what was pointed at.

        Args:
            prompt: in indices of the scan's own grid.
            duration_s: how long drawing it took.
        """
        if self.opened is None or self._quick is None:
            return
        opened, refiner, extent_mm = self.opened, self._refiner, self.extent_mm
        asked = time.perf_counter()

        def work() -> Any:
            from effvit_med.review.answering import answer_prompt

            began = time.perf_counter()
            change = answer_prompt(opened.session, opened.volume, prompt, refiner, extent_mm, duration_s)
            opened.settled.note(change)
            return change, time.perf_counter() - began

        def show(answer: Answer) -> None:
            if self._took(answer) and isinstance(answer, Finished):
                change, computed_s = answer.value
                self.waited_s = (time.perf_counter() - asked, computed_s)
                if not len(change):
                    word = "belongs to it already" if prompt.adds else "does not belong to it"
                    self._say(f"Nothing changed: what you pointed at {word}, or is locked.")

        self._put(work, show)
        self._marks.add(prompt, opened.grid, self.layer)
        self.on_change()

    def _painted(self, _: object = None) -> None:
        """Napari's own tools wrote, or are about to: its event may come before the voxels."""
        if self._painted_with is None:
            self._painted_with = (_KINDS.get(str(self.layer.mode), "script"), int(self.layer.selected_label))

    def _adopt(self) -> None:
        """Take over what napari's own tools wrote."""
        if self._painted_with is None or self.opened is None or self._quick is None:
            return
        (kind, value), self._painted_with = self._painted_with, None
        opened, layer = self.opened, self.layer
        session = opened.session
        foreign = None if np.may_share_memory(layer.data, session.labels) else layer.data
        if foreign is not None and foreign.shape != opened.grid.shape:
            self._say("The labels were replaced by others of another shape; they are not part of the review.", error=True)
            return

        def work() -> Any:
            if foreign is not None:  # somebody gave the layer another array
                opened.grid.view(session.labels)[...] = foreign
            known = value if value in session.states else 0
            change = session.adopt(None, kind=kind, value=known)
            opened.settled.note(change)
            return change

        def show(answer: Answer) -> None:
            if foreign is not None:
                layer.data = opened.grid.view(session.labels)
            self._took(answer)
            layer.refresh(extent=False, highlight=False, thumbnail=False)  # what was locked, or not known, is back

        self._quick.put(work, show)

    def undo(self) -> None:
        """Take back the last step, of whatever structure."""
        self._move("undo", "There is nothing to undo.")

    def redo(self) -> None:
        """Make the last step that was undone again."""
        self._move("redo", "There is nothing to redo.")

    def _move(self, way: str, nothing: str) -> None:
        if self.opened is None or self._quick is None:
            return
        session = self.opened.session

        def show(answer: Answer) -> None:
            self._settle_anew = True
            if self._took(answer) and isinstance(answer, Finished):
                if answer.value is None:
                    self._say(nothing)
                self._mark()

        self._put(session.undo if way == "undo" else session.redo, show)

    def reset(self, value: int) -> None:
        """Bring a structure back to the automatic result."""
        if self.opened is not None and self._quick is not None:
            session = self.opened.session
            self._settle_anew = True
            self._put(lambda: session.reset(value), self._took)

    def set_state(self, value: int, state: str) -> None:
        """Say what is thought of a structure, see `effvit_med.review.STATES`."""
        if self.opened is not None and self._quick is not None:
            session = self.opened.session
            self._put(lambda: session.set_state(value, state), self._took)

    def accept(self, value: int) -> None:
        """Accept a structure, which locks it, and go on to the next one that is not done."""
        self.set_state(value, "accepted")
        rows = [row.value for row in self.structure_rows() if row.value == value or row.state not in DONE_STATES]
        if len(rows) > 1:
            self.choose(rows[(rows.index(value) + 1) % len(rows)])

    def reopen(self, value: int) -> None:
        """Take back that a structure was accepted or rejected."""
        if self.opened is not None:
            self.set_state(value, "edited" if value in self.opened.session.edited else "looked")

    def set_locked(self, value: int, locked: bool) -> None:
        """Keep a structure from being edited, or let it be edited."""
        if self.opened is not None and self._quick is not None:
            session = self.opened.session
            self._put(lambda: session.set_locked(value, locked), self._took)

    def dismiss(self, number: int) -> None:
        """Say that a place in doubt is right as it is; it can be undone."""
        if self.opened is None or self._quick is None or not 0 <= number < len(self.doubts):
            return
        opened, doubt = self.opened, self.doubts[number]

        def work() -> None:
            opened.session.agree(doubt.value, doubt.box)
            opened.settled.agree(doubt.box)

        self._put(work, self._took)
        self.doubts = (*self.doubts[:number], *self.doubts[number + 1 :])
        self.doubt = None
        if self.doubts:
            self.jump(min(number, len(self.doubts) - 1))
        self.on_change()

    # finishing

    def measure(self) -> None:
        """Measure every structure as it is now."""
        if self.opened is None or self._slow is None:
            return
        opened = self.opened

        def work() -> tuple[MeasurementRow, ...]:
            from effvit_med.volume.measurements import measure

            _, made = opened.session.snapshot()
            edited = {label.value: opened.session.edited_fraction(label.value) for label in made.table}
            return rows_of_measurements(measure(opened.volume, made), edited)

        def show(answer: Answer) -> None:
            if self._heard(answer) and isinstance(answer, Finished):
                self.measured = answer.value
                self.on_change()

        self._slow.put(work, show)

    def save(self, output: Path, types: Sequence[str]) -> None:
        """Save labels, measurements and the record of the review.

        Args:
            output: the folder.
            types: ``dicom-seg`` and ``nifti``.
        """
        if self.opened is None or self._slow is None or self._quick is None:
            return
        if self.saving:
            self._say("Files are being written already.", error=True)
            return
        opened, slow = self.opened, self._slow
        self.saving = True
        self._say(f"Saving into {output} ...")

        def work() -> Any:
            from effvit_med.review import save_review

            return save_review(opened.session, opened.volume, output, types, predecessor=opened.predecessor)  # type: ignore[arg-type]

        def show(answer: Answer) -> None:
            self.saving = False
            if self._heard(answer) and isinstance(answer, Finished):
                lines = [f"Saved {', '.join(path.name for path in answer.value.files.values())} in {output}."]
                self._say("\n".join([*lines, *dict.fromkeys(each.message for each in answer.value.findings)]))

        def begin(_: Answer) -> None:
            slow.put(work, show)

        self._put(lambda: None, begin)  # what was corrected before is part of it
        self.on_change()

    # within

    def _put(self, work: Callable[[], Any], then: Callable[[Answer], Any]) -> None:
        """Do something after what was painted before."""
        self._adopt()
        if self._quick is not None:
            self._quick.put(work, then)

    def _took(self, answer: Answer) -> bool:
        """Show what a step of the review changed; whether it went well."""
        if not self._heard(answer) or self.layer is None:
            return False
        self.layer.refresh(extent=False, highlight=False, thumbnail=False)
        self._note_saved()
        self._survey_due = True
        self.measured = ()
        self.on_change()
        return True

    def _heard(self, answer: Answer) -> bool:
        if isinstance(answer, Failed):
            self._say(answer.message, error=True)
            self._mark()
            self.on_change()
            return False
        return self.opened is not None

    def _survey(self) -> None:
        """Look for doubts again when corrections have come to rest."""
        if not self._survey_due or self._surveying or self.opened is None or self._slow is None or self._quick is None:
            return
        if self._quick.unfinished or self._slow.unfinished:
            return
        self._survey_due, self._surveying = False, True
        opened, anew = self.opened, self._settle_anew
        self._settle_anew = False

        def work() -> tuple[SettledPlaces, DoubtSurvey]:
            settled = SettledPlaces(opened.session) if anew else opened.settled
            return settled, survey_doubts(opened.session, settled, opened.reasons)

        def show(answer: Answer) -> None:
            self._surveying = False
            if self._survey_due:  # corrected meanwhile: this answer is stale
                self._settle_anew = self._settle_anew or anew
            elif self._heard(answer) and isinstance(answer, Finished):
                settled, survey = answer.value
                opened.settled.take(settled)
                self._take_survey(survey)
                self.on_change()

        self._slow.put(work, show)

    def _take_survey(self, survey: DoubtSurvey) -> None:
        looked = self.doubts[self.doubt].index if self.doubt is not None and self.doubt < len(self.doubts) else None
        self.doubts, self._strips = survey.doubts, survey.strips
        numbers = [number for number, doubt in enumerate(self.doubts) if doubt.index == looked]
        self.doubt = numbers[0] if numbers else None

    def _show_middle(self, answer: Answer) -> None:
        if isinstance(answer, Finished) and answer.value is not None and self.opened is not None:
            index, corners = (self.opened.grid.from_index(each) for each in answer.value)
            look_at(self.viewer, self.layer, index, corners)

    def _follow_label(self, _: object = None) -> None:
        """The user chose another label with napari's own controls."""
        value = int(self.layer.selected_label)
        if self.opened is not None and value != self.current and value in self.opened.session.states:
            self.choose(value, jump=False)

    def _removed(self, event: Any) -> None:
        if event.value is self.layer:
            self.close()
            self._say("The labels under review were removed from the viewer. Nothing is lost: continue the review.")

    def _mark(self) -> None:
        if self.opened is not None:
            self._marks.show(self.opened.session.steps, self.current, self.opened.grid, self.layer)

    def _slider_axis(self) -> int:
        """The axis of the data that the slider moves along; the first in three dimensions."""
        return int(self.viewer.dims.order[-3])

    def _note_saved(self) -> None:
        self._saved = f"All work saved at {datetime.now().astimezone():%H:%M:%S}"

