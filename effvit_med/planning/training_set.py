"""A data set to train on: its cases, what its label values mean, and which cases belong together."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from effvit_med.engine.head import Head
from effvit_med.errors import InputError, SettingsError
from effvit_med.volume import Finding, Label, LabelTable
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE, LATERALITIES

_COLOURS = (
    (230, 97, 1),
    (94, 60, 153),
    (0, 136, 55),
    (33, 102, 172),
    (178, 24, 43),
    (127, 188, 65),
    (241, 182, 24),
    (53, 151, 143),
    (197, 27, 125),
    (140, 81, 10),
)


@dataclass(frozen=True)
class TrainingCase:
    """One image with its labels.

    Attributes:
        case_id: its name.
        image: path of the image.
        label: path of its label map.
        group: what cases share that must lie on one side of every split, such as the patient.
        annotated: the structures that were looked for in it, by their names; None for all.
    """

    case_id: str
    image: Path
    label: Path
    group: str
    annotated: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TrainingSet:
    """A data set to train on.

    Attributes:
        name: of the data set.
        layout: ``decathlon``, ``nnU-Net`` or ``folders``.
        cases: in the order of their names.
        table: what the label values mean; None where nothing says it, until the labels are read.
        head: what a network's outputs are to stand for: classes, or regions where the data set describes them.
        ignore: the label value of voxels about which nothing is said; None if there is none.
        modality: DICOM Modality, such as ``MR``; empty if nothing says it.
        given_split: the cases that the data set itself sets aside for validation; empty where it sets none aside.
        licence: of the data, where the data set says it.
        reference: whom the data come from, where the data set says it.
        findings: what was noticed on the way.
    """

    name: str
    layout: str
    cases: tuple[TrainingCase, ...]
    table: LabelTable | None = None
    head: Head = field(default_factory=Head)
    ignore: int | None = None
    modality: str = ""
    given_split: frozenset[str] = frozenset()
    licence: str = ""
    reference: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def root(self) -> Path:
        """The folder that all images and label maps lie under; of several drives, the first's."""
        folders = [path.parent.resolve() for case in self.cases for path in (case.image, case.label)]
        try:
            return Path(os.path.commonpath(folders))
        except ValueError:
            return folders[0]

    def grouped_by(self, pattern: str) -> TrainingSet:
        """The same with groups cut out of the cases' names.

        Args:
            pattern: a regular expression; what its first bracket finds in a name, or else all it finds, is the group.

        Raises:
            SettingsError: if it is no regular expression, or finds nothing in some name.
        """
        try:
            wanted = re.compile(pattern)
        except re.error as error:
            raise SettingsError(f"The group pattern {pattern!r} is no regular expression: {error}.") from error
        cases = []
        for case in self.cases:
            found = wanted.search(case.case_id)
            group = (found[1] if wanted.groups else found[0]) if found else None
            if not group:
                raise SettingsError(f"The group pattern {pattern!r} finds nothing in the name {case.case_id!r}.")
            cases.append(replace(case, group=group))
        return replace(self, cases=tuple(cases))

    def naming(self, structures: Mapping[int, str]) -> TrainingSet:
        """The same with names for label values that nothing else names, or other names for some.

        Args:
            structures: names by label value.

        Raises:
            SettingsError: if a value is no label value, or a name stands twice.
        """
        if not structures:
            return self
        names = {label.value: label.name for label in self.table or ()} | dict(structures)
        return replace(self, table=make_table(names))


def order_cases(cases: Iterable[TrainingCase], place: Path) -> tuple[TrainingCase, ...]:
    """Cases in the order of their names.

    Args:
        cases: with files that are there.
        place: where they are listed, for the error.

    Raises:
        InputError: if there is no case, two have one name, or a file of one is not there; all that are missing are
            counted.
    """
    ordered = tuple(sorted(cases, key=lambda case: case.case_id))
    if not ordered:
        raise InputError(f"{place} lists no labelled case to train on.")
    twice = sorted({a.case_id for a, b in itertools.pairwise(ordered) if a.case_id == b.case_id})
    if twice:
        raise InputError(f"{place} has several cases of the names {', '.join(twice[:5])}; names must differ.")
    missing = [path for case in ordered for path in (case.image, case.label) if not path.exists()]
    if missing:
        raise InputError(f"{place} names {len(missing)} files that are not there, such as {missing[0]}.")
    return ordered


def structure_name(name: str) -> str:
    """A structure's name as tables and files have it.

    Examples:
        >>> structure_name(" Left kidney")
        'left_kidney'
    """
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")


def make_table(names: Mapping[int, str]) -> LabelTable | None:
    """A label table from names by value; None where no value is above 0.

    Args:
        names: by label value; 0 is background and has no row. A side that a name tells is kept as laterality.

    Raises:
        SettingsError: if a value is no label value, or a name stands twice.

    Examples:
        >>> [(row.name, row.laterality is not None) for row in make_table({0: "background", 3: "Left kidney"})]
        [('left_kidney', True)]
    """
    rows = [_label(value, name, number) for number, (value, name) in enumerate(sorted(names.items())) if value != 0]
    return LabelTable(tuple(rows)) if rows else None


def _label(value: int, name: str, number: int) -> Label:
    plain = structure_name(name) or f"label_{value}"
    words = plain.split("_")
    side = next((LATERALITIES[word] for word in ("left", "right") if word in words), None)
    return Label(value, plain, ANATOMICAL_STRUCTURE, laterality=side, colour=_COLOURS[number % len(_COLOURS)])
