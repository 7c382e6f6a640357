"""The places in doubt of a review, in their order, and when to look for them again. Neither napari nor Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_effvit_med.layers import DisplayGrid
from napari_effvit_med.opening import DoubtSurvey, OpenedReview, SettledPlaces, survey_doubts
from napari_effvit_med.rows import DoubtRow
from napari_effvit_med.tasks import Failed, Finished, Worker

if TYPE_CHECKING:
    from effvit_med.review import Doubt
    from effvit_med.volume import LabelTable

_NOWHERE = ("background", (128, 128, 128))


class DoubtQueue:
    """Places to look at. After corrections they are looked for again as soon as nothing else is under way.

    Attributes:
        doubts: the places, the most expected wrong volume first.
        number: of the one that is looked at; None before the first.
        is_surveying: whether they are being looked for.
        is_due: whether they must be looked for again.
    """

    def __init__(self) -> None:
        self.doubts: tuple[Doubt, ...] = ()
        self.number: int | None = None
        self.is_surveying = self.is_due = False
        self._anew = False
        self._seen: set[tuple[int, int, int]] = set()
        self._strips: tuple[npt.NDArray[np.float64], ...] = ()

    def clear(self) -> None:
        """Forget all, for another review."""
        self.__init__()  # type: ignore[misc]

    def note_change(self, *, backwards: bool = False) -> None:
        """Something was corrected.

        Args:
            backwards: a step was taken back or made again, so that what is settled must be counted from the start.
        """
        self.is_due = True
        self._anew = self._anew or backwards

    def take(self, survey: DoubtSurvey) -> None:
        """Have other places; the one that is looked at stays so if it is still there."""
        looked = self.current
        self.doubts, self._strips = survey.doubts, survey.strips
        self.number = next((n for n, doubt in enumerate(self.doubts) if looked and doubt.index == looked.index), None)

    @property
    def current(self) -> Doubt | None:
        """The place that is looked at."""
        return self.doubts[self.number] if self.number is not None and self.number < len(self.doubts) else None

    def go_to(self, number: int) -> Doubt:
        """Look at a place."""
        self.number = number
        self._seen.add(self.doubts[number].index)
        return self.doubts[number]

    def neighbour(self, step: int) -> int:
        """The number of the next place, or of the one before; after the last comes the first."""
        start = (-1 if step > 0 else 0) if self.number is None else self.number
        return (start + step) % len(self.doubts)

    def first_of(self, value: int) -> int | None:
        """The number of the most doubtful place of a structure; None if there is none."""
        return next((number for number, doubt in enumerate(self.doubts) if doubt.value == value), None)

    def remove(self, number: int) -> None:
        """Take a place away, before the next survey does."""
        self.doubts = (*self.doubts[:number], *self.doubts[number + 1 :])
        self.number = None

    def sums_ml(self) -> dict[int, float]:
        """Expected wrong volume by label value."""
        sums: dict[int, float] = {}
        for doubt in self.doubts:
            sums[doubt.value] = sums.get(doubt.value, 0.0) + doubt.expected_wrong_ml
        return sums

    def rows(self, table: LabelTable, grid: DisplayGrid, axis: int) -> tuple[DoubtRow, ...]:
        """The places as they are listed.

        Args:
            table: of the labels.
            grid: how they are shown.
            axis: of what is shown along which the slider moves.
        """
        names = {label.value: (label.name, label.colour) for label in table}
        rows = []
        for number, doubt in enumerate(self.doubts):
            name, colour = names.get(doubt.value, _NOWHERE)
            place = round(float(grid.from_index(doubt.index)[axis]))
            wrong_ml, seen = doubt.expected_wrong_ml, doubt.index in self._seen
            rows.append(DoubtRow(number, doubt.value, name, colour, wrong_ml, doubt.message, place, seen))
        return tuple(rows)

    def strip(self, grid: DisplayGrid, axis: int) -> npt.NDArray[np.float64]:
        """The expected wrong volume in mL of each slice of the slider, in its order; empty if it is not known.

        Args:
            grid: as of `rows`.
            axis: as of `rows`.
        """
        if not self._strips:
            return np.zeros(0)
        values = self._strips[grid.axes[axis]]
        return values[::-1] if grid.flips[axis] else values

    def survey(
        self, opened: OpenedReview, slow: Worker, is_busy: Callable[[], bool], then: Callable[[Finished | Failed], None]
    ) -> None:
        """Look for doubts again if that is due.

        Args:
            opened: the review.
            slow: what works at it.
            is_busy: whether corrections are under way.
            then: called with the answer, unless it is stale.
        """
        if not self.is_due or self.is_surveying:
            return
        anew = self._anew
        self.is_due, self.is_surveying, self._anew = False, True, False

        def work() -> tuple[SettledPlaces, DoubtSurvey]:
            settled = SettledPlaces(opened.session) if anew else opened.settled
            return settled, survey_doubts(opened.session, settled, opened.reasons)

        def show(answer: Finished | Failed) -> None:
            self.is_surveying = False
            if self.is_due or is_busy():  # corrected meanwhile: this answer is stale
                self.is_due, self._anew = True, self._anew or anew
                return
            if isinstance(answer, Finished):
                settled, survey = answer.value
                opened.settled.take(settled)
                self.take(survey)
            then(answer)

        slow.put(work, show)
