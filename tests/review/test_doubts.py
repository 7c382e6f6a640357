"""Doubts stand where the network was unsure, are as large as they are, and leave borders alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.errors import GeometryError
from effvit_med.review.doubts import LARGEST_MM, PLACED, find_doubts, list_reasons, measure_strip
from effvit_med.volume import Code, Finding, Geometry, Label, LabelTable
from effvit_med.volume.quality import CaseQuality, StructureQuality

SHAPE = (40, 64, 64)
GRID = Geometry(np.diag([2.0, 1.0, 1.0, 1.0]), SHAPE)


def make_result(unsure=()):
    """A ball of structure 1 of 24 mm with an unsure border of about two voxels, and more unsure boxes."""
    axes = [(np.arange(size) - size / 2) * step for size, step in zip(SHAPE, GRID.spacing_mm, strict=True)]
    radius = np.sqrt(axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2)
    labels = (radius < 24).astype(np.uint8)
    confidence = np.where(np.abs(radius - 24) < 1, 60, 255).astype(np.uint8)
    for box, level in unsure:
        confidence[box] = level
    return labels, confidence


def test_an_unsure_border_is_nothing_to_look_at():
    """The thin shell along a border makes no doubt, and no giant one."""
    assert find_doubts(*make_result(), GRID) == ()


def test_an_unsure_place_is_found_where_it_is():
    """A box of low confidence inside a structure is the first doubt, with its own volume and an index inside."""
    box = np.s_[12:21, 24:36, 24:36]
    labels, confidence = make_result([(box, 51)])
    doubt = find_doubts(labels, confidence, GRID)[0]
    assert doubt.value == 1
    assert doubt.box == ((12, 21), (24, 36), (24, 36))
    assert doubt.expected_wrong_ml == pytest.approx(9 * 12 * 12 * 2 * 0.4 / 1000, rel=1e-5)
    assert all(start <= at < stop for at, (start, stop) in zip(doubt.index, doubt.box, strict=True))
    assert doubt.slices == box
    assert "1 mL" in doubt.message


def test_the_largest_expected_wrong_volume_comes_first():
    """A small place that is a tie stands behind a large one that is less unsure."""
    unsure = [(np.s_[12:15, 24:32, 24:32], 0), (np.s_[21:30, 24:40, 24:40], 102)]
    doubts = find_doubts(*make_result(unsure), GRID)
    assert [doubt.box[0] for doubt in doubts] == [(21, 30), (12, 15)]


def test_what_is_settled_is_in_no_doubt():
    """A doubt goes when the reader has agreed to its voxels; another stays."""
    unsure = [(np.s_[12:15, 24:36, 24:36], 51), (np.s_[21:27, 24:36, 24:36], 51)]
    labels, confidence = make_result(unsure)
    settled = np.zeros(SHAPE, bool)
    settled[21:27, 24:36, 24:36] = True
    assert [doubt.box[0] for doubt in find_doubts(labels, confidence, GRID, settled=settled)] == [(12, 15)]


def test_a_place_without_a_structure_may_have_missed_one():
    """Low confidence in background far from any structure is told as missed, with value 0."""
    labels, confidence = make_result([(np.s_[33:40, 52:64, 52:64], 30)])
    (doubt,) = find_doubts(labels, confidence, GRID)
    assert doubt.value == 0
    assert "missed" in doubt.message


def test_a_long_place_is_cut_into_parts_that_fit_a_picture():
    """No place is longer than the limit, and the parts hold all of the expected volume."""
    shape = (4, 8, 256)
    doubts = find_doubts(np.ones(shape, np.uint8), np.zeros(shape, np.uint8), Geometry(np.eye(4), shape))
    assert len(doubts) > 4
    assert max(stop - start for doubt in doubts for start, stop in doubt.box) <= LARGEST_MM
    assert sum(doubt.expected_wrong_ml for doubt in doubts) == pytest.approx(np.prod(shape) / 2000, rel=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_unequal_slices_count_with_their_own_volume(axis):
    """In a scan with slices of 1 and 3 mm, the expected volume is that of the slices it lies in."""
    shape = [16, 16, 16]
    offsets = tuple(np.concatenate([np.arange(8), 8 + 3.0 * np.arange(8)]))
    grid = Geometry(np.eye(4), tuple(shape), slice_offsets=offsets, slice_axis=axis)
    confidence = np.zeros(shape, np.uint8)
    volumes = np.broadcast_to(np.moveaxis(grid.voxel_volumes_mm3()[:, None, None], 0, axis), shape)
    labels = np.ones(shape, np.uint8)
    doubts = find_doubts(labels, confidence, grid)
    assert sum(doubt.expected_wrong_ml for doubt in doubts) == pytest.approx(volumes.sum() / 2000, rel=1e-4)
    strip = measure_strip(labels, confidence, grid, axis)
    assert strip == pytest.approx(grid.voxel_volumes_mm3() * 256 / 2000)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations([0, 1, 2]), st.integers(0, 2))
def test_the_strip_does_not_depend_on_how_the_array_lies(seed, axes, axis):
    """The strip of a transposed view is that of the array, along the axis that moved."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (4, 5, 6)).astype(np.uint8)
    confidence = rng.integers(0, 256, (4, 5, 6)).astype(np.uint8)
    grid = Geometry(np.diag([3.0, 1.0, 2.0, 1.0]), labels.shape)
    straight = measure_strip(labels, confidence, grid, axes[axis], 2)
    turned = measure_strip(labels.transpose(axes), confidence.transpose(axes), grid.permuted(axes), axis, 2)
    assert turned == pytest.approx(straight)
    others = tuple(other for other in range(3) if other != axes[axis])
    assert straight == pytest.approx((np.where(labels == 2, 255.0 - confidence, 0)).sum(axis=others) / 510 * 6 / 1000)


def place(code, labels, confidence=None, settled=None):
    """The doubts that one rule gives on structure 1."""
    reasons = [(1, Finding(code, "why"))]
    return find_doubts(labels, confidence, GRID, settled=settled, reasons=reasons)


def test_a_fragment_is_shown_at_the_second_part():
    """FRAGMENTS leads to the largest part outside of the main one; half of it is expected to be wrong."""
    labels, _ = make_result()
    labels[36:38, 4:8, 4:8] = 1
    labels[36, 60, 60] = 1
    (doubt,) = place("FRAGMENTS", labels)
    assert doubt.box == ((36, 38), (4, 8), (4, 8))
    assert doubt.expected_wrong_ml == pytest.approx(32 * 2 / 2000)
    assert (doubt.value, doubt.reason, doubt.message) == (1, "FRAGMENTS", "why")


def test_a_hole_is_shown_where_it_is():
    """HOLES leads to the enclosed voxels."""
    labels, _ = make_result()
    labels[16:20, 28:32, 28:32] = 0
    (doubt,) = place("HOLES", labels)
    assert doubt.box == ((16, 20), (28, 32), (28, 32))


def test_a_cut_structure_is_shown_at_the_border():
    """TOUCHES_EDGE leads to the outermost plane that cuts the structure."""
    labels, _ = make_result()
    labels[32:, 20:40, 20:40] = 1
    (doubt,) = place("TOUCHES_EDGE", labels)
    assert doubt.box == ((39, 40), (20, 40), (20, 40))
    assert doubt.expected_wrong_ml == 0


def test_a_rule_about_the_whole_structure_counts_its_confidence():
    """LOW_CONFIDENCE leads to the structure, with the expected wrong volume of all its voxels."""
    labels, confidence = make_result()
    doubt = next(each for each in place("LOW_CONFIDENCE", labels, confidence) if each.reason == "LOW_CONFIDENCE")
    assert doubt.box == ((9, 32), (9, 56), (9, 56))
    expected = measure_strip(labels, confidence, GRID, 0, 1).sum()
    assert doubt.expected_wrong_ml == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("code", PLACED)
def test_a_rule_about_a_settled_structure_is_silent(code):
    """Once every voxel of a structure is settled, no rule asks to look at it; nor where it is gone."""
    labels, _ = make_result()
    labels[36:38, 4:8, 4:8] = 1
    assert place(code, labels, settled=labels == 1) == ()
    assert place(code, np.zeros_like(labels)) == ()


def test_only_what_speaks_against_a_structure_is_a_reason():
    """Findings that say that something was not judged lead nowhere; the others keep the value of their structure."""
    table = LabelTable((Label(3, "liver", Code("10200004", "Liver")), Label(5, "spleen", Code("78961009", "Spleen"))))
    quality = CaseQuality(
        "review",
        (Finding("NO_REFERENCE", "x"),),
        (
            StructureQuality("liver", "pass", (Finding("VOLUME_NOT_JUDGED", "x"),)),
            StructureQuality("spleen", "review", (Finding("FRAGMENTS", "y"),)),
        ),
    )
    assert list_reasons(quality, table) == ((5, Finding("FRAGMENTS", "y")),)


def test_arrays_of_other_shapes_are_refused():
    """A confidence map of another grid is not used."""
    labels, confidence = make_result()
    with pytest.raises(GeometryError, match="shape"):
        find_doubts(labels, confidence[1:], GRID)
    with pytest.raises(GeometryError, match="axis is 3"):
        measure_strip(labels, confidence, GRID, 3)
