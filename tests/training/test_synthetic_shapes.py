"""Facts about `effvit_med.training.synthetic_shapes` and `synthetic_images`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from effvit_med.training.synthetic_images import draw_image
from effvit_med.training.synthetic_shapes import (
    MOST_LABELS,
    draw_field,
    draw_organ,
    draw_packed,
    draw_scene,
    draw_tube,
)

SHAPES = [(40, 33), (64, 64), (9, 24, 17)]
seeds = st.integers(0, 10_000)


@pytest.mark.parametrize("shape", SHAPES)
@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_a_scene_and_its_image_are_whole(shape: tuple[int, ...], seed: int) -> None:
    """Of the size asked for, labels below the limit, values finite, of mean 0 and standard deviation 1 (or even)."""
    scene = draw_scene(shape, np.random.default_rng(seed))
    image = draw_image(scene, np.random.default_rng(seed))
    assert scene.shape == image.shape == shape
    assert scene.max() < MOST_LABELS
    assert np.isfinite(image).all()
    assert abs(float(image.mean())) < 1e-3
    assert image.std() == 0 or abs(float(image.std()) - 1) < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_seed_gives_the_same(shape: tuple[int, ...]) -> None:
    """And another seed something else."""
    first, again, other = (draw_scene(shape, np.random.default_rng(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_field_is_as_smooth_as_its_detail() -> None:
    """From voxel to voxel it changes by far less than from bump to bump."""
    field = draw_field((200, 200), 20, np.random.default_rng(0))
    assert np.abs(np.diff(field, axis=0)).mean() < 0.15 * field.std()
    assert abs(float(field.std()) - 1) < 1e-5


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_a_tube_hangs_together(seed: int) -> None:
    """With its branches it is one piece."""
    tube = draw_tube((60, 60), np.random.default_rng(seed))
    assert ndimage.label(tube, np.ones((3, 3)))[1] <= 1


def test_an_organ_is_deepest_inside() -> None:
    """Above 0 inside, below outside, never above what a bent border can give."""
    depth = draw_organ((64, 64), np.random.default_rng(2))
    assert depth.max() > 0 > depth.min()


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_packed_cells_lie_in_what_holds_them(seed: int) -> None:
    """Several of them, each for itself."""
    whole, insides = draw_packed((96, 96), np.random.default_rng(seed))
    assert not (insides & ~whole).any()
    assert ndimage.label(insides)[1] >= 2 or whole.sum() < 2000


def test_a_large_organ_is_large() -> None:
    """Larger than one of any size mostly is."""
    sizes = [
        np.median([(draw_organ((64, 64), np.random.default_rng(seed), large=large) > 0).mean() for seed in range(40)])
        for large in (True, None)
    ]
    assert sizes[0] > 2 * sizes[1]
