"""A review in napari: what is open, shown, chosen and saved. Knows napari's viewer model, but no Qt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_effvit_med.carrying import Carrying, describe_carried
from napari_effvit_med.correcting import Answer, Corrections
from napari_effvit_med.doubt_map import invert
from napari_effvit_med.layers import record_of
from napari_effvit_med.looking import find_middle, look_at, slider_axis
from napari_effvit_med.opening import DONE_STATES, OpenedReview
from napari_effvit_med.rows import DoubtRow, MeasurementRow, StructureRow, rows_of_measurements
from napari_effvit_med.tasks import Finished, Worker

if TYPE_CHECKING:
    from effvit_med.review import Doubt, SliceCarrier


class ReviewDesk(Corrections):
    """One review at a time; every method is called from the thread of the window. See `Corrections`."""

    def open(self, opened: OpenedReview) -> None:
        """Show a review; one that is open is closed.

        Args:
            opened: as `napari_effvit_med.opening` makes it.
        """
        before = self.layer
        self.close()
        if before is not None and before in self.viewer.layers:
            before.visible = False  # what is painted there is not part of any review any more
        self.opened = opened
        self._quick, self._slow = Worker("Correcting", inline=self._inline), Worker("Saving", inline=self._inline)
        data, arguments, _ = opened.layer
        self.layer = self.viewer.add_labels(data, **arguments)
        self._marks.prepare(self.layer)
        # napari's own undo forgets, and tells nobody
        self.layer.bind_key("Control-Z", lambda _: self.undo(), overwrite=True)
        self.layer.bind_key("Control-Shift-Z", lambda _: self.redo(), overwrite=True)
        self.layer.events.paint.connect(self._painted)
        self.layer.events.selected_label.connect(self._follow_label)
        self.viewer.layers.events.removed.connect(self._removed)
        self.queue.take(opened.survey)
        present = [row.value for row in self.structure_rows() if row.volume_ml]
        self.current = present[0] if present else next(iter(opened.session.table)).value
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
        if self.carrying is not None:
            self.carrying.stop.set()
        self._adopt(anyway=True)
        opened, self.opened = self.opened, None
        quick, slow = self._quick, self._slow
        if quick is not None and slow is not None:
            quick.put(opened.session.close)  # the last thing, however long what was asked for before takes
            quick.close(timeout_s)
            slow.close(timeout_s if self.saving else 0)
            for worker in (quick, slow):
                worker.poll()  # what went wrong is told
        self._marks.remove()
        self._doubt_map.remove()
        self.viewer.layers.events.removed.disconnect(self._removed)
        if self.layer is not None:
            self.layer.events.paint.disconnect(self._painted)
            self.layer.events.selected_label.disconnect(self._follow_label)
            for key in ("Control-Z", "Control-Shift-Z"):
                self.layer.bind_key(key, None, overwrite=True)
        self.layer, self.current, self.measured, self._saved = None, None, (), ""
        self.queue.clear()
        self.saving = False
        self.on_change()

    def shows(self, layer: Any) -> bool:
        """Whether a layer is the one under review."""
        record = record_of(layer.metadata)
        made = record.segmentation if record is not None else None
        return self.opened is not None and made is not None and made.labels is self.opened.session.labels

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Places to look at."""
        return self.queue.doubts

    @property
    def doubt(self) -> int | None:
        """Number of the place that is looked at; None before the first."""
        return self.queue.number

    def structure_rows(self) -> tuple[StructureRow, ...]:
        """The table of structures."""
        if self.opened is None:
            return ()
        session = self.opened.session
        volumes, states, locked = session.volumes_ml(), session.states, session.locked
        doubt_ml = self.queue.sums_ml()
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
        return self.queue.rows(self.opened.session.table, self.opened.grid, self._slider_axis())

    def strip(self) -> npt.NDArray[np.float64]:
        """The expected wrong volume in mL of each slice of the slider, in its order; empty if it is not known."""
        return np.zeros(0) if self.opened is None else self.queue.strip(self.opened.grid, self._slider_axis())

    def slice_number(self) -> int:
        """The slice that is looked at, as `strip` counts."""
        if self.layer is None:
            return 0
        return round(float(self.layer.world_to_data(self.viewer.dims.point)[self._slider_axis()]))

    def go_to_slice(self, number: int) -> None:
        """Look at a slice of the strip."""
        if self.layer is None:
            return
        self._looks += 1
        axis = self._slider_axis()
        index = np.array(self.layer.world_to_data(self.viewer.dims.point), dtype=float)
        index[axis] = number
        self.viewer.dims.set_point(self.viewer.dims.ndim - 3 + axis, self.layer.data_to_world(index)[axis])

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
            self._put(lambda: session.set_state(value, "looked"), lambda answer: self._took(answer, surveys=False))
        self._looks += 1
        if jump:
            number = self.queue.first_of(value)
            if number is not None:
                self.jump(number)
            else:
                axis = self.opened.grid.axes[self._slider_axis()]
                look = self._looks
                self._quick.put(lambda: find_middle(session.labels, axis, value), lambda a: self._show_middle(a, look))
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

    def show_doubt(self, wanted: bool) -> None:
        """Lay the network's doubt over the scan, or take it away."""
        if self.opened is None or self._slow is None:
            return
        opened, confidence = self.opened, self.opened.session.confidence
        if not wanted or confidence is None:
            self._doubt_map.remove()
            if wanted:
                self._say("There is no confidence map: the network said nothing of doubt.")
            return

        def show(answer: Answer) -> None:
            if self._heard(answer) and isinstance(answer, Finished) and self.opened is opened:
                self._doubt_map.show(answer.value, opened.grid)

        self._slow.put(lambda: invert(confidence), show)

    def jump(self, number: int) -> None:
        """Look at a place in doubt.

        Args:
            number: as of `doubt_rows`.
        """
        if self.opened is None or self.layer is None or not 0 <= number < len(self.doubts):
            return
        self._looks += 1
        doubt, grid = self.queue.go_to(number), self.opened.grid
        corners = grid.from_index([[a for a, _ in doubt.box], [b - 1 for _, b in doubt.box]])
        look_at(self.viewer, self.layer, grid.from_index(doubt.index), corners)
        if doubt.value and doubt.value != self.current:
            self.choose(doubt.value, jump=False)
        self.on_change()

    def step_doubt(self, step: int) -> None:
        """Look at the next place in doubt, or at the one before; after the last comes the first."""
        if self.doubts:
            self.jump(self.queue.neighbour(step))
        elif self.opened is not None:
            self._say("No place is in doubt any more.")

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

    def dismiss(self, number: int) -> None:
        """Say that a place in doubt is right as it is; it can be undone."""
        if self.opened is None or self._quick is None or not 0 <= number < len(self.doubts):
            return
        opened, doubt = self.opened, self.doubts[number]

        def work() -> None:
            opened.session.agree(doubt.value, doubt.box)
            opened.settled.agree(doubt.box)

        self._put(work, self._took)
        self.queue.remove(number)
        if self.doubts:
            self.jump(min(number, len(self.doubts) - 1))
        self.on_change()

    @property
    def can_carry(self) -> bool:
        """Whether what answers prompts can look for a structure in other slices."""
        return self._carrier() is not None

    def _carrier(self) -> SliceCarrier | None:
        from effvit_med.review import SliceCarrier

        refiner: object = self._refiner
        return refiner if isinstance(refiner, SliceCarrier) else None

    def carry(self) -> None:
        """Carry the chosen structure from the slice that is shown through those beside it, or stop doing so."""
        if self.opened is None or self.layer is None or self.current is None:
            return
        if self.carrying is not None:
            self.carrying.stop.set()
            return
        carrier = self._carrier()
        if carrier is None:
            self._say(
                "Only a network carries a structure through slices: choose it in the preferences (Clicks are answered "
                "by), or give this structure a click in each slice.",
                error=True,
            )
            return
        opened, value, shown = self.opened, self.current, self._slider_axis()
        index = opened.grid.to_index(self.layer.world_to_data(self.viewer.dims.point)[-3:])
        axis = opened.grid.axes[shown]
        place = axis, round(float(index[axis]))
        way = self.carrying = Carrying()
        self._say(f"Carrying {opened.session.table.by_value(value).name} through the slices; press C again to stop.")

        def work() -> Any:
            from effvit_med.review.answering import carry_structure

            change, found = carry_structure(
                opened.session, opened.volume, value, place, carrier, way.stop.is_set, way.note
            )
            opened.settled.note(change)
            return found

        def show(answer: Answer) -> None:
            self.carrying = None
            if self._took(answer) and isinstance(answer, Finished):
                self._say(describe_carried(answer.value, opened.grid, shown))

        self._put(work, show)
        self.on_change()

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

        self._put_slowly(work, show)

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
        opened = self.opened
        self.saving = True
        self._say(f"Saving into {output} ...")

        def work() -> Any:
            from effvit_med.review import save_review

            return save_review(opened.session, opened.volume, output, types, predecessor=opened.predecessor)  # type: ignore[arg-type]

        def show(answer: Answer) -> None:
            self.saving = False
            self._heard(answer)
            if isinstance(answer, Finished):
                lines = [f"Saved {', '.join(path.name for path in answer.value.files.values())} in {output}."]
                self._say("\n".join([*lines, *dict.fromkeys(each.message for each in answer.value.findings)]))

        self._put_slowly(work, show)  # what was corrected before is part of it
        self.on_change()

    def _show_middle(self, answer: Answer, look: int) -> None:
        """Go to where a structure is, unless the user went elsewhere meanwhile."""
        wanted = self.opened is not None and look == self._looks
        if isinstance(answer, Finished) and answer.value is not None and self.opened is not None and wanted:
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

    def _slider_axis(self) -> int:
        """The axis of the data that the slider moves along; the first in three dimensions."""
        return slider_axis(self.viewer)
