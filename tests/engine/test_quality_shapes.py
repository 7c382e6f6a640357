"""Facts about `effvit_med.engine.quality_shapes`: parts, holes and centres on a grid of cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from effvit_med.engine import quality_shapes
from effvit_med.engine.quality_shapes import describe_shapes


@given(seed=st.integers(0, 2**32 - 1), size=st.tuples(*[st.integers(1, 12)] * 3), values=st.sampled_from([3, 300]))
def test_on_cells_of_one_voxel_all_is_exact(seed: int, size: tuple[int, int, int], values: int) -> None:
    """With coarse voxels the counts, parts and centres are those of scipy on the whole array."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(size) < 0.3, rng.integers(1, values, size), 0).astype(np.uint16)
    shapes = describe_shapes(labels, (5.0, 5.0, 5.0))
    assert set(shapes) == set(np.unique(labels)) - {0}
    for value, shape in shapes.items():
        mask = labels == value
        parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
        sizes = np.bincount(parts[mask])[1:]
        assert shape.voxels == mask.sum()
        assert shape.centre == pytest.approx(ndimage.center_of_mass(mask))
        assert shape.fragments == max(1, np.count_nonzero(sizes >= 0.01 * mask.sum()))
        assert shape.share_outside_largest == pytest.approx(1 - sizes.max() / mask.sum())
        holes = ndimage.binary_fill_holes(mask) & ~mask
        assert shape.hole_share * shape.voxels == pytest.approx(np.count_nonzero(holes & (labels == 0)))
        assert count >= shape.fragments


def _ball(size: int, radius: float) -> np.ndarray:
    grid = np.indices((size, size, size)) - (size - 1) / 2
    return (grid**2).sum(axis=0) <= radius**2


@pytest.mark.parametrize("spacing_mm", [(0.7, 0.7, 0.7), (2.0, 0.7, 0.7), (5.0, 1.0, 1.0)])
def test_cells_keep_counts_and_centres(spacing_mm: tuple[float, float, float]) -> None:
    """Whatever the cells, no voxel is lost and the centre moves by less than a voxel."""
    labels = np.zeros((41, 45, 50), np.uint8)
    labels[3:34, 5:36, 10:41] = _ball(31, 14)
    shape = describe_shapes(labels, spacing_mm)[1]
    assert shape.voxels == labels.sum()
    assert shape.centre == pytest.approx((18, 20, 25), abs=0.5)
    assert (shape.fragments, shape.share_outside_largest, shape.hole_share) == (1, 0, 0)


def test_fine_voxels_show_parts_and_holes() -> None:
    """At 0.7 mm a gap and a cavity of a few cells are still seen."""
    labels = np.zeros((60, 60, 80), np.uint8)
    labels[5:36, 5:36, 5:36] = _ball(31, 15) & ~_ball(31, 7)
    labels[5:36, 5:36, 45:76] = _ball(31, 10)
    shape = describe_shapes(labels, (0.7, 0.7, 0.7))[1]
    cavity, small = _ball(31, 7).sum(), _ball(31, 10).sum()
    assert shape.fragments == 2
    assert shape.share_outside_largest == pytest.approx(small / shape.voxels)
    assert 0.3 * cavity < shape.hole_share * shape.voxels <= cavity  # cells at its rim count as filled


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_slabs_and_memory_order_change_nothing(order: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same labels give the same shapes in one slab or many, in whatever order they lie in memory."""
    rng = np.random.default_rng(5)
    blocks = rng.integers(0, 4, (10, 12, 14)).astype(np.uint8)
    labels = blocks.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    whole = describe_shapes(labels, (0.9, 0.8, 0.7))
    back = np.argsort(order)
    view = np.ascontiguousarray(labels.transpose(order)).transpose(back)
    monkeypatch.setattr(quality_shapes, "SLAB_BYTES", 3000)
    parts = describe_shapes(view, (0.9, 0.8, 0.7))
    for value, shape in whole.items():
        assert parts[value].centre == pytest.approx(shape.centre)
        assert parts[value].voxels == shape.voxels
        assert parts[value].fragments == shape.fragments
        assert parts[value].hole_share == pytest.approx(shape.hole_share)


def test_labels_may_lie_in_a_file(tmp_path: Path) -> None:
    """A mapped array gives the same answer as one in memory."""
    labels = np.zeros((20, 30, 30), np.uint8)
    labels[4:12, 6:20, 6:20] = 2
    np.save(tmp_path / "labels.npy", labels)
    mapped = np.load(tmp_path / "labels.npy", mmap_mode="r")
    assert describe_shapes(mapped, (1.0, 1.0, 1.0)) == describe_shapes(labels, (1.0, 1.0, 1.0))


def test_no_label_gives_no_shape() -> None:
    """An empty label map has nothing to describe."""
    assert describe_shapes(np.zeros((4, 4, 4), np.uint8), (1.0, 1.0, 1.0)) == {}
