"""Labels on the reference's own grid, without resampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import GeometryError
from effvit_med.evaluation.alignment import place_on
from effvit_med.io.itk_images import as_segmentation
from effvit_med.volume import Geometry, Segmentation, Volume
from tests.evaluation.parts import TABLE, labelled

LABELS = np.random.default_rng(0).integers(0, 3, (5, 6, 7)).astype(np.uint8)


@given(st.permutations(["SI", "PA", "LR"]), st.tuples(*[st.integers(0, 1)] * 3))
def test_the_order_of_axes_does_not_matter(letters: list[str], ends: tuple[int, int, int]) -> None:
    """Transposed and flipped in any way, the labels come back voxel for voxel."""
    plain = labelled(LABELS, (1, 2, 3))
    turned = plain.reoriented("".join(pair[end] for pair, end in zip(letters, ends, strict=True)))
    assert np.array_equal(place_on(turned, plain.geometry).labels, LABELS)


def _slices(kept: list[int]) -> Segmentation:
    """Some of the slices, at their true places."""
    affine = np.eye(4)
    affine[0, 3] = kept[0]
    offsets = tuple(float(k - kept[0]) for k in kept)
    even = offsets == tuple(range(len(kept)))
    geometry = Geometry(affine, (len(kept), 6, 7), slice_offsets=None if even else offsets)
    return as_segmentation(Volume(LABELS[kept], geometry), LABELS[kept], TABLE)


@pytest.mark.parametrize("kept", [[1, 2, 3], [0, 1, 4], [2]])
def test_empty_slices_that_a_dicom_seg_leaves_out_are_filled_in(kept: list[int]) -> None:
    """The slices that are there lie where they were; the others are background."""
    placed = place_on(_slices(kept), labelled(LABELS).geometry, sparse=True)
    expected = np.zeros_like(LABELS)
    expected[kept] = LABELS[kept]
    assert np.array_equal(placed.labels, expected)


def test_a_part_of_the_slices_is_refused_where_nothing_says_that_the_rest_is_empty() -> None:
    """A NIfTI of half the scan says nothing of the other half."""
    with pytest.raises(GeometryError, match="mm apart"):
        place_on(_slices([1, 2, 3]), labelled(LABELS).geometry)


@pytest.mark.parametrize("shift_mm", [(0.4, 0, 0), (0, 0.4, 0), (0, 0, 1.0), (9, 0, 0)])
def test_slices_that_are_none_of_the_reference_are_refused(shift_mm: tuple[float, float, float]) -> None:
    """Between two slices, beside them, or beyond the last."""
    part = _slices([1, 2, 3])
    affine = part.geometry.affine.copy()
    affine[:3, 3] += shift_mm
    moved = Segmentation(part.labels, Geometry(affine, part.geometry.shape), TABLE, part.provenance)
    with pytest.raises(GeometryError, match="mm apart"):
        place_on(moved, labelled(LABELS).geometry, sparse=True)
