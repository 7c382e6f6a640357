"""Structures that overlap in one label map: their values are powers of two, a voxel has the sum of what is there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.volume.labels import Label, LabelTable


def take_structure(labels: npt.NDArray[np.unsignedinteger], value: int, *, overlaps: bool) -> npt.NDArray[np.bool_]:
    """Where a structure is.

    Args:
        labels: label values, of any shape.
        value: that of the structure.
        overlaps: whether values are sums.

    Examples:
        >>> labels = np.array([0, 1, 2, 3], np.uint8)
        >>> take_structure(labels, 1, overlaps=True).tolist(), take_structure(labels, 1, overlaps=False).tolist()
        ([False, True, False, True], [False, True, False, False])
    """
    if not overlaps:
        return labels == value
    return np.bitwise_and(labels, value, dtype=np.uint16) == value


def count_structures(counts: npt.NDArray[Any], table: LabelTable) -> npt.NDArray[Any]:
    """What was counted by label value as what belongs to each structure; columns of sums become 0.

    Args:
        counts: (..., values), with a column for each value of the table.
        table: says which values are sums.

    Examples:
        >>> from effvit_med.volume.labels import Code
        >>> rows = (Label(1, "heart", Code("80891009", "Heart")), Label(2, "fat", Code("55603005", "Adipose")))
        >>> count_structures(np.array([9, 1, 2, 4]), LabelTable(rows).with_sums([3])).tolist()
        [9, 5, 6, 0]
    """
    if not table.overlaps:
        return counts
    result = counts.copy()
    for label in table.structures:
        result[..., label.value] = counts[..., list(table.values_with(label))].sum(axis=-1)
    result[..., [label.value for label in table if label.members]] = 0
    return result


def each_structure(
    labels: npt.NDArray[np.unsignedinteger], table: LabelTable
) -> Iterator[tuple[Label, npt.NDArray[np.unsignedinteger]]]:
    """Each structure with a label map of itself alone, one at a time.

    Args:
        labels: label values, of any shape.
        table: what they mean.
    """
    for label in table.structures:
        inside = take_structure(labels, label.value, overlaps=table.overlaps)
        yield (
            label,
            np.multiply(inside, label.value, dtype=np.promote_types(labels.dtype, np.min_scalar_type(label.value))),
        )
