"""Corrections of a review: each becomes a step, in the order they were asked for. Knows napari's model, but no Qt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import InputError
from napari_effvit_med.carrying import Carrying
from napari_effvit_med.doubt_map import DoubtMap
from napari_effvit_med.doubt_queue import DoubtQueue
from napari_effvit_med.layers import DisplayGrid
from napari_effvit_med.marks import PromptMarks
from napari_effvit_med.opening import OpenedReview
from napari_effvit_med.rows import MeasurementRow
from napari_effvit_med.tasks import Failed, Finished, Worker

if TYPE_CHECKING:
    from effvit_med.review import Refiner, ScanRefiner
    from effvit_med.volume.prompts import Prompt

Say = Callable[..., None]
Answer = Finished | Failed

_KINDS = {"paint": "brush", "erase": "eraser", "fill": "fill", "polygon": "polygon"}


class Corrections:
    """What is done to the labels of an open review, and who does it; `ReviewDesk` opens it and shows it.

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
        queue: places to look at.
        measured: the table of measurements, as it was last made.
        extent_mm: how much of the scan about a click is looked at.
        saving: whether files are being written.
        carrying: a structure that is being carried through slices; None if there is none.
        waited_s: from the last prompt to the changed picture, and how long its answer took to compute.
        on_change: called after anything changed.
    """

    def __init__(
        self, viewer: Any, say: Say, refiner: Refiner | ScanRefiner | None = None, *, inline: bool = False
    ) -> None:
        self.viewer = viewer
        self.opened: OpenedReview | None = None
        self.layer: Any = None
        self.current: int | None = None
        self.queue = DoubtQueue()
        self.measured: tuple[MeasurementRow, ...] = ()
        self.extent_mm = 60.0
        self.saving = False
        self.carrying: Carrying | None = None
        self.waited_s: tuple[float, float] = (0.0, 0.0)
        self.on_change: Callable[[], None] = lambda: None
        self._say, self._refiner, self._inline = say, refiner, inline
        self._quick: Worker | None = None
        self._slow: Worker | None = None
        self._marks = PromptMarks(viewer)
        self._doubt_map = DoubtMap(viewer)
        self._painted_with: tuple[str, int] | None = None
        self._looks = 0
        self._saved = ""

    def poll(self) -> None:
        """Take in what the workers did; the window calls this many times a second."""
        self._adopt()
        if self.carrying is not None and (told := self.carrying.tell()):
            self._say(told)
        for worker in (self._quick, self._slow):
            if worker is not None:
                worker.poll()
        if self.opened is not None and self._slow is not None and not self.busy and not self._slow.unfinished:
            self.queue.survey(self.opened, self._slow, lambda: self.busy, self._surveyed)

    @property
    def busy(self) -> bool:
        """Whether a correction or a saving is under way."""
        return bool(self._quick and self._quick.unfinished) or self.saving or self._painted_with is not None

    @property
    def settling(self) -> bool:
        """Whether anything at all is under way, or due."""
        asked = self.queue.is_surveying or self.queue.is_due
        return self.busy or asked or bool(self._slow and self._slow.unfinished)

    @property
    def saved(self) -> str:
        """When the last correction reached the disk, as the user reads it."""
        return self._saved

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

    def _adopt(self, *, anyway: bool = False) -> None:
        """Take over what napari's own tools wrote, or what is in another array that somebody gave the layer.

        Args:
            anyway: look for it also where napari told of nothing, as before saving.
        """
        if self.opened is None or self._quick is None:
            return
        opened, layer, session = self.opened, self.layer, self.opened.session
        is_ours = isinstance(layer.data, np.ndarray) and np.may_share_memory(layer.data, session.labels)
        if is_ours and not anyway and self._painted_with is None:
            return
        told = not is_ours or self._painted_with is not None
        (kind, value), self._painted_with = self._painted_with or ("script", 0), None
        foreign = None if is_ours else layer.data
        if foreign is not None:
            layer.data = opened.grid.view(session.labels)  # from now on strokes are painted there again

        def work() -> Any:
            if foreign is not None:
                take_over(foreign, session.labels, opened.grid)
            known = value if value in session.states else 0
            change = session.adopt(None, kind=kind, value=known)
            opened.settled.note(change)
            return change

        def show(answer: Answer) -> None:
            if told or isinstance(answer, Failed) or len(answer.value):
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
            if self._took(answer, backwards=True) and isinstance(answer, Finished):
                if answer.value is None:
                    self._say(nothing)
                self._mark()

        self._put(session.undo if way == "undo" else session.redo, show)

    def reset(self, value: int) -> None:
        """Bring a structure back to the automatic result."""
        if self.opened is not None and self._quick is not None:
            session = self.opened.session
            if value in session.locked:
                self._say(
                    f"{session.table.by_value(value).name} is locked, so it is not reset. Unlock it first.", error=True
                )
                return
            self._put(lambda: session.reset(value), lambda answer: self._took(answer, backwards=True))

    def set_state(self, value: int, state: str) -> None:
        """Say what is thought of a structure, see `effvit_med.review.STATES`."""
        if self.opened is not None and self._quick is not None:
            session = self.opened.session
            self._put(lambda: session.set_state(value, state), self._took)

    def set_locked(self, value: int, locked: bool) -> None:
        """Keep a structure from being edited, or let it be edited."""
        if self.opened is not None and self._quick is not None:
            session = self.opened.session
            self._put(lambda: session.set_locked(value, locked), self._took)

    def _put_slowly(self, work: Callable[[], Any], then: Callable[[Answer], Any]) -> None:
        """Do something long after all corrections that were asked for before, also if the review closes meanwhile."""
        if self._quick is None or self._slow is None:
            return
        self._adopt(anyway=True)
        ready = threading.Event()
        self._quick.put(ready.set)

        def work_then() -> Any:
            ready.wait()
            return work()

        self._slow.put(work_then, then)

    def _put(self, work: Callable[[], Any], then: Callable[[Answer], Any]) -> None:
        """Do something after what was painted before."""
        self._adopt()
        if self._quick is not None:
            self._quick.put(work, then)

    def _took(self, answer: Answer, *, backwards: bool = False, surveys: bool = True) -> bool:
        """Show what a step of the review changed; whether it went well."""
        if not self._heard(answer) or self.layer is None:
            return False
        self.layer.refresh(extent=False, highlight=False, thumbnail=False)
        self._note_saved()
        if surveys:
            self.queue.note_change(backwards=backwards)
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

    def _surveyed(self, answer: Answer) -> None:
        if self._heard(answer):
            self.on_change()

    def _mark(self) -> None:
        if self.opened is not None:
            self._marks.show(self.opened.session.steps, self.current, self.opened.grid, self.layer)

    def _note_saved(self) -> None:
        self._saved = f"All work saved at {datetime.now().astimezone():%H:%M:%S}"


def take_over(foreign: Any, labels: npt.NDArray[np.unsignedinteger], grid: DisplayGrid) -> None:
    """Write the labels of another array, as it is shown, into those of a review.

    Args:
        foreign: what somebody gave the layer.
        labels: of the review, changed in place.
        grid: how they are shown.

    Raises:
        InputError: if it is of another shape, or holds what is no label; then nothing is written.
    """
    if tuple(foreign.shape) != grid.shape:
        raise InputError(
            f"Labels of the shape {tuple(foreign.shape)} were put in place of those under review, which have "
            f"{grid.shape}; they are not part of the review."
        )
    values = grid.unview(np.asarray(foreign))
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > np.iinfo(labels.dtype).max:
        raise InputError(f"Labels with values from {low} to {high} are not part of the review, which has none such.")
    labels[...] = values
