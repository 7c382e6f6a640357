"""Which cases are held out for the test, and which are validated on in which fold. Groups are never torn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from effvit_med.errors import SettingsError
from effvit_med.planning.training_set import TrainingCase, TrainingSet

USUAL_FOLDS = 5


@dataclass(frozen=True)
class Split:
    """Where each case stands.

    Attributes:
        folds: for each case that is learnt from, the fold in which it is validated on; None for one that never is.
        test: the names of the cases that are held out for the test.
        count: how many folds there are.
        given: whether the data set brought the split along.
    """

    folds: Mapping[str, int | None]
    test: frozenset[str]
    count: int
    given: bool = False


def split_cases(training_set: TrainingSet, folds: int | None = None, test: float = 0, seed: int = 0) -> Split:
    """Divide the cases of a data set; the same set and seed give the same split on every machine.

    Whole groups are drawn, so the numbers are met as nearly as groups allow. A validation list that the data set
    brings along is kept as the one fold.

    Args:
        training_set: its cases and groups.
        folds: how many, at least 2, at most the number of groups; None for five, or as many as there are groups.
        test: how many cases to hold out for the test, from 1, or which share of them, below 1; 0 for none.
        seed: decides which.

    Raises:
        SettingsError: if there are too few groups for it, or a number is impossible.
    """
    if folds is not None and folds < 2:
        raise SettingsError(f"folds is {folds}; give at least 2, so that there is something to validate on.")
    if test < 0 or (test > 1 and test != int(test)):
        raise SettingsError(f"test is {test:g}; give a number of cases, or a share below 1.")
    cases = training_set.cases
    wanted = round(test * len(cases)) if test < 1 else int(test)
    rng = np.random.Generator(np.random.PCG64(seed))
    held = training_set.given_split
    drawable = [case for case in cases if case.case_id not in held]
    tested = _draw(_groups(drawable), wanted, rng)
    if wanted and not tested:
        raise SettingsError(f"test is {test:g}, but no group of cases is that small; ask for more, or for none.")
    rest = [case for case in drawable if case.case_id not in tested]
    if held:
        if not rest:
            raise SettingsError(f"test is {test:g}, which leaves nothing to learn from; ask for less.")
        numbers: dict[str, int | None] = {case.case_id: None for case in rest}
        return Split(numbers | dict.fromkeys(sorted(held), 0), tested, 1, given=True)
    groups = _groups(rest)
    folds = max(2, min(USUAL_FOLDS, len(groups))) if folds is None else folds
    if len(groups) < folds:
        text = f"{len(groups)} groups of cases are left to learn from, too few for {folds} folds"
        raise SettingsError(f"{text}; ask for fewer with --folds" + (" or --test." if wanted else "."))
    return Split(_deal(groups, folds, rng), tested, folds)


def _groups(cases: Sequence[TrainingCase]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for case in sorted(cases, key=lambda case: case.case_id):
        found[case.group].append(case.case_id)
    return dict(sorted(found.items()))


def _draw(groups: Mapping[str, Sequence[str]], wanted: int, rng: np.random.Generator) -> frozenset[str]:
    """Whole groups in random order, as long as they fit."""
    names = list(groups)
    drawn: list[str] = []
    for number in rng.permutation(len(names)):
        members = groups[names[number]]
        if len(drawn) + len(members) <= wanted:
            drawn += members
    return frozenset(drawn)


def _deal(groups: Mapping[str, Sequence[str]], folds: int, rng: np.random.Generator) -> dict[str, int | None]:
    """The largest groups first, each to the fold that has least so far."""
    names = [list(groups)[number] for number in rng.permutation(len(groups))]
    names.sort(key=lambda name: -len(groups[name]))  # stable: equal ones stay shuffled
    sizes = [0] * folds
    fold_of: dict[str, int | None] = {}
    for name in names:
        fold = sizes.index(min(sizes))
        sizes[fold] += len(groups[name])
        fold_of |= dict.fromkeys(groups[name], fold)
    return dict(sorted(fold_of.items()))
