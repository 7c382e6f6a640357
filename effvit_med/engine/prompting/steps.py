"""What a session keeps of each structure and of each thing that was done."""

from __future__ import annotations

from dataclasses import dataclass

from effvit_med.engine.prompting.log import Event
from effvit_med.engine.prompting.views import View
from effvit_med.volume import Label, Step
from effvit_med.volume.changes import VoxelChange
from effvit_med.volume.prompts import Prompt


@dataclass(frozen=True)
class StructureState:
    """A structure of a session.

    Attributes:
        label: what it is.
        prompts: about it that stand, oldest first.
        waiting: how many of these have no answer yet.
        voxels: it has now.
    """

    label: Label
    prompts: tuple[Prompt, ...]
    waiting: int
    voxels: int


@dataclass
class Done:
    """An event that stands, and what it changed once it was answered."""

    event: Event
    change: VoxelChange | None = None
    step: Step | None = None
    view: View | None = None
