"""The rows of the review's lists, without Qt."""

from __future__ import annotations

from effvit_med.volume import Code
from effvit_med.volume.measurements import NOT_FOUND, Measurement
from napari_effvit_med.rows import rows_of_measurements

_LIVER = Code("10200004", "Liver")


def test_a_structure_that_is_not_there_has_no_numbers_and_a_reason() -> None:
    """None stays None, never 0."""
    (row,) = rows_of_measurements([Measurement("liver", 1, _LIVER, reason=NOT_FOUND)])
    assert (row.volume_ml, row.voxels, row.mean, row.edited_fraction) == (None, None, None, 0.0)
    assert row.remark == NOT_FOUND


def test_edited_fractions_go_by_value() -> None:
    """Whatever the order of the measurements is."""
    found = [Measurement("spleen", 3, _LIVER), Measurement("liver", 1, _LIVER)]
    rows = rows_of_measurements(found, {1: 0.5, 3: 0.125})
    assert [(row.structure, row.edited_fraction) for row in rows] == [("spleen", 0.125), ("liver", 0.5)]
