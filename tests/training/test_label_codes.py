"""Facts about `effvit_med.training.label_codes`: one number a voxel says all that is known of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.engine.head import Head, Region
from effvit_med.engine.model import IGNORED
from effvit_med.errors import InputError, SettingsError
from effvit_med.training.label_codes import (
    ABSENT,
    PRESENT,
    UNKNOWN,
    LabelCodes,
    case_entries,
    codes_of,
    list_annotations,
)
from effvit_med.volume import LabelTable
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE, Label
from tests.training.test_losses import OVERLAPPING, REGIONS, SOFTMAX

NAMES = ("s1", "s2", "s3")
subsets = st.sets(st.sampled_from(NAMES))


@given(st.lists(subsets, max_size=5), st.data())
def test_a_code_of_classes_says_which_are_possible(sets: list[set[str]], data: st.DataObject) -> None:
    """Annotated structures keep their class; elsewhere it is background or one of those not annotated."""
    annotations = [sorted(each) for each in sets]
    codes = codes_of(SOFTMAX, annotations)
    annotated = data.draw(st.sampled_from([None, *annotations]))
    rows = codes.known[codes.encode(np.array([0, 1, 2, 3], np.uint8), annotated)]
    missing = [] if annotated is None else [n for n, name in enumerate(NAMES, start=1) if name not in annotated]
    expected = np.where(np.eye(4, dtype=bool), PRESENT, ABSENT)
    if missing:
        expected[0, [0, *missing]] = UNKNOWN
    assert (rows == expected).all()


@given(st.lists(st.sets(st.sampled_from(["all", "in", "core"])), max_size=5), st.data())
def test_a_code_of_regions_says_which_are_known(sets: list[set[str]], data: st.DataObject) -> None:
    """What was annotated is there or not as its values say, the rest is not known."""
    annotations = [sorted(each) for each in sets]
    codes = codes_of(REGIONS, annotations)
    annotated = data.draw(st.sampled_from([None, *annotations]))
    rows = codes.known[codes.encode(np.array([0, 1, 2, 3], np.uint8), annotated)]
    expected = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    if annotated is not None:
        expected[:, [name not in annotated for name in ("all", "in", "core")]] = UNKNOWN
    assert (rows == expected).all()


@given(st.lists(subsets, max_size=8))
def test_what_is_ignored_stays_so(sets: list[set[str]]) -> None:
    """In every case, and no code of another meaning has its number."""
    codes = codes_of(SOFTMAX, [sorted(each) for each in sets])
    assert (codes.known[IGNORED] == UNKNOWN).all()
    for each in sets:
        assert codes.encode(np.array([IGNORED], np.uint8), sorted(each)) == IGNORED


def test_the_order_of_cases_and_names_does_not_matter() -> None:
    """Equal sets give equal codes."""
    one, other = codes_of(SOFTMAX, [["s1", "s3"], ["s2"]]), codes_of(SOFTMAX, [["s2"], ["s3", "s1"]])
    assert (one.known == other.known).all()


def test_the_sets_that_occur_are_listed_once() -> None:
    """Cases that say nothing have everything annotated."""
    cases = [{"image": "a"}, {"annotated": ["s3", "s1"]}, {"annotated": ["s1", "s3"]}, {"annotated": []}]
    assert list_annotations(cases) == [[], ["s1", "s3"]]


def test_a_set_that_was_not_listed_is_refused() -> None:
    """The error names it and how to list it."""
    with pytest.raises(SettingsError, match=r"has \['s2'\] annotated; .*list_annotations"):
        codes_of(SOFTMAX, [["s1"]]).encode(np.zeros(3, np.uint8), ["s2"])


def test_a_name_that_is_no_output_is_refused() -> None:
    """The error lists the outputs, without background."""
    with pytest.raises(SettingsError, match="annotated names liver; the outputs are s1, s2, s3"):
        codes_of(SOFTMAX, [["liver"]])


def test_more_combinations_than_numbers_are_refused() -> None:
    """Regions in many sets of annotation run out of numbers, and that is said."""
    values = tuple(range(1, 41))
    labels = LabelTable(tuple(Label(value, f"s{value}", ANATOMICAL_STRUCTURE) for value in values))
    head = Head("regions", tuple(Region(f"r{value}", values[value - 1 :]) for value in values), values)
    with pytest.raises(SettingsError, match="label maps have 256 numbers"):
        LabelCodes(head, labels, [[f"r{value + i}" for i in range(9)] for value in values[:30]])


def test_overlapping_structures_have_no_codes() -> None:
    """They have a channel each."""
    with pytest.raises(SettingsError, match="have a channel for each"):
        codes_of(OVERLAPPING)


def test_a_row_of_a_list_of_cases_keeps_what_it_says(tmp_path: Path) -> None:
    """Paths become absolute, also those of single structures, and annotated stays."""
    row = {"image": "i.nii", "label": {"heart": "h.nii"}, "annotated": ["heart"], "fold": 3}
    found = case_entries(row, tmp_path)
    assert found == {
        "image": str((tmp_path / "i.nii").resolve()),
        "label": {"heart": str((tmp_path / "h.nii").resolve())},
        "annotated": ["heart"],
    }


def test_annotated_must_be_a_list_of_names(tmp_path: Path) -> None:
    """A single name is not taken apart into letters."""
    with pytest.raises(InputError, match="annotated is 'liver'; give a list"):
        case_entries({"image": "i", "label": "l", "annotated": "liver"}, tmp_path)
