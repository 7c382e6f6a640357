"""What the search trains on and scores: whole cases in memory, on the network's grid and in its range of values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import versus_sets
from benchmarks.splits import cut_groups

Case = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """What the search does with a set of the accuracy benchmark.

    Attributes:
        patch: size of what one training sample shows.
        held: how many groups of the part that is learnt from are scored and not learnt from.
        mirrored: axes along which a mirrored sample is as good as the original.
        steps: how many make a short run.
    """

    patch: tuple[int, ...]
    held: int
    mirrored: tuple[int, ...]
    steps: int


#: By name: whole volumes of 3 cm, where everything is near, and photographs of 999 x 960 with vessels across them.
#: Hippocampi are mirrored from side to side only: mirrored from front to back, anterior is where posterior was.
SETS = {
    "hippocampus": Task(patch=(40, 56, 40), held=30, mirrored=(2,), steps=600),
    "vessels": Task(patch=(256, 256), held=2, mirrored=(0, 1), steps=400),
}


@dataclass(frozen=True)
class SearchSet:
    """Cases to learn from and cases to be scored on.

    Attributes:
        name: of the set.
        spatial_dims: 2 or 3.
        classes: background included.
        patch: size of what one training sample shows.
        training: images (1, *space) and labels (*space).
        validation: the same, never trained on; the test cases of the accuracy benchmark are in neither.
        mirrored: axes along which a mirrored sample is as good as the original.
    """

    name: str
    spatial_dims: int
    classes: int
    patch: tuple[int, ...]
    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    mirrored: tuple[int, ...]


def load_set(name: str, data: Path) -> SearchSet:
    """A set by its name, prepared as for the accuracy benchmark.

    Args:
        name: one of `SETS`.
        data: the folder of openly licensed scans.
    """
    labelled, task = versus_sets.SETS[name], SETS[name]
    cases = versus_sets.list_cases(labelled, data)
    learnt, _ = cut_groups((case.group for case in cases), labelled.folds)

    def load(groups: list[str]) -> tuple[Case, ...]:
        found = []
        for case in (case for case in cases if case.group in groups):
            prepared = versus_sets.prepare_case(labelled, case)
            values, labels = torch.from_numpy(prepared.values), torch.from_numpy(prepared.labels).long()
            found.append((values[:, 0], labels[0]) if labelled.spatial_dims == 2 else (values, labels))
        return tuple(found)

    return SearchSet(
        name=name,
        spatial_dims=labelled.spatial_dims,
        classes=len(labelled.structures) + 1,
        patch=task.patch,
        training=load(learnt[: -task.held]),
        validation=load(learnt[-task.held :]),
        mirrored=task.mirrored,
    )
