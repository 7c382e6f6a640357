"""A structure that is carried through slices: how far it is, how it is stopped, and what came of it. No Qt here."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_effvit_med.layers import DisplayGrid

if TYPE_CHECKING:
    from effvit_med.engine.prompting.carrying import Carried


@dataclass
class Carrying:
    """What is under way.

    Attributes:
        stop: set to end it; then nothing changes.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    _slices: int = 0
    _told: int = 0

    def note(self, phase: str, done: int, total: int) -> None:
        """Take in how many slices are done; called from another thread."""
        del phase, total
        self._slices = done

    def tell(self) -> str:
        """What the user is told now; empty where nothing is new."""
        if self._slices == self._told:
            return ""
        self._told = self._slices
        return f"Carried through {_count(self._told)}; press C again to stop."


def describe_carried(found: Carried, grid: DisplayGrid, shown_axis: int) -> str:
    """In which slices, as the slider counts them, a structure was found, and why no further.

    Args:
        found: what came of it.
        grid: how the scan is shown.
        shown_axis: the axis that the slider moves along.
    """
    ends = sorted((_on_slider(number, grid, shown_axis), why) for number, why in found.ended.values())
    reasons = "; ".join(f"at slice {number}: {why}" for number, why in ends if why != "the scan ends")
    text = f"Carried through {_count(len(found.answers))}."
    return f"{text} Ended {reasons}." if reasons else f"{text} It goes on to the ends of the scan."


def _count(slices: int) -> str:
    return "1 slice" if slices == 1 else f"{slices} slices"


def _on_slider(number: int, grid: DisplayGrid, shown_axis: int) -> int:
    size = grid.geometry.shape[grid.axes[shown_axis]]
    return size - 1 - number if grid.flips[shown_axis] else number
