"""Measurements as CSV for spreadsheets and as JSON for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effvit_med.io.atomic import write_json, write_text
from effvit_med.volume.labels import Code
from effvit_med.volume.measurements import Measurement
from effvit_med.volume.provenance import Provenance

MEASUREMENTS_FORMAT = "effvit-med measurements 1"

_VOLUME_DIGITS = 3  # of a millilitre: a cubic millimetre
_INTENSITY_DIGITS = 2
_CONFIDENCE_DIGITS = 4


def measurement_row(measurement: Measurement) -> dict[str, Any]:
    """One measurement as plain values, rounded for reading; None where a number is not known.

    Args:
        measurement: what was measured of one structure.

    Returns:
        The columns of the CSV table, in their order.
    """
    side = measurement.laterality
    return {
        "structure": measurement.structure,
        "label_value": measurement.value,
        "code_value": measurement.type.value,
        "code_scheme": measurement.type.scheme,
        "code_meaning": measurement.type.meaning,
        "laterality_value": side.value if side else None,
        "laterality_scheme": side.scheme if side else None,
        "laterality_meaning": side.meaning if side else None,
        "voxels": measurement.voxels,
        "volume_ml": _rounded(measurement.volume_ml, _VOLUME_DIGITS),
        "intensity_mean": _rounded(measurement.mean, _INTENSITY_DIGITS),
        "intensity_sd": _rounded(measurement.sd, _INTENSITY_DIGITS),
        "intensity_minimum": _rounded(measurement.minimum, _INTENSITY_DIGITS),
        "intensity_maximum": _rounded(measurement.maximum, _INTENSITY_DIGITS),
        "intensity_unit": measurement.unit,
        "mean_confidence": _rounded(measurement.mean_confidence, _CONFIDENCE_DIGITS),
        "cut_by_field_of_view": measurement.cut_by_field_of_view,
        "reason": measurement.reason,
        "confidence_reason": measurement.confidence_reason,
        "area_mm2": _significant(measurement.area_mm2),
    }


def write_measurements_csv(measurements: Sequence[Measurement], path: Path) -> None:
    """Write a table with one row per structure: UTF-8, comma separated, an empty cell for what is not known.

    Args:
        measurements: what was measured, in the order of the rows.
        path: the file to write.

    Raises:
        OutputError: if the file could not be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for measurement in measurements:
        row = measurement_row(measurement)
        writer.writerow({name: str(cell).lower() if isinstance(cell, bool) else cell for name, cell in row.items()})
    write_text(path, text.getvalue())


def write_measurements_json(measurements: Sequence[Measurement], path: Path, provenance: Provenance) -> None:
    """Write the same rows as JSON, with the notice and the identity of the run; null for what is not known.

    Args:
        measurements: what was measured, in the order of the rows.
        path: the file to write.
        provenance: how the segmentation was made.

    Raises:
        OutputError: if the file could not be written.
    """
    content = {
        "format": MEASUREMENTS_FORMAT,
        "notice": provenance.notice,
        "bundle": provenance.bundle,
        "bundle_version": provenance.bundle_version,
        "identity": provenance.identity(),
        "measurements": [measurement_row(measurement) for measurement in measurements],
    }
    write_json(path, content)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _significant(value: float | None) -> float | None:
    """Six digits: areas range from those of cells to those of skin."""
    return None if value is None else float(f"{value:.6g}")


_COLUMNS = tuple(measurement_row(Measurement("", 0, Code("", ""))))
