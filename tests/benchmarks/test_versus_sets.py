"""Splits and preparation of the real sets."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from benchmarks.versus_sets import (
    SETS,
    Case,
    describe_split,
    list_cases,
    prepare_cases,
    read_image,
    split_cases,
)

HIPPOCAMPUS, VESSELS, CARDIAC = (SETS[name] for name in ("hippocampus", "vessels", "cardiac"))


def make_cases(groups: int, each: int = 1) -> list[Case]:
    """Cases without files."""
    names = [(f"{number:03d}", f"{number:03d}{letter}") for number in range(groups) for letter in "LR"[:each]]
    return [Case(name, group, Path(name), Path(name)) for group, name in names]


def test_hippocampus_has_a_fifth_tested_and_eight_watched() -> None:
    """Of 200 cases 40 are tested, 160 are not, and 8 of these are only watched."""
    split = split_cases(HIPPOCAMPUS, make_cases(200), 0)
    assert (len(split.train), len(split.watched), len(split.test)) == (152, 8, 40)


def test_no_group_is_in_two_parts() -> None:
    """Both eyes of a child stay together, in every fold."""
    for fold in range(VESSELS.folds):
        split = split_cases(VESSELS, make_cases(10, each=2), fold)
        groups = [{case.group for case in part} for part in (split.train, split.watched, split.test)]
        assert sum(map(len, groups)) == len(set.union(*groups)) == 10


def test_folds_test_every_case_once() -> None:
    """What is tested in all folds is the set."""
    cases = make_cases(10, each=2)
    tested = [case.name for fold in range(3) for case in split_cases(VESSELS, cases, fold).test]
    assert sorted(tested) == sorted(case.name for case in cases)


def test_split_does_not_depend_on_the_order_of_the_cases() -> None:
    """The names alone decide."""
    cases = make_cases(30)
    first, second = (split_cases(HIPPOCAMPUS, given, 1) for given in (cases, cases[::-1]))
    assert describe_split(first) == describe_split(second)
    assert describe_split(first)["digest"] != describe_split(split_cases(HIPPOCAMPUS, cases, 2))["digest"]


def test_with_too_few_patients_training_cases_are_watched() -> None:
    """Nothing is taken away from two patients."""
    split = split_cases(CARDIAC, make_cases(3), 0)
    assert len(split.train) == 2
    assert split.watched == split.train


def test_unknown_fold_is_refused() -> None:
    """Folds are numbered from 0."""
    with pytest.raises(ValueError, match="there are 3"):
        split_cases(CARDIAC, make_cases(3), 3)


def test_absent_set_has_no_cases(tmp_path: Path) -> None:
    """A folder that is not there is no error."""
    assert all(list_cases(labelled, tmp_path) == () for labelled in SETS.values())


def test_photograph_is_its_green_channel(tmp_path: Path) -> None:
    """Red and blue do not matter, and a mask of 0 and 255 is the label 1."""
    folder = tmp_path / VESSELS.folder
    for name in ("images", "labels_1stHO", "labels_2ndHO"):
        (folder / name).mkdir(parents=True)
    colours = np.zeros((8, 6, 3), np.uint8)
    colours[..., 1] = 90
    colours[..., 0] = np.arange(6) * 40
    Image.fromarray(colours).save(folder / "images" / "Image_01L.jpg", quality=100, subsampling=0)
    mask = np.zeros((8, 6), np.uint8)
    mask[2:4] = 255
    Image.fromarray(mask).save(folder / "labels_1stHO" / "Image_01L.png")
    (case,) = list_cases(VESSELS, tmp_path)
    assert case.group == "Image_01"
    image = read_image(VESSELS, case)
    assert image.array.shape == (1, 8, 6)
    assert np.abs(image.array - 90).max() <= 3
    (prepared,) = prepare_cases(VESSELS, [case], tmp_path / "cache")
    assert np.array_equal(prepared.reference.labels[0], mask // 255)
    assert np.array_equal(prepared.labels[0], mask // 255)


def test_slices_for_2d_networks_lie_along_the_coarse_axis(tmp_path: Path) -> None:
    """A volume whose thick axis stands last is turned, its labels with it; the reference keeps every voxel."""
    folder = tmp_path / CARDIAC.folder / "P1"
    folder.mkdir(parents=True)
    affine = np.diag([1.0, 1.0, 8.0, 1.0])
    labels = np.zeros((12, 10, 4), np.uint8)
    labels[3:6, 2:8, 1] = 1
    image = labels * 100.0 + np.random.default_rng(0).normal(size=labels.shape)
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), folder / "ED_image.nii.gz")
    nib.save(nib.Nifti1Image(labels, affine), folder / "ED_label.nii.gz")
    cases = list_cases(CARDIAC, tmp_path)
    (found,) = prepare_cases(CARDIAC, cases, tmp_path / "cache")
    assert found.values.shape == (1, 4, 12, 10)
    assert found.labels.shape == (4, 12, 10)
    assert [int((part == 1).sum()) for part in found.labels] == [0, 18, 0, 0]
    assert found.values[0][found.labels == 1].min() > found.values[0][found.labels == 0].max()
    (again,) = prepare_cases(CARDIAC, cases, tmp_path / "cache")
    assert np.array_equal(again.values, found.values)
