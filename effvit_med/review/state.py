"""Where a review stands: labels, counts, states, locks and what can be undone. It follows events; no file is here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from effvit_med.errors import EffvitError, InputError, SettingsError
from effvit_med.review.counts import VoxelCounts
from effvit_med.review.record import Effort, StructureReview, describe_structure
from effvit_med.review.steps import STATES, Step
from effvit_med.volume import Segmentation
from effvit_med.volume.changes import LabelArray, VoxelChange, check_places, flat_view

Way = Literal["undo", "redo"]


class ReviewState:
    """Where a review stands.

    Args:
        automatic: the result that it starts from; it is not changed.

    Attributes:
        automatic: the labels of the start; cannot be written.
        labels: the labels now, contiguous in C order; nobody else has this array.
        shown: the same labels for others to look at and to paint on.
        counts: of their voxels.
        states: by label value.
        known: by value whether it may stand in the labels.
        locked: by value whether no edit may take a voxel from it or give one to it.
        stacks: the steps that can be undone and redone with their numbers, the next one last.
        effort: what the events say of clicks and time.
    """

    def __init__(self, automatic: Segmentation) -> None:
        size = max((label.value for label in automatic.table), default=0) + 1
        labels: LabelArray = automatic.labels if size <= 256 else automatic.labels.astype(np.uint16)
        self.labels: LabelArray = labels.copy(order="C")
        self.automatic: LabelArray = self.labels.copy()
        self.automatic.flags.writeable = False
        self.shown: LabelArray = self.labels.copy()
        self.counts = VoxelCounts(self.automatic, automatic.geometry, size)
        self.known = np.zeros(np.iinfo(self.labels.dtype).max + 1, np.bool_)
        self.known[[0, *(label.value for label in automatic.table)]] = True
        self.locked = np.zeros_like(self.known)
        self.states = {label.value: STATES[0] for label in automatic.table}
        self.stacks: dict[Way, list[tuple[int, Step]]] = {"undo": [], "redo": []}
        self.effort = Effort()
        self._table = automatic.table
        self._is_painted = False  # whether what follows stands in `shown` already

    def find_painted(self, flat: npt.ArrayLike | None) -> VoxelChange:
        """What others wrote into `shown`; it stays there until `settle` is told what came of it.

        Args:
            flat: indices in C order of the voxels they wrote; None looks for them everywhere.

        Returns:
            The change that makes it in `labels`, too.

        Raises:
            GeometryError: if an index lies outside.
        """
        shown, labels = flat_view(self.shown), flat_view(self.labels)
        places = np.flatnonzero(shown != labels) if flat is None else np.asarray(flat).reshape(-1)
        check_places(labels, places)
        change = VoxelChange.of(self.labels, places, shown[places.astype(np.int64)])
        self._is_painted = True
        return change

    def settle(self, painted: VoxelChange) -> None:
        """Show of what others wrote only what is in `labels`; what they wrote over it since stays.

        Args:
            painted: as `find_painted` gave it.
        """
        self._is_painted = False
        shown, labels = flat_view(self.shown), flat_view(self.labels)
        refused = painted.flat[(shown[painted.flat] == painted.after) & (labels[painted.flat] != painted.after)]
        shown[refused] = labels[refused]

    def check_known(self, change: VoxelChange) -> VoxelChange:
        """A change as it is, if it gives no voxel a value that the table has not.

        Raises:
            SettingsError: if it does.
        """
        unknown = np.unique(change.after[~self.known[change.after]])
        if unknown.size:
            raise SettingsError(f"No structure has the label value {unknown[0]}; there are {sorted(self.states)}.")
        return change

    def allow(self, change: VoxelChange) -> VoxelChange:
        """The part of a change that touches no locked structure."""
        free = ~(self.locked[change.before] | self.locked[change.after])
        return change if free.all() else change.where(free)

    def shift(self, value: int, state: str) -> dict[int, tuple[str, str]]:
        """The change of a state, for a step; empty where it is so already."""
        before = self.states[value]
        return {value: (before, state)} if before != state else {}

    def shift_all(self, change: VoxelChange, value: int) -> dict[int, tuple[str, str]]:
        """What becomes of states when voxels change: all that gain or lose some are edited.

        A rejected structure stays rejected, but for the one that is corrected.

        Args:
            change: of the voxels.
            value: the structure that is corrected.
        """
        size = self.known.size
        touched = np.flatnonzero(np.bincount(change.before, minlength=size) + np.bincount(change.after, minlength=size))
        shifts: dict[int, tuple[str, str]] = {}
        for each in (int(each) for each in touched if each):
            if each == value or self.states[each] != "rejected":
                shifts |= self.shift(each, "edited")
        return shifts

    def take(self, number: int, step: Step, change: VoxelChange | None) -> None:
        """Follow a new step; nothing can be redone after it.

        Args:
            number: of its event.
            step: what was done.
            change: its change of voxels, if any.

        Raises:
            GeometryError: if the change does not fit the labels; then nothing has changed.
        """
        self.follow(step, change)
        self.stacks["undo"].append((number, step))
        self.stacks["redo"].clear()

    def move(self, way: Way, change: VoxelChange | None) -> None:
        """Undo or redo the step that is next.

        Args:
            way: which of the two.
            change: the change of voxels in that direction, if any.

        Raises:
            GeometryError: as of `take`.
        """
        step = self.stacks[way][-1][1]
        self.follow(step, change, backwards=way == "undo")
        self.stacks["redo" if way == "undo" else "undo"].append(self.stacks[way].pop())

    def follow(self, step: Step, change: VoxelChange | None, *, backwards: bool = False) -> None:
        """Bring labels, counts, states and locks to where they are after a step, or before it.

        Raises:
            GeometryError: as of `take`.
        """
        if change is not None:
            change.apply(self.labels)
            if not self._is_painted:
                shown = flat_view(self.shown)
                untouched = shown[change.flat] == change.before  # what others painted meanwhile is theirs
                shown[change.flat[untouched]] = change.after[untouched]
            self.counts.follow(change)
        for value, pair in step.states.items():
            self.states[value] = pair[not backwards]
        for value, switch in step.locks.items():
            self.locked[value] = switch[not backwards]

    def repeat(self, number: int, event: Mapping[str, Any]) -> None:
        """Do again what an event of the journal says.

        Args:
            number: of the event.
            event: as it was written.

        Raises:
            InputError: if it does not fit to what came before it, or is not known.
            GeometryError: if its change does not fit the labels.
        """
        word = event["type"]
        if word == "undo" or word == "redo":  # noqa: PLR1714  # so that a type checker sees the two words
            stack = self.stacks[word]
            if not stack or stack[-1][0] != event["of"]:
                raise InputError(f"It would {word} step {event['of']}, which is not the one that comes next.")
            self.move(word, stack[-1][1].voxels(backwards=word == "undo"))
        elif word == "step":
            step = Step.from_event(event)
            self.take(number, step, step.voxels())
        elif word == "look":
            self.follow(Step.from_event(event), None)
        elif word not in ("start", "resume"):
            raise InputError(f"Its event is {word!r}, which this version does not know.")
        self.effort.note(event)

    def repeat_all(self, events: Iterable[tuple[int, Mapping[str, Any]]], path: Path) -> None:
        """Do again what the events of a journal say.

        Args:
            events: with their numbers.
            path: of the journal, for messages.

        Raises:
            InputError: if one does not fit to what came before it, or is not known; its line is named.
        """
        for number, event in events:
            try:
                self.repeat(number, event)
            except (EffvitError, KeyError, IndexError, TypeError, ValueError) as error:
                raise InputError(f"Line {number + 1} of {path} does not fit: {error}") from error

    def describe(self) -> tuple[StructureReview, ...]:
        """How each structure was reviewed, in the order of the label table."""
        return tuple(
            describe_structure(
                label, self.states[label.value], bool(self.locked[label.value]), self.counts, self.effort
            )
            for label in self._table
        )
