"""One table that says what each label value means; it feeds every output."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effvit_med.errors import SettingsError


@dataclass(frozen=True)
class Code:
    """A coded concept of a terminology.

    Attributes:
        value: the code, such as ``10200004``.
        meaning: the terminology's words for it, such as ``Liver``.
        scheme: DICOM coding scheme designator; ``SCT`` is SNOMED CT.

    Source:
        DICOM PS3.3 section 8 (Coding of Entry Data).
    """

    value: str
    meaning: str
    scheme: str = "SCT"


ANATOMICAL_STRUCTURE = Code("91723000", "Anatomical Structure")
LATERALITIES = {
    "left": Code("7771000", "Left"),
    "right": Code("24028007", "Right"),
    "both": Code("51440002", "Right and left"),
}


@dataclass(frozen=True)
class Label:
    """One structure of a label table.

    Attributes:
        value: the number in the label array, at least 1.
        name: a short name in lower case for tables and file names, such as ``kidney_left``.
        type: what the structure is (DICOM Segmented Property Type).
        category: the kind of thing it is (DICOM Segmented Property Category).
        laterality: left, right or both as a code, or None where a side makes no sense.
        colour: red, green, blue, each 0 to 255.
        members: values of the structures that all lie where this row's value stands; empty for a structure itself.
    """

    value: int
    name: str
    type: Code
    category: Code = ANATOMICAL_STRUCTURE
    laterality: Code | None = None
    colour: tuple[int, int, int] = (255, 0, 0)
    members: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The label as plain values, as `LabelTable.from_dicts` takes them."""
        codes = {"category": self.category, "type": self.type, "laterality": self.laterality}
        coded = {name: code and [code.value, code.scheme, code.meaning] for name, code in codes.items()}
        sums = {"members": list(self.members)} if self.members else {}
        return {"value": self.value, "name": self.name, **coded, "colour": list(self.colour), **sums}


@dataclass(frozen=True)
class LabelTable:
    """The structures a label array can hold; 0 is background and has no row.

    Args:
        labels: the rows, in any order; they are kept by rising value.

    Raises:
        SettingsError: if a value is below 1 or above 65535, a value or name stands twice, or a colour is not three
            numbers from 0 to 255.

    Examples:
        >>> table = LabelTable((Label(1, "liver", Code("10200004", "Liver")),))
        >>> table.by_name("liver").value
        1
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        values = [str(label.value) for label in self.labels]
        names = [label.name for label in self.labels]
        for kind, entries in (("value", values), ("name", names)):
            twice = sorted({entry for entry in entries if entries.count(entry) > 1})
            if twice:
                raise SettingsError(f"The label table has the {kind} {', '.join(twice)} more than once.")
        for label in self.labels:
            if not 1 <= label.value <= 65535:
                raise SettingsError(f"Label {label.name!r} has the value {label.value}; it must be 1 to 65535.")
            if [0 <= part <= 255 for part in label.colour] != [True] * 3:
                raise SettingsError(
                    f"Label {label.name!r} has the colour {label.colour}; give 3 numbers from 0 to 255."
                )
        object.__setattr__(self, "labels", tuple(sorted(self.labels, key=lambda label: label.value)))

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def by_name(self, name: str) -> Label:
        """The label of a name.

        Raises:
            SettingsError: if no label has the name.
        """
        for label in self.labels:
            if label.name == name:
                return label
        raise SettingsError(
            f"There is no structure {name!r}; there are {', '.join(each.name for each in self.labels)}."
        )

    def by_value(self, value: int) -> Label:
        """The label of a value.

        Raises:
            SettingsError: if no label has the value.
        """
        for label in self.labels:
            if label.value == value:
                return label
        raise SettingsError(
            f"No structure has the label value {value}; there are {[each.value for each in self.labels]}."
        )

    @property
    def structures(self) -> tuple[Label, ...]:
        """The rows that are structures themselves, and no sums of some that overlap."""
        return tuple(label for label in self.labels if not label.members)

    @property
    def overlaps(self) -> bool:
        """Whether a row stands for structures that overlap."""
        return len(self.structures) < len(self.labels)

    def with_sums(self, values: Collection[int]) -> LabelTable:
        """The table of a label map in which a sum of values means that the structures of these values overlap.

        Args:
            values: the values in the map; those that are no sums of the rows' values are left to others to refuse.

        Examples:
            >>> rows = [Label(1, "heart", Code("80891009", "Heart")), Label(2, "fat", Code("55603005", "Adipose"))]
            >>> LabelTable(tuple(rows)).with_sums({0, 2, 3}).by_value(3).name
            'heart+fat'
        """
        rows = {label.value: label for label in self.labels}
        for value in sorted(set(values) - {0, *rows}):
            parts = [label for label in self.structures if label.value & value]
            if sum(part.value for part in parts) == value:
                rows[value] = _overlap(value, parts)
        return LabelTable(tuple(rows.values()))

    def values_with(self, label: Label) -> tuple[int, ...]:
        """The label values at which a structure lies: its own, and those of the sums that it is part of.

        Args:
            label: a structure of the table.
        """
        return (label.value, *(each.value for each in self.labels if label.value in each.members))

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as plain values for JSON and YAML."""
        return [label.to_dict() for label in self.labels]

    @classmethod
    def from_dicts(cls, rows: Sequence[Mapping[str, Any]]) -> LabelTable:
        """A table from plain values.

        Args:
            rows: mappings with ``value``, ``name``, ``type`` and optionally ``category``, ``laterality``,
                ``colour`` and ``members``; a code is ``[value, scheme, meaning]``, a laterality also
                ``left``, ``right`` or ``both``.

        Raises:
            SettingsError: if a row lacks a key, has an unknown one, or a code is not three texts.
        """
        return cls(tuple(_label(row) for row in rows))


def _overlap(value: int, parts: Sequence[Label]) -> Label:
    red, green, blue = (sum(part.colour[i] for part in parts) // len(parts) for i in range(3))
    name, members = "+".join(part.name for part in parts), tuple(part.value for part in parts)
    return Label(value, name, ANATOMICAL_STRUCTURE, colour=(red, green, blue), members=members)


def _label(row: Mapping[str, Any]) -> Label:
    known = {"value", "name", "type", "category", "laterality", "colour", "members"}
    missing, unknown = {"value", "name", "type"} - set(row), set(row) - known
    if missing or unknown:
        raise SettingsError(f"The label row {dict(row)} lacks {sorted(missing)} and has unknown {sorted(unknown)}.")
    laterality = row.get("laterality")
    category = row.get("category")
    value, colour = row["value"], row.get("colour", (255, 0, 0))
    if not isinstance(value, int):
        raise SettingsError(f"The value of the label row {dict(row)} is {value!r}; it must be a whole number.")
    if isinstance(colour, str) or not isinstance(colour, Sequence) or not all(isinstance(p, int) for p in colour):
        raise SettingsError(f"The colour of the label row {dict(row)} is {colour!r}; give three numbers, 0 to 255.")
    return Label(
        value=value,
        name=str(row["name"]),
        type=_code(row["type"]),
        category=ANATOMICAL_STRUCTURE if category is None else _code(category),
        laterality=None if laterality is None else LATERALITIES.get(str(laterality)) or _code(laterality),
        colour=tuple(colour),
        members=tuple(int(member) for member in row.get("members", ())),
    )


def _code(entry: object) -> Code:
    if isinstance(entry, str) or not isinstance(entry, Sequence) or len(entry) != 3:
        raise SettingsError(
            f"The code {entry!r} must be [value, scheme, meaning], such as ['10200004', 'SCT', 'Liver']."
        )
    value, scheme, meaning = (str(part) for part in entry)
    return Code(value, meaning, scheme)
