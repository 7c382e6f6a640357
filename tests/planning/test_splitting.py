"""Facts about `effvit_med.planning.splitting`."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import SettingsError
from effvit_med.planning.splitting import split_cases
from tests.planning.parts import cases_of

groups = st.lists(st.sampled_from("abcdefghij"), min_size=8, max_size=60).filter(lambda names: len(set(names)) >= 6)


@given(groups, st.integers(2, 4), st.sampled_from([0, 1, 3, 0.2]), st.integers(0, 99))
def test_groups_are_never_torn_and_every_case_has_one_place(
    names: list[str], folds: int, test: float, seed: int
) -> None:
    """Each group lies in one fold or in the test; no case is lost, none stands twice."""
    training_set = cases_of(names)
    try:
        split = split_cases(training_set, folds, test, seed)
    except SettingsError:
        return  # too few groups were left, or none was small enough
    places: dict[str, set[object]] = {}
    for case in training_set.cases:
        assert (case.case_id in split.test) != (case.case_id in split.folds)
        places.setdefault(case.group, set()).add("test" if case.case_id in split.test else split.folds[case.case_id])
    assert all(len(place) == 1 for place in places.values())
    assert set(split.folds.values()) == set(range(folds))
    assert len(split.test) <= (test if test >= 1 else round(test * len(names)))


@given(groups, st.integers(0, 99))
def test_the_same_seed_gives_the_same_split(names: list[str], seed: int) -> None:
    """Whatever the order of the cases."""
    training_set = cases_of(names)
    assert split_cases(training_set, 3, 0, seed) == split_cases(training_set, 3, 0, seed)


def test_another_seed_gives_another_split() -> None:
    """The seed is used."""
    training_set = cases_of([str(number) for number in range(40)])
    assert split_cases(training_set, seed=1) != split_cases(training_set, seed=2)


def test_single_cases_are_met_exactly() -> None:
    """40 of 200 for the test, and five folds of 32."""
    split = split_cases(cases_of([str(number) for number in range(200)]), 5, 40)
    assert len(split.test) == 40
    assert Counter(split.folds.values()) == dict.fromkeys(range(5), 32)


def test_a_given_split_is_kept() -> None:
    """Its validation is the one fold; the test is drawn from the rest."""
    split = split_cases(cases_of([str(number) for number in range(10)], ["c001", "c002"]), test=3)
    assert split.given
    assert {name for name, fold in split.folds.items() if fold == 0} == {"c001", "c002"}
    assert len(split.test) == 3
    assert not split.test & {"c001", "c002"}


def test_three_patients_make_three_folds() -> None:
    """Where nothing is asked for, there are as many folds as groups, at most five."""
    assert split_cases(cases_of("aabbcc")).count == 3
    assert split_cases(cases_of("abcdefgh")).count == 5


@pytest.mark.parametrize(
    ("folds", "test", "message"),
    [
        (7, 0, "3 groups .* too few for 7 folds"),
        (1, 0, "at least 2"),
        (2, 1, "no group of cases is that small"),
        (2, 2.5, "number of cases, or a share"),
        (2, 4, "1 groups .*fewer with --folds or --test"),
    ],
)
def test_what_groups_do_not_allow_is_refused(folds: int, test: float, message: str) -> None:
    """The error says which number to change."""
    with pytest.raises(SettingsError, match=message):
        split_cases(cases_of("aabbcc"), folds, test)
