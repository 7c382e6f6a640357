"""How real sets are divided, the same for every benchmark: by group, with a fixed seed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SPLIT_SEED = 0
"""Of the permutation of the groups' names that the splits are cut from."""


def cut_groups(groups: Iterable[str], folds: int, fold: int = 0) -> tuple[list[str], list[str]]:
    """The groups to learn from, in an order that says nothing, and those that are tested.

    Names are sorted, permuted with a fixed seed, and cut into parts; one part is tested.

    Args:
        groups: what must not be torn, such as patients; repeats do not matter.
        folds: in how many parts they are cut.
        fold: which part is tested, from 0.

    Returns:
        Those learnt from and those tested.

    Raises:
        ValueError: if there is no such fold.

    Examples:
        >>> cut_groups("abcde", 5)
        (['e', 'd', 'a', 'b'], ['c'])
    """
    if not 0 <= fold < folds:
        raise ValueError(f"fold {fold} is asked for; there are {folds}, from 0")
    parts = np.array_split(np.random.default_rng(SPLIT_SEED).permutation(np.array(sorted(set(groups)))), folds)
    learnt = [group for number, part in enumerate(parts) if number != fold for group in part.tolist()]
    return learnt, parts[fold].tolist()
