"""What was done in a session, so that it can be done again: by the same network, or by another one for comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from effvit_med import NOT_FOR_CLINICAL_USE
from effvit_med.errors import GeometryError, InputError, SettingsError
from effvit_med.io.atomic import write_json
from effvit_med.volume import Geometry, Label, LabelTable
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE
from effvit_med.volume.prompts import Prompt

FORMAT = "effvit-med prompts 1"
Kind = Literal["prompt", "carry", "undo", "redo"]


@dataclass(frozen=True)
class Event:
    """One thing that was done.

    Attributes:
        kind: ``prompt``; ``carry`` (from a slice to its neighbours); ``undo`` or ``redo``.
        prompt: of a ``prompt``, in indices of the scan.
        value: of the structure, of a ``carry``.
        detail: of a ``carry`` its numbers.
    """

    kind: Kind
    prompt: Prompt | None = None
    value: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` reads them back."""
        row: dict[str, Any] = {"kind": self.kind}
        if self.prompt is not None:
            row["prompt"] = self.prompt.to_dict()
        if self.value is not None:
            row |= {"value": self.value, "detail": dict(self.detail)}
        return row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Event:
        """The event that `to_dict` wrote; a prompt may stand there by itself.

        Args:
            row: plain values.

        Raises:
            InputError: if they make no event.
        """
        try:
            kind = row["kind"]
            if kind not in get_args(Kind):
                return cls("prompt", Prompt.from_dict(row))
            if kind == "prompt":
                return cls(kind, Prompt.from_dict(row["prompt"]))
            if kind == "carry":
                detail = dict(row.get("detail", {}))
                if not all(isinstance(each, int | float) for each in detail.values()):
                    raise ValueError(f"the detail of a carrying holds numbers, not {detail!r}")
                return cls(kind, value=int(row["value"]), detail=detail)
            return cls(kind)
        except GeometryError as error:
            raise InputError(str(error)) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{row!r} is no prompt and no event of a session ({error}).") from error


def write_log(path: Path, events: Sequence[Event], about: Mapping[str, Any] | None = None) -> None:
    """Write what was done as JSON; the file appears whole or not at all.

    Args:
        path: the file.
        events: in order.
        about: plain values that stand beside them, such as the names of the structures.

    Raises:
        OutputError: if it cannot be written.
    """
    rows = [event.to_dict() for event in events]
    write_json(path, {"format": FORMAT, "notice": NOT_FOR_CLINICAL_USE, **(about or {}), "events": rows})


def read_log(path: Path, geometry: Geometry | None = None) -> tuple[list[Event], dict[str, Any]]:
    """What was done, and what stands beside it.

    Args:
        path: a file of `write_log`, or one that holds nothing but ``{"events": [...]}``, each a prompt or an event. A
            prompt may say ``world`` (LPS mm) in place of ``index``.
        geometry: where the scan's voxels lie, for such prompts.

    Raises:
        InputError: if the file cannot be read or holds something else; it names the entry.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON: {error}.") from error
    rows = content if isinstance(content, list) else content.get("events") if isinstance(content, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{path} holds no list of prompts under 'events'.")
    events = []
    for number, row in enumerate(rows, 1):
        try:
            events.append(Event.from_dict(_to_index(row, geometry)))
        except InputError as error:
            raise InputError(f"{path}, entry {number}: {error}") from error
    about = {key: value for key, value in content.items() if key != "events"} if isinstance(content, dict) else {}
    return events, about


def read_names(about: Mapping[str, Any]) -> tuple[Label, ...]:
    """What the structures of a log are: full rows of a label table, or names alone.

    Args:
        about: what stands beside the events; its ``labels`` are by value.

    Raises:
        InputError: if they are no names.
    """
    rows = about.get("labels", {})
    try:
        found = []
        for value, row in dict(rows).items():
            if isinstance(row, str):
                found.append(Label(int(value), row, ANATOMICAL_STRUCTURE))
            else:
                found += LabelTable.from_dicts([row])
        return tuple(found)
    except (SettingsError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"The labels of a log are {rows!r}; give names by value, such as {{'1': 'liver'}}.") from error


def _to_index(row: Any, geometry: Geometry | None) -> Any:
    """An entry whose places are array indices, whatever it says them in."""
    inner = row.get("prompt") if isinstance(row, dict) else None
    if isinstance(inner, dict):
        return {**row, "prompt": _to_index(inner, geometry)}
    if not isinstance(row, dict) or "world" not in row:
        return row
    if geometry is None:
        raise InputError("A prompt says its place in mm; the scan's geometry is needed to find it.")
    try:
        world = np.asarray(row["world"], np.float64)
        index = geometry.world_to_index(world.reshape(-1, 3))
    except (TypeError, ValueError) as error:
        raise InputError(f"world is {row['world']!r}; give places of three numbers each, in LPS mm.") from error
    return {**{key: value for key, value in row.items() if key != "world"}, "index": index.tolist()}
