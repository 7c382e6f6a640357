"""From a network and a prepared case to labels on the image's own grid and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.versus_sets import TOLERANCE_MM, LabelledSet, PreparedCase, as_labels
from effvit_med.evaluation import StructureScore, score_case
from effvit_med.transforms import cut_mirrored, label_grid

Predict = Callable[[Tensor], Tensor]
"""From images (1, 1, *space), padded, to logits of their size."""


def pad_image(labelled: LabelledSet, values: Tensor) -> Tensor:
    """The image, mirrored at the far ends up to a training crop at least, and to a multiple of the set's divisor.

    All networks have learnt from crops of that size, and many take statistics from what they are shown.

    Args:
        labelled: the set.
        values: (1, g0, g1, g2).
    """
    free = range(3) if labelled.spatial_dims == 3 else range(1, 3)
    least = [max(edge, size) for edge, size in zip(labelled.patch, values.shape[1:], strict=True)]
    sizes = [size + -size % labelled.divisor if axis in free else size for axis, size in enumerate(least)]
    return cut_mirrored(values, (0, 0, 0), sizes)


def predict_scores(labelled: LabelledSet, predict: Predict, values: Tensor) -> Tensor:
    """The scores (classes, g0, g1, g2) of a whole image in one pass; slices of a volume one after another for 2D.

    Args:
        labelled: the set.
        predict: the network.
        values: (1, g0, g1, g2).
    """
    padded = pad_image(labelled, values)
    if labelled.spatial_dims == 3:
        scores = predict(padded[None])[0]
    else:
        scores = torch.stack([predict(padded[None, :, number])[0] for number in range(padded.shape[1])], 1)
    return scores[:, : values.shape[1], : values.shape[2], : values.shape[3]]


def watch_dice(labelled: LabelledSet, predict: Predict, cases: Sequence[PreparedCase]) -> float:
    """Mean Dice over structures and cases on the network's grid: for the curves, not for the table."""
    found = []
    for case in cases:
        labels = predict_scores(labelled, predict, torch.from_numpy(case.values)).argmax(0).numpy()
        for value in range(1, len(labelled.structures) + 1):
            ours, truth = labels == value, case.labels == value
            both = np.count_nonzero(ours & truth)
            total = np.count_nonzero(ours) + np.count_nonzero(truth)
            found += [2 * both / total] if truth.any() else []
    return float(np.mean(found))


def score_prepared(labelled: LabelledSet, predict: Predict, case: PreparedCase) -> tuple[StructureScore, ...]:
    """The scores of a case on the image's own grid."""
    scores = predict_scores(labelled, predict, torch.from_numpy(case.values))
    labels = label_grid(scores, case.grid, case.reference.geometry).numpy().astype(np.uint8)
    found = as_labels(labelled, labels, case.reference.geometry)
    return score_case(case.reference, found, TOLERANCE_MM)


def keep_scores(scores: Mapping[str, Sequence[StructureScore]]) -> dict[str, list[dict[str, Any]]]:
    """Scores by case as plain values."""
    return {case: [asdict(score) for score in rows] for case, rows in scores.items()}


def read_scores(kept: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, tuple[StructureScore, ...]]:
    """The inverse of `keep_scores`."""
    return {case: tuple(StructureScore(**row) for row in rows) for case, rows in kept.items()}
