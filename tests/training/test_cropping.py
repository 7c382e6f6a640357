"""Where patches are cut."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms.utils import create_rotate

from effvit_med.errors import SettingsError
from effvit_med.training.cropping import PLACES, MarkPlacesd, RandPatchd, patch_margin

BOTH = ["image", "label"]


def _case(shape: tuple[int, int, int] = (20, 22, 24)) -> dict[str, object]:
    """An image whose values are the voxels' numbers from 1, with one small structure of each of two kinds."""
    image = torch.arange(1, 1 + np.prod(shape)).reshape(1, *shape).float()
    label = torch.zeros(1, *shape)
    label[0, 2:4, 3:5, 4:6] = 1
    label[0, -3:-1, -4:-2, -5:-3] = 2
    return MarkPlacesd("label", classes=3)({"image": image, "label": label})


def _cut(case: dict[str, object], seed: int, **options: object) -> dict[str, torch.Tensor]:
    transform = RandPatchd(BOTH, patch=(8, 8, 8), **options)
    transform.set_random_state(seed)
    return transform(case)


def test_a_patch_around_a_structure_holds_it() -> None:
    """With a share of 1 every patch has a voxel of a structure, and each of the two about as often."""
    case = _case()
    found = [set(_cut(case, seed, foreground_share=1.0)["label"].unique().tolist()) for seed in range(60)]
    assert all(len(values) > 1 for values in found)
    assert 15 < sum(1.0 in values for values in found) < 45


def test_a_patch_anywhere_lies_within_the_case() -> None:
    """Without structures asked for, patches hold the case's own voxels only, at many places."""
    case = _case()
    patches = [_cut(case, seed, foreground_share=0.0)["image"] for seed in range(60)]
    assert all(patch.shape == (1, 8, 8, 8) and float(patch.min()) >= 1 for patch in patches)
    assert len({float(patch[0, 0, 0, 0]) for patch in patches}) > 40


def test_the_margin_lies_around_the_same_patch() -> None:
    """What a margin adds lies around what is cut without one; beyond the case it is the mirrored case."""
    case = _case()
    for seed in range(20):
        plain, wide = _cut(case, seed), _cut(case, seed, margin=(3, 0, 15))
        assert wide["image"].shape == (1, 14, 8, 38)
        assert torch.equal(wide["image"][:, 3:-3, :, 15:-15], plain["image"])
        edge = int((wide["image"][0, 0, 0, 1:] > wide["image"][0, 0, 0, :-1]).int().argmax())  # from here on it rises
        assert torch.equal(wide["image"][..., :edge], wide["image"][..., edge : 2 * edge].flip(-1))


def test_a_smaller_case_lies_anywhere_in_the_patch() -> None:
    """A case of 5 voxels in a patch of 8 is whole in it, at four places."""
    patches = [_cut(_case((5, 22, 24)), seed, foreground_share=1.0)["image"] for seed in range(40)]
    rows = [tuple((patch[0, :, 0, 0].long() // (22 * 24)).tolist()) for patch in patches]
    endless = [0, 1, 2, 3, 4, 4, 3, 2, 1, 0] * 3
    assert set(rows) == {tuple(endless[10 - start : 18 - start]) for start in range(4)}


def test_what_is_mirrored_is_labelled_alike() -> None:
    """Each voxel of a patch, mirrored or not, has the label that it has in the case."""
    case = _case((5, 7, 24))
    for seed in range(10):
        patch = _cut(case, seed, margin=(2, 9, 4))
        numbers = patch["image"].long() - 1
        assert torch.equal(patch["label"], case["label"].flatten()[numbers])


def test_with_an_overhang_every_slice_is_the_middle_one() -> None:
    """Of patches of three slices that may hang over by one, each slice of the case is the middle of some."""
    transform = RandPatchd(BOTH, patch=(3, 8, 8), overhang=(1, 0, 0))
    case = _case((4, 10, 10))
    middles = {int(transform.set_random_state(seed)(dict(case))["image"][0, 1, 0, 0] - 1) // 100 for seed in range(60)}
    assert middles == {0, 1, 2, 3}


def test_values_beyond_the_classes_are_no_structures() -> None:
    """An ignored value is never sought."""
    label = torch.full((1, 6, 6, 6), 255.0)
    label[0, 0, 0, 0] = 2
    places = MarkPlacesd("label", classes=3)({"image": label, "label": label})[PLACES]
    assert places.tolist() == [[2, 0, 0, 0]]


def test_overlapping_structures_have_places_each() -> None:
    """Of a label map with one channel a structure, the ones of each channel are kept, unknown ones not."""
    label = torch.zeros(2, 4, 4, 4)
    label[0, 1, 1, 1] = label[1, 1, 1, 1] = 1
    label[1, 0] = 255
    places = MarkPlacesd("label", classes=3)({"image": label, "label": label})[PLACES]
    assert places.tolist() == [[1, 1, 1, 1], [2, 1, 1, 1]]


def test_only_so_many_places_are_kept() -> None:
    """A large structure leaves a bounded number of voxels, from one end of it to the other."""
    label = torch.ones(1, 30, 30, 30)
    places = MarkPlacesd("label", classes=2, most=100)({"image": label, "label": label})[PLACES]
    assert len(places) == 100
    assert places[0, 1:].tolist() == [0, 0, 0]
    assert places[-1, 1:].tolist() == [29, 29, 29]


def test_a_share_beyond_one_is_refused() -> None:
    """A share is from 0 to 1."""
    with pytest.raises(SettingsError, match=r"1\.5"):
        RandPatchd(BOTH, patch=(8, 8, 8), foreground_share=1.5)


@given(
    patch=st.tuples(*[st.integers(1, 90)] * 3),
    limits=st.tuples(*[st.floats(0, 0.7)] * 3),
    scale=st.floats(0, 0.5),
    turn=st.tuples(*[st.floats(-1, 1)] * 3),
)
def test_a_margin_takes_in_every_turned_corner_about_one_axis(
    patch: tuple[int, int, int], limits: tuple[float, float, float], scale: float, turn: tuple[float, float, float]
) -> None:
    """Whatever angle about one axis and scale within the ranges MONAI draws, the patch lies within patch and margin."""
    corners = np.array(list(itertools.product(*[(-size / 2, size / 2) for size in patch])))
    for axis in range(3):
        limit = [limits[each] if each == axis else 0.0 for each in range(3)]
        margin = patch_margin(patch, limit, (scale,) * 3)
        matrix = create_rotate(3, [turn[each] * limit[each] for each in range(3)])[:3, :3]
        reach = np.abs((1 + scale) * corners @ matrix.T).max(axis=0)
        assert np.all(reach <= np.array(patch) / 2 + np.array(margin) + 1e-6)
