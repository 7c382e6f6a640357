"""Label maps with what is known of each voxel: ignored, or in a case where not everything was annotated.

A network learns from one number a voxel, which must survive cropping, turning and collating. Numbers from 0 on are
classes (0 background, i the i-th label); 255 marks what is ignored; from 254 downwards stand the combinations that
cases with unannotated structures need, such as "background, or the spleen, which nobody drew here".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.engine.head import Head
from effvit_med.engine.model import IGNORED, Model
from effvit_med.errors import InputError, SettingsError
from effvit_med.volume import LabelTable

ABSENT, PRESENT, UNKNOWN = 0, 1, 2
"""What is known of an output at a voxel."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class LabelCodes:
    """What each number of a label map says of each output of the network.

    With a softmax head an output that is not annotated is merged with background: a voxel that nothing was drawn at
    has one of several classes. With regions, an output that is not annotated is not known anywhere in the case.

    Args:
        head: what the outputs stand for; not of the kind overlapping, whose label maps have a channel for each output.
        labels: the model's label table.
        annotations: the sets of annotated outputs that occur beside "all of them", each by names.

    Attributes:
        known: (256, outputs) for each number `ABSENT`, `PRESENT` or `UNKNOWN`; with a softmax head the outputs that are
            `UNKNOWN` are those of which one is there.

    Raises:
        SettingsError: if a name is not one of the head's, or there are more combinations than numbers.

    Examples:
        >>> from effvit_med.engine import read_model
        >>> model = read_model()
        >>> codes = LabelCodes(model.head, model.labels, [["liver", "spine"]])
        >>> codes.encode(np.array([0, 1, 5, 255], np.uint8), ["spine", "liver"]).tolist()
        [254, 1, 5, 255]
    """

    head: Head
    labels: LabelTable
    annotations: Sequence[Sequence[str]] = ()
    known: Bytes = field(init=False)
    _tables: dict[frozenset[str], Bytes] = field(init=False)

    def __post_init__(self) -> None:
        if self.head.kind == "overlapping":
            raise SettingsError("Label maps of overlapping structures have a channel for each; they need no codes.")
        plain = self._plain()
        known = np.full((256, plain.shape[1]), UNKNOWN, np.uint8)
        known[: len(plain)] = plain
        numbers = {row.tobytes(): number for number, row in enumerate(plain)} | {known[IGNORED].tobytes(): IGNORED}
        tables = {}
        for each in sorted({tuple(sorted(names)) for names in self.annotations}):
            table = np.full(256, IGNORED, np.uint8)
            for number, row in enumerate(self._partial(plain, each)):
                code = numbers.setdefault(row.tobytes(), IGNORED - (len(numbers) - len(plain)))
                if len(numbers) > 256:
                    raise SettingsError(
                        f"Cases have {len(self.annotations)} different sets of annotated structures of {len(plain)} "
                        "classes; label maps have 256 numbers, too few for that."
                    )
                known[code] = row
                table[number] = code
            tables[frozenset(each)] = table
        object.__setattr__(self, "known", known)
        object.__setattr__(self, "_tables", tables)

    def encode(self, classes: Bytes, annotated: Sequence[str] | None) -> Bytes:
        """The numbers of a case.

        Args:
            classes: class numbers, and `IGNORED`.
            annotated: the names of what was annotated in the case; None for everything.

        Raises:
            SettingsError: if the set is none of ``annotations``.
        """
        if annotated is None:
            return classes
        table = self._tables.get(frozenset(annotated))
        if table is None:
            raise SettingsError(
                f"A case has {sorted(annotated)} annotated; listed are {[sorted(each) for each in self._tables]}. "
                "Make the list of all cases with effvit_med.training.label_codes.list_annotations."
            )
        return table[classes]

    def _plain(self) -> Bytes:
        """What each class says of each output where everything was annotated."""
        plain = np.zeros((len(self.labels) + 1, len(self.head.names(self.labels))), np.uint8)
        for output, classes in enumerate(self.head.truth_of(self.labels)):
            plain[list(classes), output] = PRESENT
        if len(plain) > IGNORED:
            raise SettingsError(f"{len(plain)} classes; a label map to train on has at most {IGNORED}.")
        return plain

    def _partial(self, plain: Bytes, annotated: Sequence[str]) -> Bytes:
        missing = missing_outputs(self.head, self.labels, annotated)
        rows = plain.copy()
        if self.head.kind == "softmax":
            if missing:
                rows[0, [0, *missing]] = UNKNOWN
        else:
            rows[:, missing] = UNKNOWN
        return rows


def missing_outputs(head: Head, labels: LabelTable, annotated: Sequence[str]) -> list[int]:
    """The outputs that were not annotated; never background.

    Args:
        head: what the outputs stand for.
        labels: the model's label table.
        annotated: the names of those that were.

    Raises:
        SettingsError: if a name is not one of the head's.
    """
    names = head.names(labels)
    first = 1 if head.kind == "softmax" else 0
    unknown = sorted(set(annotated) - set(names[first:]))
    if unknown:
        raise SettingsError(f"annotated names {', '.join(unknown)}; the outputs are {', '.join(names[first:])}.")
    return [number for number, name in enumerate(names) if number >= first and name not in annotated]


def list_annotations(cases: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """The sets of annotated structures that occur in cases, for the loss and for what prepares label maps.

    Args:
        cases: as `effvit_med.training.data.read_datalist` gives them; all that training and validation use.

    Examples:
        >>> list_annotations([{"image": "a"}, {"annotated": ["spleen", "liver"]}, {"annotated": ["liver", "spleen"]}])
        [['liver', 'spleen']]
    """
    return [list(each) for each in sorted({tuple(sorted(case["annotated"])) for case in cases if "annotated" in case})]


def case_entries(row: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """What a row of a list of cases says, with absolute paths.

    Args:
        row: ``image``, ``label`` (a path, or for overlapping structures a mapping of their names to paths) and
            ``annotated`` where not everything was annotated.
        root: the folder that its paths start from.

    Raises:
        KeyError: if an entry is missing.
        TypeError: if a path is none.
        InputError: if ``annotated`` is no list of names.
    """
    label, annotated = row["label"], row.get("annotated")
    entries: dict[str, Any] = {"image": str((root / row["image"]).resolve())}
    if isinstance(label, Mapping):
        entries["label"] = {str(name): str((root / path).resolve()) for name, path in label.items()}
    else:
        entries["label"] = str((root / label).resolve())
    if annotated is not None:
        if not isinstance(annotated, list) or not all(isinstance(name, str) for name in annotated):
            raise InputError(f"annotated is {annotated!r}; give a list of the names of what was annotated.")
        entries["annotated"] = annotated
    return entries


def codes_of(model: Model, annotations: Sequence[Sequence[str]] = ()) -> LabelCodes:
    """The codes of a model's label maps; as of `LabelCodes`."""
    return LabelCodes(model.head, model.labels, annotations)
