"""Facts about `effvit_med.engine.mirroring`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.engine import read_model
from effvit_med.engine.head import Head, Region
from effvit_med.engine.mirroring import mirror_axes, mirrored
from effvit_med.volume import Geometry, Label, LabelTable
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE

axes = st.sets(st.sampled_from([-3, -2, -1])).map(lambda chosen: tuple(sorted(chosen)))
SPL = Geometry(np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]]), (4, 4, 4))


def _lopsided(tiles: torch.Tensor) -> torch.Tensor:
    """A network whose answer depends on the side: the sum of all voxels before each."""
    return tiles.cumsum(-1) + tiles.cumsum(-2) * 2 + tiles.cumsum(-3) * 3


@given(axes)
def test_the_mean_is_as_symmetric_as_its_mirrors(chosen: tuple[int, ...]) -> None:
    """Mirroring the tile mirrors the answer, along every axis that is averaged over."""
    tiles = torch.randn(2, 1, 4, 5, 6)
    predict = mirrored(_lopsided, chosen)
    for axis in chosen:
        assert torch.allclose(predict(tiles.flip(axis)).flip(axis), predict(tiles), atol=1e-4)


@given(axes)
def test_a_network_that_looks_at_single_voxels_answers_as_before(chosen: tuple[int, ...]) -> None:
    """Every mirrored answer is turned back before it is added."""
    tiles = torch.randn(1, 1, 3, 4, 5)
    assert torch.allclose(mirrored(lambda x: 2 * x + 1, chosen)(tiles), 2 * tiles + 1, atol=1e-6)


@given(axes)
def test_each_subset_of_axes_is_looked_at_once(chosen: tuple[int, ...]) -> None:
    """With n axes the network is called 2 to the power of n times."""
    calls: list[int] = []

    def count(tiles: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return tiles

    mirrored(count, chosen)(torch.zeros(1, 1, 2, 2, 2))
    assert len(calls) == 2 ** len(chosen)


@pytest.mark.parametrize(("sided", "wanted"), [(True, (-3, -2)), (False, (-3, -2, -1))])
def test_left_and_right_are_not_swapped_where_a_structure_has_a_side(sided: bool, wanted: tuple[int, ...]) -> None:
    """The left kidney would become the right one; without such structures all axes are mirrored."""
    model = read_model()
    if not sided:
        plain = tuple(label for label in model.labels if label.laterality is None)
        model = replace(model, labels=LabelTable(plain))
    assert mirror_axes(model, SPL) == wanted


def test_slices_are_not_mirrored_across() -> None:
    """A 2D network is mirrored within the slice, here from front to back only."""
    model = read_model()
    flat = replace(model, preprocess=replace(model.preprocess, spatial_dims=2))
    assert mirror_axes(flat, SPL) == (-2,)


def test_a_name_with_a_side_counts_as_sided() -> None:
    """Without a code for the side, left or right in the name bars mirroring left-right; other letters do not."""
    model = read_model()
    plain = [replace(label, laterality=None) for label in model.labels]
    assert mirror_axes(replace(model, labels=LabelTable(tuple(plain))), SPL) == (-3, -2)
    nameless = tuple(label for label in plain if not label.name.startswith("kidney"))
    assert mirror_axes(replace(model, labels=LabelTable(nameless)), SPL) == (-3, -2, -1)


def test_a_region_with_a_side_is_not_mirrored_either() -> None:
    """The name of a region tells as much as that of a label."""
    labels = LabelTable((Label(1, "whole", ANATOMICAL_STRUCTURE),))
    model = replace(read_model(), labels=labels, head=Head("regions", (Region("left lung", (1,)),), (1,)))
    grid = Geometry(np.diag([1.0, 1.0, 1.0, 1.0]), (4, 4, 4))
    plain = replace(model, head=Head("regions", (Region("lung", (1,)),), (1,)))
    assert len(mirror_axes(plain, grid)) == 3
    assert len(mirror_axes(model, grid)) == 2


def test_only_axes_that_were_learnt_are_mirrored() -> None:
    """Where the bundle says along which axes its network saw mirrored images, no others are; sides still bar theirs."""
    model = read_model()
    learnt = replace(model, tiling=replace(model.tiling, mirror_axes=(0, 2)))
    assert mirror_axes(learnt, SPL) == (-3,)
    nameless = LabelTable(tuple(replace(label, name=f"part {label.value}", laterality=None) for label in model.labels))
    assert mirror_axes(replace(learnt, labels=nameless), SPL) == (-3, -1)
    assert mirror_axes(replace(model, tiling=replace(model.tiling, mirror_axes=())), SPL) == ()
