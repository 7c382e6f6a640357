"""Label maps of structures that overlap, as references and as what is scored: one map of sums, or a map a structure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import InputError
from effvit_med.evaluation.alignment import place_on
from effvit_med.io.itk_images import as_segmentation
from effvit_med.io.label_files import has_table, read_labels
from effvit_med.volume import LabelTable, Segmentation, Volume
from effvit_med.volume.counts import find_values

Maps = Path | Mapping[str, Path]
"""A label map whose values are sums, or one map for each structure, in which everything above 0 belongs to it."""


def read_overlapping(
    reference: Maps, found: Path, table: LabelTable | None = None
) -> tuple[Segmentation, Segmentation]:
    """Reference and segmentation of a case in which a voxel may have several structures.

    Args:
        reference: the truth.
        found: a label map of sums.
        table: the structures, whose values are 1, 2, 4, 8, ...; where left out, those that a file tells.

    Returns:
        Both on the reference's grid, with rows for the sums that occur.

    Raises:
        InputError: if a file cannot be read, nobody says what the structures are, their values are no powers of two,
            or a map belongs to none of them.
        GeometryError: if the maps do not share their voxels.
    """
    rows = _find_structures(reference, found, table)
    truth = _read_sums(reference, rows) if isinstance(reference, Path) else _add_up(reference, rows)
    ours = place_on(_read_sums(found, rows), truth.geometry)
    whole = rows.with_sums(find_values(truth.labels) | find_values(ours.labels))
    return _relabel(truth, truth.labels, whole), _relabel(ours, ours.labels, whole)


def _find_structures(reference: Maps, found: Path, table: LabelTable | None) -> LabelTable:
    told = [path for path in (reference, found) if isinstance(path, Path) and has_table(path)]
    if table is None and not told:
        raise InputError(f"Nobody says what the values of {found.name} mean; give a dataset.json with `labels`.")
    rows = LabelTable((table or read_labels(told[0]).table).structures)
    wrong = [label.value for label in rows if label.value & (label.value - 1)]
    if wrong:
        raise InputError(f"Structures that overlap have the values 1, 2, 4, 8, ...; {wrong} are none of these.")
    return rows


def _read_sums(path: Path, rows: LabelTable) -> Segmentation:
    """A label map whose values are those of the structures, or sums of them."""
    read = read_labels(path)
    return _relabel(read, read.labels, rows.with_sums(find_values(read.labels)))


def _add_up(maps: Mapping[str, Path], rows: LabelTable) -> Segmentation:
    """One map of the maps of the structures; a structure without one is not there."""
    unknown = sorted(set(maps) - {label.name for label in rows})
    if unknown or not maps:
        names = [label.name for label in rows]
        raise InputError(f"A case has maps of {unknown or 'no structure'}; the structures are {names}.")
    total: Segmentation | None = None
    for name, path in maps.items():
        read = read_labels(path)
        mine = np.where(read.labels > 0, np.uint16(rows.by_name(name).value), np.uint16(0))
        here = _relabel(read, mine)
        total = here if total is None else _relabel(total, total.labels | place_on(here, total.geometry).labels)
    assert total is not None  # noqa: S101 - there is at least one map
    return total


def _relabel(segmentation: Segmentation, labels: npt.NDArray[Any], table: LabelTable | None = None) -> Segmentation:
    """Other labels in the place of those of a segmentation."""
    place = Volume(labels, segmentation.geometry, source=segmentation.provenance.source)
    return as_segmentation(place, labels, table)
