"""One thing that a reviewer did, and can undo: voxels, states and locks that changed with it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from effvit_med.errors import InputError, SettingsError
from effvit_med.volume.changes import VoxelChange

STATES = ("unseen", "looked", "edited", "accepted", "rejected")
"""What a reviewer thinks of a structure."""

CLICK_KINDS = frozenset({"click", "point"})
"""Kinds of edits that count as clicks; all others are strokes."""

OWN_KINDS = frozenset({"state", "lock", "reset", "agree"})
"""Kinds of steps that the session makes itself."""

_ALWAYS = ("value", "duration_s")


@runtime_checkable
class PlainPrompt(Protocol):
    """A prompt that can say itself in plain values."""

    def to_dict(self) -> dict[str, Any]:
        """The prompt as plain values for JSON."""


@dataclass(frozen=True)
class Step:
    """One thing that was done.

    Attributes:
        kind: ``click``, ``brush`` and so on for an edit, or one of `OWN_KINDS`.
        value: the structure that it is about; 0 for none in particular.
        change: the `VoxelChange` as text; empty where no voxel changes.
        states: by label value the state before and after.
        locks: by label value whether it was locked before and is after.
        prompt: what the reviewer drew, as plain values.
        duration_s: how long the drawing took, where known.
    """

    kind: str
    value: int
    change: str = ""
    states: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    locks: Mapping[int, tuple[bool, bool]] = field(default_factory=dict)
    prompt: Mapping[str, Any] | None = None
    duration_s: float | None = None

    def voxels(self, *, backwards: bool = False) -> VoxelChange | None:
        """The change of voxels, or the one that takes it back; None where no voxel changes.

        Raises:
            InputError: if its text is damaged.
        """
        if not self.change:
            return None
        change = VoxelChange.from_text(self.change)
        return change.reverse() if backwards else change

    def to_event(self) -> dict[str, Any]:
        """The step as plain values for a line of the journal; what is empty is left out."""
        plain: dict[str, Any] = {"kind": self.kind, "value": int(self.value), "change": self.change}
        plain["states"] = [[int(value), *pair] for value, pair in self.states.items()]
        plain["locks"] = [[int(value), *pair] for value, pair in self.locks.items()]
        plain |= {"prompt": self.prompt, "duration_s": self.duration_s}
        empty = [
            name for name, value in plain.items() if value is None or (isinstance(value, str | list) and not value)
        ]
        return {name: value for name, value in plain.items() if name not in empty}

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Step:
        """The step of a line of the journal.

        Raises:
            InputError: if the line holds none.
        """
        try:
            return cls(
                str(event["kind"]),
                int(event["value"]),
                event.get("change", ""),
                {value: (before, after) for value, before, after in event.get("states", ())},
                {value: (before, after) for value, before, after in event.get("locks", ())},
                event.get("prompt"),
                event.get("duration_s"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"An event of the review is no step: {error!r}.") from error


def agree_step(value: int, box: Sequence[Sequence[int]]) -> Step:
    """A step that says that a place is right as it is: `session.ReviewSession.agree`."""
    place = [[int(start), int(stop)] for start, stop in box]
    return Step("agree", int(value), prompt={"kind": "agree", "box": place})


def check_kind(kind: str) -> None:
    """Make sure that a word can name an edit.

    Raises:
        SettingsError: if it is no word of small letters and dashes, or one of `OWN_KINDS`.
    """
    if kind in OWN_KINDS or not kind.replace("-", "").isalpha() or kind != kind.lower() or len(kind) > 30:
        raise SettingsError(
            f"{kind!r} names no kind of edit; give a word such as click, scribble, box, lasso, brush, erase or fill."
        )


def plain_prompt(prompt: PlainPrompt | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A prompt as plain values for the journal."""
    if prompt is None or isinstance(prompt, Mapping):
        return None if prompt is None else dict(prompt)
    return prompt.to_dict()


def make_event(word: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """What happens now, as plain values for a line of the journal.

    Args:
        word: ``start``, ``resume``, ``step``, ``look``, ``undo`` or ``redo``.
        content: what belongs to it.
    """
    return {"type": word, "time": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"), **content}
