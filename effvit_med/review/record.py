"""What a review came to, structure by structure: states, volumes, effort, and how much the automatic result changed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from effvit_med import NOT_FOR_CLINICAL_USE
from effvit_med.review.counts import VoxelCounts
from effvit_med.review.steps import CLICK_KINDS, OWN_KINDS
from effvit_med.volume import Label, Provenance

RECORD_FORMAT = "effvit-med review record 1"

IDLE_S = 120.0
"""A pause counts with at most so many seconds: whoever does nothing for longer is elsewhere."""


@dataclass(frozen=True)
class StructureReview:
    """How one structure was reviewed.

    Attributes:
        value: its label value.
        name: its name.
        state: one of `effvit_med.review.STATES`.
        locked: whether it is safe from edits.
        volume_ml: its volume now.
        automatic_volume_ml: its volume in the automatic result.
        dice: overlap of both, from 0 to 1; None if it is in neither.
        edited_fraction: the part of the voxels of either that are not in both.
        clicks: how many were made, also those undone later.
        strokes: other edits that were made, also those undone later.
        active_s: time spent on it: for each of its events the time since the event before, at most `IDLE_S`.
        drawing_s: the sum of the durations of its edits, as far as they were given.
    """

    value: int
    name: str
    state: str
    locked: bool
    volume_ml: float
    automatic_volume_ml: float
    dice: float | None
    edited_fraction: float
    clicks: int
    strokes: int
    active_s: float
    drawing_s: float


@dataclass(frozen=True)
class ReviewRecord:
    """A review as it stands.

    Attributes:
        structures: in the order of the label table.
        source_note: what was noted about the source at the start.
        identity: of the automatic result, as of `Provenance.identity`.
        bundle: its name and version.
        weights_sha256: of the weights of the model.
        versions: of the programs that made the automatic result.
        started: time of the first event, ISO 8601.
        changed: time of the last event that changed something.
        ended: time of the last event.
        sittings: how often the review was opened.
        events: how many lines the journal has.
        undone: how often something was undone.
        journal_digest: of the last line of the journal, which stands for all of them.
        notice: that the result is not for clinical use.
    """

    structures: tuple[StructureReview, ...]
    source_note: Mapping[str, Any]
    identity: str
    bundle: tuple[str, str]
    weights_sha256: str
    versions: Mapping[str, str]
    started: str
    changed: str
    ended: str
    sittings: int
    events: int
    undone: int
    journal_digest: str
    notice: str = NOT_FOR_CLINICAL_USE

    @classmethod
    def of(
        cls,
        structures: tuple[StructureReview, ...],
        effort: Effort,
        automatic: Provenance,
        source_note: Mapping[str, Any],
        journal_digest: str,
    ) -> ReviewRecord:
        """The record of a review as it stands.

        Args:
            structures: as of the attributes.
            effort: of the reviewer.
            automatic: how the automatic result was made.
            source_note: as of the attributes.
            journal_digest: as of the attributes.
        """
        return cls(
            structures=structures,
            source_note=source_note,
            identity=automatic.identity(),
            bundle=(automatic.bundle, automatic.bundle_version),
            weights_sha256=automatic.weights_sha256,
            versions=automatic.versions,
            started=effort.started,
            changed=effort.changed,
            ended=effort.ended,
            sittings=effort.sittings,
            events=effort.events,
            undone=effort.undone,
            journal_digest=journal_digest,
        )

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values for JSON."""
        return {"format": RECORD_FORMAT, **asdict(self)}


@dataclass
class Effort:
    """Counts what the events of a journal say about clicks, strokes and time.

    Examples:
        >>> effort = Effort()
        >>> effort.note({"type": "start", "time": "2024-01-01T10:00:00+00:00"})
        >>> effort.note({"type": "step", "kind": "click", "value": 2, "time": "2024-01-01T10:00:05+00:00"})
        >>> effort.clicks, effort.active_s
        ({2: 1}, {2: 5.0})
    """

    clicks: dict[int, int] = field(default_factory=dict)
    strokes: dict[int, int] = field(default_factory=dict)
    active_s: dict[int, float] = field(default_factory=dict)
    drawing_s: dict[int, float] = field(default_factory=dict)
    started: str = ""
    changed: str = ""
    ended: str = ""
    sittings: int = 0
    events: int = 0
    undone: int = 0

    def note(self, event: Mapping[str, Any]) -> None:
        """Count one event.

        Args:
            event: a line of the journal: ``type``, ``time``, and of a step ``kind``, ``value`` and ``duration_s``.
        """
        before, self.ended = self.ended, str(event["time"])
        self.started = self.started or self.ended
        self.events += 1
        if event["type"] not in ("resume", "look"):
            self.changed = self.ended
        kind, value = event.get("kind", ""), int(event.get("value", 0))
        if event["type"] in ("start", "resume"):
            self.sittings += 1
            return
        self.undone += event["type"] == "undo"
        if event["type"] == "step" and kind not in OWN_KINDS:
            made = self.clicks if kind in CLICK_KINDS else self.strokes
            made[value] = made.get(value, 0) + 1
            self.drawing_s[value] = self.drawing_s.get(value, 0.0) + float(event.get("duration_s") or 0.0)
        passed = (dt.datetime.fromisoformat(self.ended) - dt.datetime.fromisoformat(before)).total_seconds()
        self.active_s[value] = self.active_s.get(value, 0.0) + min(max(passed, 0.0), IDLE_S)


def describe_structure(label: Label, state: str, locked: bool, counts: VoxelCounts, effort: Effort) -> StructureReview:
    """How one structure was reviewed.

    Args:
        label: the structure.
        state: what the reviewer thinks of it.
        locked: whether it is safe from edits.
        counts: of voxels.
        effort: of the reviewer.
    """
    value = label.value
    return StructureReview(
        value=value,
        name=label.name,
        state=state,
        locked=locked,
        volume_ml=counts.volume_ml(value),
        automatic_volume_ml=counts.automatic_volume_ml(value),
        dice=counts.dice(value),
        edited_fraction=counts.edited_fraction(value),
        clicks=effort.clicks.get(value, 0),
        strokes=effort.strokes.get(value, 0),
        active_s=round(effort.active_s.get(value, 0.0), 3),
        drawing_s=round(effort.drawing_s.get(value, 0.0), 3),
    )
