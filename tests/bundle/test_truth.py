"""Facts about `effvit_med.bundle.truth`: label maps on their way to a network, with what is not known of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import DataLoader, Dataset
from monai.transforms import Compose

from effvit_med.bundle import LoadVolumed, PrepareVolumed
from effvit_med.bundle.metatensor import to_metatensor
from effvit_med.bundle.truth import Truth
from effvit_med.engine.model import IGNORED, Model
from effvit_med.errors import GeometryError, InputError, SettingsError
from effvit_med.io import write_volume
from effvit_med.training.data import read_datalist
from effvit_med.training.label_codes import list_annotations
from effvit_med.transforms import Preprocess
from effvit_med.volume import Geometry, Volume
from tests.training.test_losses import OVERLAPPING, REGIONS, SOFTMAX

SHAPE = (8, 8, 8)
GRID = Geometry(np.diag([1.0, 1.0, 1.0, 1.0]), SHAPE)


def _at(model: Model, spacing_mm: float = 1.0) -> Model:
    return replace(model, preprocess=Preprocess((spacing_mm,) * 3, orientation=None))


def _prepare(model: Model, values: object, annotated: list[str] | None = None, **options: object) -> np.ndarray:
    """The label map or maps on the network's grid."""
    scan = Volume(np.zeros(SHAPE, np.int16), GRID)

    def wrap(array: np.ndarray):
        return to_metatensor(torch.from_numpy(array)[None].float(), GRID, Volume(array, GRID))

    label = {name: wrap(each) for name, each in values.items()} if isinstance(values, dict) else wrap(values)
    return Truth(model, **options).prepare(label, scan, annotated).numpy()


def _some(seed: int, values: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).choice(values, SHAPE).astype(np.int16)


@given(st.integers(0, 1000))
def test_an_ignored_value_arrives_as_such(seed: int) -> None:
    """Voxel for voxel at the scan's own spacing; the rest are class numbers."""
    values = _some(seed, (0, 1, 2, 3, 9))
    found = _prepare(_at(SOFTMAX), values, ignore=9)
    assert (found[0] == np.where(values == 9, IGNORED, values)).all()


@given(st.integers(0, 1000), st.integers(0, 8))
def test_a_voxel_mostly_ignored_is_ignored(seed: int, count: int) -> None:
    """On a grid twice as coarse, where more than half of what a voxel covers is ignored."""
    values = np.zeros(SHAPE, np.int16)
    order = np.random.default_rng(seed).permutation(8)[:count]
    for corner in order:
        values[corner // 4 :: 2, corner // 2 % 2 :: 2, corner % 2 :: 2] = 9
    scan = Volume(np.zeros(SHAPE, np.int16), GRID)
    label = to_metatensor(torch.from_numpy(values)[None].float(), GRID, Volume(values, GRID))
    found = Truth(_at(SOFTMAX, 2.0), ignore=9).prepare(label, scan, None).numpy()[0, 1:-1, 1:-1, 1:-1]
    if count != 4:
        assert (found == (IGNORED if count > 4 else 0)).all()


def test_an_ignored_value_that_was_not_named_is_an_error() -> None:
    """It is a value that the table does not have."""
    with pytest.raises(InputError, match=r"has the label values \[9(\.0)?\]"):
        _prepare(_at(SOFTMAX), _some(0, (0, 9)))


@given(st.integers(0, 1000))
def test_background_of_a_partly_annotated_case_is_marked(seed: int) -> None:
    """What was drawn keeps its class."""
    values = _some(seed, (0, 1, 3))
    found = _prepare(_at(SOFTMAX), values, ["s1", "s3"], annotations=[["s1", "s3"]])
    assert (found[0] == np.where(values == 0, 254, values)).all()


@given(st.integers(0, 1000))
def test_overlapping_structures_come_from_one_map_each(seed: int) -> None:
    """A channel each, in the order of the table; what was not annotated is not known, what has no map is absent."""
    one, other = _some(seed, (0, 1)), _some(seed + 1, (0, 7, 9))
    found = _prepare(_at(OVERLAPPING), {"s2": other, "s1": one}, ["s1", "s2"], ignore=9)
    assert (found[0] == one).all()
    assert (found[1] == np.where(other == 9, IGNORED, other == 7)).all()
    assert (found[2] == IGNORED).all()
    whole = _prepare(_at(OVERLAPPING), {"s1": one}, ["s1", "s2", "s4"])
    assert not whole[1:].any()


@given(st.integers(0, 1000))
def test_overlapping_structures_come_from_a_map_of_sums(seed: int) -> None:
    """Each bit a structure."""
    values = _some(seed, (0, 1, 3, 6, 7))
    found = _prepare(_at(OVERLAPPING), values)
    assert (found == np.stack([values & 1, values >> 1 & 1, values >> 2 & 1])).all()


def test_a_structure_without_map_or_word_is_an_error() -> None:
    """Whether it was annotated is not guessed."""
    with pytest.raises(InputError, match="no label map of s2, s4 and does not say"):
        _prepare(_at(OVERLAPPING), {"s1": _some(0, (0, 1))})


def test_a_map_of_something_else_is_an_error() -> None:
    """The error lists what there is."""
    with pytest.raises(InputError, match="maps of spleen; the structures are s1, s2, s4"):
        _prepare(_at(OVERLAPPING), {"spleen": _some(0, (0, 1))}, [])


def test_sums_that_are_too_large_are_an_error() -> None:
    """Eight is no sum of one, two and four."""
    with pytest.raises(InputError, match=r"from 0(\.0)? to 8(\.0)?; sums of s1, s2, s4 go up to 7"):
        _prepare(_at(OVERLAPPING), _some(0, (0, 8)))


def test_several_maps_are_for_overlapping_structures_only() -> None:
    """A head of classes takes one."""
    with pytest.raises(InputError, match=r"head of the kind overlapping, .* has regions"):
        _prepare(_at(REGIONS), {"s1": _some(0, (0, 1))})


def test_a_map_of_another_place_is_an_error() -> None:
    """Each map of an overlapping head is looked at."""
    away = Geometry(np.diag([1.0, 1.0, 2.0, 1.0]), SHAPE)
    label = to_metatensor(torch.zeros(1, *SHAPE), away, Volume(np.zeros(SHAPE, np.int16), away))
    with pytest.raises(GeometryError, match="mm apart"):
        Truth(_at(OVERLAPPING)).prepare({"s1": label}, Volume(np.zeros(SHAPE, np.int16), GRID), ["s1"])


def test_files_of_a_data_set_come_through_a_loader(tmp_path: Path) -> None:
    """A list of cases, some with `annotated`, is read, prepared and collated; nothing is left that cannot be."""
    rows = []
    for number in range(4):
        write_volume(Volume(_some(number, (0, 40)), GRID), tmp_path / f"image_{number}.nii.gz")
        write_volume(Volume(_some(number, (0, 1, 3)), GRID), tmp_path / f"label_{number}.nii.gz")
        row = {"image": f"image_{number}.nii.gz", "label": f"label_{number}.nii.gz"}
        rows.append(row if number % 2 else {**row, "annotated": ["s3", "s1"]})
    (tmp_path / "dataset.json").write_text(json.dumps({"training": rows, "validation": rows[:1]}), encoding="utf-8")
    cases = read_datalist(tmp_path / "dataset.json", "training")
    model = _at(SOFTMAX)
    steps = Compose(
        [
            LoadVolumed(["image", "label"]),
            PrepareVolumed("image", model, label_key="label", annotations=list_annotations(cases)),
        ]
    )
    batch = next(iter(DataLoader(Dataset(cases, steps), batch_size=4)))
    assert set(batch) == {"image", "label"}
    assert batch["label"].shape == (4, 1, *SHAPE)
    assert [set(np.unique(label).tolist()) for label in batch["label"].numpy()] == [{254, 1, 3}, {0, 1, 3}] * 2


def test_a_set_that_was_not_listed_is_an_error() -> None:
    """Codes must be those that the loss knows."""
    with pytest.raises(SettingsError, match="listed are"):
        _prepare(_at(SOFTMAX), _some(0, (0, 1)), ["s1"])
