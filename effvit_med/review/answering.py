"""From one prompt of a reader to the step of the review that answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np

from effvit_med.errors import GeometryError, SettingsError
from effvit_med.review.refining import (
    LocalRefiner,
    Refiner,
    ScanRefiner,
    SliceCarrier,
    cut_request,
    find_changes,
    list_changes,
)
from effvit_med.review.session import ReviewSession
from effvit_med.review.steps import Step
from effvit_med.volume import Volume
from effvit_med.volume.changes import VoxelChange
from effvit_med.volume.prompts import Prompt

if TYPE_CHECKING:
    from effvit_med.engine.prompting.carrying import Carried

_KINDS = frozenset({"point", "scribble", "box", "lasso"})


def answer_prompt(
    session: ReviewSession,
    volume: Volume,
    prompt: Prompt,
    refiner: Refiner | ScanRefiner | None = None,
    extent_mm: float = 60.0,
    duration_s: float | None = None,
) -> VoxelChange:
    """Correct a structure by what the reader pointed at, as one step of the review.

    Args:
        session: the review.
        volume: the scan.
        prompt: what was pointed at, in indices of the scan.
        refiner: what answers; None for `LocalRefiner`.
        extent_mm: how much of the scan about a single point is looked at; a `ScanRefiner` decides that for itself.
        duration_s: how long drawing it took, for the record.

    Returns:
        What changed; nothing where the prompt says what is so already.

    Raises:
        SettingsError: if the structure is locked or not known.
        GeometryError: if the prompt lies outside the scan.
        OutputError: if the journal cannot be written; then nothing has changed.
    """
    label = session.table.by_value(prompt.value)
    if label.value in session.locked:
        raise SettingsError(f"{label.name} is locked, so it cannot be corrected. Unlock or reopen it first.")
    if not all(-0.5 <= at <= size - 0.5 for at, size in zip(prompt.index[0], volume.geometry.shape, strict=True)):
        raise GeometryError(f"You pointed at {np.round(prompt.index[0], 1).tolist()}, which is outside the scan.")
    prompts = [*prompts_of(session.steps, prompt.value), prompt]
    shape = volume.geometry.shape
    if isinstance(refiner, ScanRefiner):
        structure, crop = refiner.refine_scan(volume, session.labels, prompts)
        here = session.labels[crop]
        flat, after = find_changes(here, prompt.value, session.locked, structure, crop, shape)
        return session.apply(flat, after, kind=prompt.kind, value=prompt.value, prompt=prompt, duration_s=duration_s)
    request, crop = cut_request(
        volume,
        session.labels,
        prompts,
        confidence=session.confidence,
        locked=session.locked,
        extent_mm=extent_mm,
    )
    structure = (refiner or LocalRefiner()).refine(request)
    flat, after = list_changes(request, structure, crop, shape)
    return session.apply(flat, after, kind=prompt.kind, value=prompt.value, prompt=prompt, duration_s=duration_s)


def carry_structure(
    session: ReviewSession,
    volume: Volume,
    value: int,
    place: tuple[int, int],
    refiner: SliceCarrier,
    cancelled: Callable[[], bool] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[VoxelChange, Carried]:
    """Look for a structure in the slices beside one in which it is right, as one step of the review.

    Slices in which somebody has pointed at it stay as they are and end the way.

    Args:
        session: the review.
        volume: the scan.
        value: of the structure.
        place: across which axis of the array the slice lies, and its number.
        refiner: what looks for it.
        cancelled: asked before each slice; where it says so, nothing has changed.
        progress: told how far it came.

    Returns:
        What changed, and in which slices the structure was found and why no further.

    Raises:
        SettingsError: if the structure is locked or not in the slice, or the bundle has no network that sees slices.
        CancelledError: if ``cancelled`` said so.
        InputError: if there is no such bundle.
        WeightsError: if its weights are wrong.
        OutputError: if the journal cannot be written; then nothing has changed.
    """
    label = session.table.by_value(value)
    if label.value in session.locked:
        raise SettingsError(f"{label.name} is locked, so it cannot be corrected. Unlock or reopen it first.")
    axis, number = place
    here = (slice(None),) * axis + (slice(number, number + 1),)
    prompts = prompts_of(session.steps, value)
    found = refiner.carry_scan(volume, session.labels[here] == value, prompts, place, cancelled, progress)
    shape = volume.geometry.shape
    changes = [(np.zeros(0, np.int64), np.zeros(0, session.labels.dtype))]
    for answer in found.answers.values():
        labels = session.labels[answer.box]
        changes.append(find_changes(labels, value, session.locked, answer.mask, answer.box, shape))
    flat, after = (np.concatenate(parts) for parts in zip(*changes, strict=True))
    about = {"kind": "carry", "axis": axis, "start": number}
    return session.apply(flat, after, kind="carry", value=value, prompt=about), found


def prompts_of(steps: Iterable[Step], value: int) -> list[Prompt]:
    """The prompts about a structure among steps that stand, the oldest first.

    Args:
        steps: of a review.
        value: the structure.
    """
    return [
        Prompt.from_dict(step.prompt)
        for step in steps
        if step.prompt is not None and step.value == value and step.kind in _KINDS
    ]
