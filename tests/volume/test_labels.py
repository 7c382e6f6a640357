"""Facts about `effvit_med.volume.labels`."""

from __future__ import annotations

import pytest

from effvit_med.errors import SettingsError
from effvit_med.volume import Code, Label, LabelTable

LIVER = Label(2, "liver", Code("10200004", "Liver"), colour=(200, 80, 60))
KIDNEY = {"value": 1, "name": "kidney_left", "type": ["64033007", "SCT", "Kidney"], "laterality": "left"}


def test_a_table_survives_plain_values() -> None:
    """To plain values and back is the same table."""
    table = LabelTable((LIVER, *LabelTable.from_dicts([KIDNEY])))
    assert LabelTable.from_dicts(table.to_dicts()) == table


def test_left_becomes_the_snomed_code() -> None:
    """The word left stands for SCT 7771000."""
    laterality = LabelTable.from_dicts([KIDNEY]).by_value(1).laterality
    assert laterality is not None
    assert laterality.value == "7771000"


def test_rows_are_kept_by_value() -> None:
    """The table's order is that of the values, not of the rows given."""
    assert [label.value for label in LabelTable((LIVER, *LabelTable.from_dicts([KIDNEY])))] == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": 0}, "has the value 0"),
        ({"colour": [1, 2]}, r"colour \(1, 2\)"),
        ({"colour": "red"}, "'red'"),
        ({"value": 1.7}, "1.7"),
        ({"type": "Kidney"}, "The code 'Kidney'"),
        ({"laterality": "middle"}, "The code 'middle'"),
        ({"color": [1, 2, 3]}, r"unknown \['color'\]"),
    ],
)
def test_a_wrong_row_is_refused_with_its_value(change: dict[str, object], message: str) -> None:
    """A row that makes no sense is an error that shows what is wrong."""
    with pytest.raises(SettingsError, match=message):
        LabelTable.from_dicts([{**KIDNEY, **change}])


def test_a_value_stands_once() -> None:
    """Two structures cannot share a value."""
    with pytest.raises(SettingsError, match="value 2 more than once"):
        LabelTable((LIVER, LIVER))


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    """Asking for a structure that is not there names those that are."""
    with pytest.raises(SettingsError, match="'spleen'; there are liver"):
        LabelTable((LIVER,)).by_name("spleen")
