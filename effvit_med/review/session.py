"""A review: one label array, every change of it on the disk before it is made, and nothing that cannot be undone."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from effvit_med.errors import InputError, SettingsError
from effvit_med.review.automatic import read_automatic, refuse_overlaps, write_automatic
from effvit_med.review.journal import Journal
from effvit_med.review.record import ReviewRecord
from effvit_med.review.state import ReviewState, Way
from effvit_med.review.steps import STATES, PlainPrompt, Step, agree_step, check_kind, make_event, plain_prompt
from effvit_med.volume import Finding, Segmentation
from effvit_med.volume import Step as Done
from effvit_med.volume.changes import LabelArray, VoxelChange, flat_view

SESSION_FORMAT = "effvit-med review 1"


class ReviewSession:
    """Labels under review, and all that is done to them.

    Made by `start` or `resume`. `labels` lie in the array order of the source; others may show views of them. What
    somebody else writes there, such as a brush, counts when it is adopted: the session keeps labels of its own that
    are what the journal says, and brings back what it does not take. Every call that changes something returns when
    the change is on the disk. A session may be called from any thread, also while a brush paints.

    Examples:
        >>> import tempfile
        >>> from effvit_med.volume import Code, Geometry, Label, LabelTable, Provenance
        >>> table = LabelTable((Label(1, "liver", Code("10200004", "Liver")),))
        >>> made = Provenance("demo", "1", "", {}, {}, "cpu", "2024-01-01T00:00:00+00:00")
        >>> geometry = Geometry(np.diag([5.0, 1.0, 1.0, 1.0]), (2, 8, 8))
        >>> automatic = Segmentation(np.zeros((2, 8, 8), np.uint8), geometry, table, made)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with ReviewSession.start(Path(folder), automatic, {}) as session:
        ...         change = session.apply([3, 4], 1, kind="click", value=1)
        ...     with ReviewSession.resume(Path(folder)) as session:
        ...         again, undone = round(session.volumes_ml()[1], 4), session.undo()
        >>> len(change), again, undone.after.tolist(), session.states
        (2, 0.01, [0, 0], {1: 'unseen'})
    """

    def __init__(self, journal: Journal, automatic: Segmentation, source_note: Mapping[str, Any]) -> None:
        self.table, self.geometry, self.confidence = automatic.table, automatic.geometry, automatic.confidence
        self.provenance, self.source_note = automatic.provenance, dict(source_note)
        self._state = ReviewState(automatic)
        self._journal = journal
        self._turn = threading.RLock()

    @classmethod
    def start(cls, folder: Path, segmentation: Segmentation, source_note: Mapping[str, Any]) -> ReviewSession:
        """Begin a review; the automatic result is copied into the folder.

        Args:
            folder: where the review lives; made if it is not there.
            segmentation: the automatic result, in the array order of the source; it is not changed.
            source_note: plain values about source and reviewer for the record; nothing that names a patient.

        Raises:
            RefusedError: ``OVERLAPPING_STRUCTURES``, if structures overlap: a voxel here has one.
            OutputError: if something cannot be written, or the folder holds a review already.
            SettingsError: if another program reviews in the folder.
        """
        refuse_overlaps(segmentation)
        journal = Journal.create(folder)
        try:
            content = {"source_note": dict(source_note), "automatic": write_automatic(folder, segmentation)}
            event = make_event("start", {"format": SESSION_FORMAT, **content})
            session = cls(journal, segmentation, source_note)
            journal.begin(event)
            session._state.repeat(0, event)
        except BaseException:
            journal.close()
            raise
        return session

    @classmethod
    def resume(cls, folder: Path) -> ReviewSession:
        """Go on with a review where it ended, also where it ended with a crash.

        Raises:
            InputError: if the folder holds no review, or one that is damaged; the message says where.
            OutputError: if the journal cannot be written.
            SettingsError: if another program reviews in the folder.
        """
        journal = Journal.open(folder)
        try:
            events = journal.read()
            _, first = next(events, (0, {}))
            if first.get("format") != SESSION_FORMAT:
                raise InputError(f"{journal.path} is no review that this version reads: its format is not known.")
            session = cls(journal, read_automatic(folder, first["automatic"]), first["source_note"])
            session._state.repeat(0, first)
            session._state.repeat_all(events, journal.path)
            session._write("resume", {})
        except BaseException:
            journal.close()
            raise
        return session

    @property
    def folder(self) -> Path:
        """Where the review lives."""
        return self._journal.path.parent

    @property
    def labels(self) -> LabelArray:
        """The labels to show and to paint on: always the same array."""
        return self._state.shown

    @property
    def automatic(self) -> LabelArray:
        """The labels of the automatic result; cannot be written."""
        return self._state.automatic

    @property
    def states(self) -> dict[int, str]:
        """The state of each structure by label value."""
        return dict(self._state.states)

    @property
    def locked(self) -> frozenset[int]:
        """The label values that no edit may take a voxel from or give one to."""
        return frozenset(int(value) for value in np.flatnonzero(self._state.locked))

    @property
    def edited(self) -> frozenset[int]:
        """The label values of structures that are not, voxel for voxel, as the automatic result has them."""
        return frozenset(value for value in self._state.states if self._state.counts.edited_fraction(value))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was noticed when the review was opened."""
        return self._journal.findings

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps that stand, the oldest first; not those that were undone."""
        return tuple(step for _, step in self._state.stacks["undo"])

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._state.stacks["undo"])

    @property
    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return bool(self._state.stacks["redo"])

    def apply(
        self,
        flat: npt.ArrayLike,
        after: npt.ArrayLike,
        *,
        kind: str,
        value: int,
        prompt: PlainPrompt | Mapping[str, Any] | None = None,
        duration_s: float | None = None,
    ) -> VoxelChange:
        """Give voxels other labels.

        Args:
            flat: indices into the labels in C order.
            after: one label value for all, or one for each index.
            kind: what was done: ``click`` or ``point``, or a word for a stroke, such as ``brush``.
            value: the structure that is corrected; 0 for none in particular.
            prompt: what was drawn, for the journal.
            duration_s: how long the drawing took.

        Returns:
            What changed: voxels of locked structures stay, none comes to them, and what is so already is left out.
            Where nothing changes nothing is recorded.

        Raises:
            GeometryError: if an index lies outside or the values do not fit.
            SettingsError: if a label value or the kind is not known.
            OutputError: if the journal cannot be written; then nothing has changed.
        """
        with self._turn:
            change = VoxelChange.of(self._state.labels, flat, after)
            return self._edit(change, Step(kind, value, prompt=plain_prompt(prompt), duration_s=duration_s))

    def adopt(
        self, flat: npt.ArrayLike | None, *, kind: str, value: int, duration_s: float | None = None
    ) -> VoxelChange:
        """Take over what a brush has already written into `labels`.

        Args:
            flat: indices in C order of all voxels that it wrote; None looks for them in the whole array.
            kind: as of `apply`.
            value: as of `apply`.
            duration_s: as of `apply`.

        Returns:
            What stays changed. Voxels of locked structures have their old value again.

        Raises:
            GeometryError: if an index lies outside.
            SettingsError: if a label value or the kind is not known; the stroke is gone.
            OutputError: if the journal cannot be written; the stroke is gone.
        """
        with self._turn:
            painted = self._state.find_painted(flat)
            try:
                return self._edit(painted, Step(kind, value, duration_s=duration_s))
            finally:
                self._state.settle(painted)

    def reset(self, value: int) -> VoxelChange:
        """Bring a structure back to what the automatic result says of it, as one step; locked ones stay as they are.

        Args:
            value: its label value.

        Returns:
            What changed.

        Raises:
            SettingsError: if the label value is not known.
            OutputError: if the journal cannot be written; then nothing has changed.
        """
        with self._turn:
            self.table.by_value(value)
            now, was = flat_view(self._state.labels), flat_view(self._state.automatic)
            flat = np.flatnonzero((now == value) != (was == value))
            change = self._state.allow(VoxelChange.of(self._state.labels, flat, was[flat]))
            if len(change):
                states = {each: pair for each, pair in self._state.shift_all(change, value).items() if each != value}
                self._do(Step("reset", value, change.to_text(), states | self._state.shift(value, "looked")), change)
            return change

    def set_state(self, value: int, state: str) -> None:
        """Say what the reviewer thinks of a structure; accepting locks it, and taking that back unlocks it.

        That a structure was looked at for the first time is no step to undo.

        Args:
            value: its label value.
            state: one of `STATES`.

        Raises:
            SettingsError: if the label value or the state is not known.
            OutputError: if the journal cannot be written; then nothing has changed.
        """
        with self._turn:
            self.table.by_value(value)
            if state not in STATES:
                raise SettingsError(f"{state!r} is no state of a structure; choose one of {', '.join(STATES)}.")
            before, locks = self._state.states[value], {}
            if "accepted" in (before, state) and before != state and self._state.locked[value] != (state == "accepted"):
                locks = {value: (before == "accepted", state == "accepted")}
            step = Step("state", value, states=self._state.shift(value, state), locks=locks)
            if (before, state) == ("unseen", "looked"):
                self._write("look", step.to_event())
                self._state.follow(step, None)
            elif step.states:
                self._do(step, None)

    def set_locked(self, value: int, locked: bool) -> None:
        """Keep a structure from being edited, or let it be edited again.

        Raises:
            SettingsError: if the label value is not known.
            OutputError: if the journal cannot be written; then nothing has changed.
        """
        with self._turn:
            self.table.by_value(value)
            locked = bool(locked)
            if bool(self._state.locked[value]) != locked:
                self._do(Step("lock", value, locks={value: (not locked, locked)}), None)

    def agree(self, value: int, box: Sequence[Sequence[int]]) -> None:
        """Say that a place is right as it is, as a step of its own.

        Args:
            value: the structure there; 0 for none in particular.
            box: of the place, as (start, stop) along each axis.

        Raises:
            SettingsError: if the label value is not known.
            OutputError: if the journal cannot be written.
        """
        with self._turn:
            self._do(agree_step(self.table.by_value(value).value if value else 0, box), None)

    def undo(self) -> VoxelChange | None:
        """Take back the last step that stands, of whatever structure, also of an earlier sitting.

        Returns:
            How voxels changed by that (empty for a step that changed none), or None if there is nothing to undo.

        Raises:
            OutputError: if the journal cannot be written; then nothing is undone.
        """
        return self._move("undo")

    def redo(self) -> VoxelChange | None:
        """Make the last undone step again; a new step leaves nothing to redo.

        Returns:
            How voxels changed by that, or None if there is nothing to redo.

        Raises:
            OutputError: as of `undo`.
        """
        return self._move("redo")

    def volumes_ml(self) -> dict[int, float]:
        """The volume of each structure by label value; does not wait for a change that is under way."""
        return {label.value: self._state.counts.volume_ml(label.value) for label in self.table}

    def edited_fraction(self, value: int) -> float:
        """The part of the voxels that a structure has now or had automatically that are not in both.

        Raises:
            SettingsError: if the label value is not known.
        """
        return self._state.counts.edited_fraction(self.table.by_value(value).value)

    def record(self) -> ReviewRecord:
        """What the review came to so far."""
        with self._turn:
            effort, digest = self._state.effort, self._journal.digest
            return ReviewRecord.of(self._state.describe(), effort, self.provenance, self.source_note, digest)

    def snapshot(self) -> tuple[ReviewRecord, Segmentation]:
        """The record and, of the same moment, the labels without the rejected structures."""
        with self._turn:
            rejected = frozenset(value for value, state in self._state.states.items() if state == "rejected")
            return self.record(), self.segmentation(without=rejected)

    def segmentation(self, *, without: frozenset[int] = frozenset()) -> Segmentation:
        """The labels as they are, as a segmentation of their own that says in its provenance that it was reviewed.

        It has no confidence: the network's does not speak of what was corrected.

        Args:
            without: label values that become background, such as those of rejected structures.
        """
        with self._turn:
            labels = self._state.labels.copy()
            labels[np.isin(labels, list(without))] = 0
            effort, edited = self._state.effort, sorted(self.edited)
            detail = {"events": effort.events, "journal_digest": self._journal.digest, "edited": edited}
            done = Done("review", round(sum(effort.active_s.values()), 3), detail)
            provenance = replace(self.provenance, steps=(*self.provenance.steps, done))
            return Segmentation(labels, self.geometry, self.table, provenance)

    def close(self) -> None:
        """Let go of the folder; nothing is left to be saved."""
        with self._turn:
            self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _edit(self, change: VoxelChange, step: Step) -> VoxelChange:
        """What `apply` and `adopt` have in common: check, filter, record, do."""
        check_kind(step.kind)
        if step.value:
            self.table.by_value(step.value)
        change = self._state.allow(self._state.check_known(change))
        if len(change):
            states = self._state.shift_all(change, step.value)
            self._do(replace(step, change=change.to_text(), states=states), change)
        return change

    def _do(self, step: Step, change: VoxelChange | None) -> None:
        """A new step: first to the journal, then to the labels."""
        self._state.take(self._write("step", step.to_event()), step, change)

    def _move(self, way: Way) -> VoxelChange | None:
        """Undo or redo: first to the journal, then to the labels."""
        with self._turn:
            stack = self._state.stacks[way]
            if not stack:
                return None
            number, step = stack[-1]
            change = step.voxels(backwards=way == "undo")
            self._write(way, {"of": number, "value": step.value})
            self._state.move(way, change)
            return VoxelChange.of(self.labels, (), 0) if change is None else change

    def _write(self, word: str, content: Mapping[str, Any]) -> int:
        event = make_event(word, content)
        number = self._journal.append(event)
        self._state.effort.note(event)
        return number
