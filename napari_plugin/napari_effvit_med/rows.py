"""What the lists of the review show, line by line, as plain values: neither Qt nor napari."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from effvit_med.volume.measurements import Measurement

Colour = tuple[int, int, int]

STATE_WORDS = {
    "unseen": "unseen",
    "looked": "○ looked at",
    "edited": "✎ edited",
    "accepted": "✓ accepted",
    "rejected": "✗ rejected",
}
"""What each state is called, with a mark that tells it apart without colour."""

NO_VALUE = "–"


@dataclass(frozen=True)
class StructureRow:
    """One structure of the review.

    Attributes:
        value: its label value.
        name: its name.
        colour: red, green and blue, 0 to 255.
        volume_ml: its volume now; None if it is not there.
        doubt_ml: volume that is expected to be labelled wrongly.
        state: a key of `STATE_WORDS`.
        locked: whether it is safe from edits.
        edited_fraction: which part of it differs from the automatic result, 0 to 1.
    """

    value: int
    name: str
    colour: Colour
    volume_ml: float | None
    doubt_ml: float
    state: str
    locked: bool
    edited_fraction: float


@dataclass(frozen=True)
class DoubtRow:
    """One place to look at.

    Attributes:
        number: of the place; what the list sends when it is chosen.
        value: label value of the structure; 0 for background.
        structure: its name.
        colour: its colour, 0 to 255.
        expected_wrong_ml: volume that is expected to be labelled wrongly there.
        message: why, in one sentence.
        slice_number: the slice to show, as the reader counts them.
        seen: whether the reader has been there.
    """

    number: int
    value: int
    structure: str
    colour: Colour
    expected_wrong_ml: float
    message: str
    slice_number: int
    seen: bool


@dataclass(frozen=True)
class MeasurementRow:
    """One structure of the table of measurements.

    Attributes:
        structure: its name.
        volume_ml: its volume; None if it is not there.
        voxels: how many it has; None if it is not there.
        mean: mean of the voxel values, in ``unit``; None if it cannot be said.
        edited_fraction: which part of it differs from the automatic result, 0 to 1.
        remark: what the reader should know; may be empty.
        unit: of the mean; empty if it is not known.
    """

    structure: str
    volume_ml: float | None
    voxels: int | None
    mean: float | None
    edited_fraction: float
    remark: str = ""
    unit: str = ""


def rows_of_measurements(
    measurements: Sequence[Measurement], edited: Mapping[int, float] | None = None
) -> tuple[MeasurementRow, ...]:
    """The lines of the table of measurements, in the order of the measurements.

    Args:
        measurements: as `effvit_med.volume.measurements.measure` gives them.
        edited: by label value, which part of the structure was edited; what is not there was not.

    Examples:
        >>> from effvit_med.volume import Code
        >>> cut = Measurement("liver", 1, Code("10200004", "Liver"), None, 8, 1.5, 40.0, cut_by_field_of_view=True)
        >>> row, = rows_of_measurements([cut], {1: 0.25})
        >>> row.volume_ml, row.edited_fraction, row.remark
        (1.5, 0.25, 'reaches the border of the scan')
    """
    return tuple(
        MeasurementRow(
            structure=each.structure,
            volume_ml=each.volume_ml,
            voxels=each.voxels,
            mean=each.mean,
            edited_fraction=(edited or {}).get(each.value, 0.0),
            remark=_remark(each),
            unit=each.unit,
        )
        for each in measurements
    )


def _remark(measurement: Measurement) -> str:
    cut = "reaches the border of the scan" if measurement.cut_by_field_of_view else ""
    return "; ".join(part for part in (measurement.reason, cut) if part)


def measurements_to_tsv(rows: Sequence[MeasurementRow]) -> str:
    r"""The table of measurements for a spreadsheet: titles, then a line per structure; empty where no number is.

    Args:
        rows: the lines.

    Examples:
        >>> print(measurements_to_tsv([MeasurementRow("liver", 1523.4, 812000, None, 0.126)]).replace("\t", "|"))
        structure|volume_ml|voxels|mean|unit|edited_percent|remark
        liver|1523.4|812000|||12.6|
        <BLANKLINE>
    """
    titles = ("structure", "volume_ml", "voxels", "mean", "unit", "edited_percent", "remark")
    lines = [titles, *(_cells(row) for row in rows)]
    return "".join("\t".join(" ".join(cell.split()) for cell in line) + "\n" for line in lines)


def _cells(row: MeasurementRow) -> tuple[str, ...]:
    volume = "" if row.volume_ml is None else f"{row.volume_ml:.7g}"
    mean = "" if row.mean is None else f"{row.mean:.7g}"
    voxels = "" if row.voxels is None else str(row.voxels)
    return row.structure, volume, voxels, mean, row.unit, f"{100 * row.edited_fraction:.4g}", row.remark


def describe_ml(volume_ml: float | None) -> str:
    """A volume in mL as a list shows it: with as many digits as are of use.

    Examples:
        >>> [describe_ml(volume) for volume in (None, 0.0, 0.042, 7.25, 153.04, 1523.4)]
        ['–', '0', '0.04', '7.2', '153.0', '1523']
    """
    if volume_ml is None:
        return NO_VALUE
    if volume_ml == 0:
        return "0"
    digits = 2 if volume_ml < 1 else 1 if volume_ml < 1000 else 0
    return f"{volume_ml:.{digits}f}"


def describe_share(fraction: float) -> str:
    """A part of a whole in per cent; never 0 where it is above, nor 100 where it is below.

    Examples:
        >>> [describe_share(fraction) for fraction in (0, 0.001, 0.126, 0.999, 1)]
        ['0 %', '< 1 %', '13 %', '> 99 %', '100 %']
    """
    if 0 < fraction < 0.01:
        return "< 1 %"
    if 0.99 < fraction < 1:
        return "> 99 %"
    return f"{fraction * 100:.0f} %"


def describe_doubts(rows: Sequence[DoubtRow]) -> str:
    """How many places there are to look at, and how much is likely wrong in all of them.

    Examples:
        >>> row = DoubtRow(0, 1, "liver", (0, 0, 0), 0.8, "", 4, seen=False)
        >>> describe_doubts([]), describe_doubts([row])
        ('Nothing in doubt', '1 place, about 0.80 mL likely wrong')
    """
    if not rows:
        return "Nothing in doubt"
    places = "1 place" if len(rows) == 1 else f"{len(rows)} places"
    return f"{places}, about {describe_ml(sum(row.expected_wrong_ml for row in rows))} mL likely wrong"
