"""Facts about the tiles and cases of `effvit_med.engine.quantisation`."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.engine import read_model
from effvit_med.engine.quantisation import (
    QuantisationOptions,
    ReferenceCase,
    calibration_tiles,
    dice_judge,
    quantise_model,
    sample_case,
)
from effvit_med.engine.scoring import label_volume
from effvit_med.engine.tiling import Tiling
from effvit_med.errors import GeometryError, InputError, SettingsError
from effvit_med.transforms import Preprocess, prepare, stack_neighbours

SPACING = (1.0, 1.0, 1.0)


@pytest.fixture(name="case", scope="module")
def _case() -> ReferenceCase:
    return sample_case()


@given(st.tuples(*[st.integers(3, 20)] * 3), st.integers(1, 9))
def test_tiles_are_windows_of_the_padded_volume(size: tuple[int, int, int], count: int) -> None:
    """As many as asked for, of the window's size, and each a cut of the volume, mirrored where that is smaller."""
    values = torch.arange(float(np.prod(size))).reshape(1, *size)
    tiles = calibration_tiles(values, Tiling((4, 6, 8)), Preprocess(SPACING), count)
    assert [tuple(tile.shape) for tile in tiles] == [(1, 1, 4, 6, 8)] * count
    missing = [(0, max(0, wanted - here)) for wanted, here in zip((4, 6, 8), size, strict=True)]
    padded = torch.from_numpy(np.pad(values.numpy(), [(0, 0), *missing], mode="symmetric"))
    windows = padded.unfold(1, 4, 1).unfold(2, 6, 1).unfold(3, 8, 1).reshape(-1, 4 * 6 * 8)
    for tile in tiles:
        assert (windows == tile.flatten()).all(dim=1).any()


def test_tiles_are_deterministic_and_the_seed_matters() -> None:
    """The same seed gives the same tiles, another seed others where the volume has few windows."""
    values = torch.rand(1, 6, 12, 12)
    first, again, other = (
        torch.cat(calibration_tiles(values, Tiling((4, 8, 8)), Preprocess(SPACING), 6, seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_most_tiles_show_something_and_some_show_air() -> None:
    """Of a volume that is empty but for a quarter, three quarters of the tiles show that quarter and one does not."""
    values = torch.zeros(1, 8, 64, 64)
    values[:, :, :32, :32] = torch.rand(8, 32, 32)
    tiles = calibration_tiles(values, Tiling((8, 16, 16)), Preprocess(SPACING), 8)
    full = sum(float(tile.std()) > 0.1 for tile in tiles)
    assert full >= 4
    assert sum(float(tile.std()) < 0.01 for tile in tiles) >= 1


def test_a_stack_is_a_slice_with_its_neighbours() -> None:
    """For a 2.5D network a tile has the slice in the middle and those beside it, repeated at the ends."""
    preprocess = Preprocess(SPACING, spatial_dims=2, neighbours=1)
    values = torch.arange(5.0).reshape(1, 5, 1, 1).expand(1, 5, 8, 8)
    tiles = calibration_tiles(values, Tiling((2, 8, 8)), preprocess, 10)
    stacks = stack_neighbours(values, range(5), 1)[:, :, 0, 0].tolist()
    found = [tile[0, :, 0, 0].tolist() for tile in tiles]
    assert [tuple(tile.shape) for tile in tiles] == [(1, 3, 8, 8)] * 10
    assert all(each in stacks for each in found)
    assert stacks[0] in found
    assert stacks[4] in found


def test_tiles_of_the_sample_lie_in_the_range_of_the_bundle(case: ReferenceCase) -> None:
    """Values are those of the bundle's window of Hounsfield units, scaled, and not those of the scan."""
    model = read_model()
    values = prepare(case.volume, model.preprocess).values
    tiles = torch.cat(calibration_tiles(values, model.tiling, model.preprocess, 4))
    assert tuple(tiles.shape) == (4, 1, *model.tiling.window)
    assert tiles.min() >= values.min() >= -1
    assert tiles.max() <= values.max() <= 1
    assert tiles.std() > 0.3


def test_no_tile_cannot_be_asked_for() -> None:
    """Calibration on nothing is refused."""
    with pytest.raises(SettingsError, match="count is 0"):
        calibration_tiles(torch.zeros(1, 4, 4, 4), Tiling((4, 4, 4)), Preprocess(SPACING), 0)


def test_the_reference_itself_has_a_dice_of_one(case: ReferenceCase, tiny_bundle: Path) -> None:
    """A judge whose network gives what its reference is finds every structure that is there whole."""
    model = read_model(tiny_bundle)
    predict = model.load_network().logits
    with torch.inference_mode():
        labels = label_volume(predict, case.volume, model)
        scores = dice_judge(model, [replace(case, labels=labels), replace(case, labels=labels)])(predict)
    present = {label.name for label in model.labels if (labels == label.value).any()}
    assert present
    assert {name for name, score in scores.items() if score == 1} == present
    assert all(np.isnan(score) for name, score in scores.items() if name not in present)


def test_labels_of_another_shape_are_refused(case: ReferenceCase) -> None:
    """A reference must lie on its scan."""
    with pytest.raises(GeometryError, match=r"The labels of ct_axial have shape \(39, 192, 192\)"):
        replace(case, labels=case.labels[1:])


def test_a_label_that_the_bundle_does_not_know_is_refused(case: ReferenceCase, tmp_path: Path) -> None:
    """Before anything is computed."""
    strange = replace(case, labels=np.full_like(case.labels, 77))
    with pytest.raises(InputError, match="77"):
        quantise_model(read_model(), [strange], tmp_path, QuantisationOptions())
    with pytest.raises(SettingsError, match="No case was given"):
        quantise_model(read_model(), [], tmp_path, QuantisationOptions())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="needs effvit-med[openvino]")
def test_the_shipped_bundle_loses_less_dice_than_allowed(case: ReferenceCase, tmp_path: Path) -> None:
    """In INT8 the shipped network passes the gate of 0.005 with most of its layers quantised."""
    report = quantise_model(
        read_model(), [case], tmp_path, QuantisationOptions(keep_precision="float32", only_faster=False)
    )
    assert report.loss <= 0.005
    assert min(report.dice_before.values()) > 0.9
    assert sum(each.layers for each in report.choices if each.int8) >= 70
    assert (tmp_path / "model.xml").is_file()
