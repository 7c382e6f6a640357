"""Which mixture of red, green and blue shows best what is marked in photographs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from effvit_med.io.photographs import LUMA, read_photograph
from effvit_med.io.read import read_truth
from effvit_med.planning.choice import Chooser
from effvit_med.planning.training_set import TrainingCase

Weights = tuple[float, float, float]

CHANNELS: dict[str, Weights] = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}
CLEARLY = 1.1
"""So many times the contrast of brightness must a single colour have to take its place."""

LOOKED_AT = 12
"""So many pictures are looked at, evenly drawn."""


def choose_colours(chooser: Chooser, cases: Sequence[TrainingCase], ignore: int | None = None) -> Weights:
    """Decide the weights of red, green and blue in the one channel that the network sees.

    Args:
        chooser: takes the decision.
        cases: photographs with their label maps.
        ignore: the label value of pixels about which nothing is said.
    """
    some = cases[:: max(1, len(cases) // LOOKED_AT)][:LOOKED_AT]
    plain = measure_contrast(some, LUMA, ignore)
    found = {name: measure_contrast(some, weights, ignore) for name, weights in CHANNELS.items()}
    best = max(found, key=lambda name: found[name])
    told = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    reason = f"Contrast of what is marked against what lies around it: brightness {plain:.2f}, {told}"
    if found[best] > CLEARLY * plain:
        value, reason = CHANNELS[best], f"{reason}; {best} alone shows it best."
    else:
        value, reason = LUMA, f"{reason}; no single colour shows it clearly better than brightness."
    weights: Weights = chooser.choose("colour_weights", value, reason)
    return weights


def measure_contrast(cases: Sequence[TrainingCase], weights: Weights, ignore: int | None = None) -> float:
    """How much marked pixels differ from their surroundings, in standard deviations of the rest; the median case.

    Slow changes of brightness over a picture are taken out first.

    Args:
        cases: photographs with their label maps.
        weights: shares of red, green and blue.
        ignore: the label value of pixels about which nothing is said.
    """
    contrasts = []
    for case in cases:
        picture = read_photograph(case.image, colour_weights=weights)
        labels = read_truth(case.label, picture.geometry).array[0]
        marked = (labels > 0) & (labels != (-1 if ignore is None else ignore))
        values = picture.array[0].astype(np.float64)
        values -= ndimage.uniform_filter(values, max(15, min(values.shape) // 16))
        if marked.any() and not marked.all():
            rest = values[~marked]
            contrasts.append(abs(values[marked].mean() - rest.mean()) / max(1e-9, rest.std()))
    return float(np.median(contrasts)) if contrasts else 0.0
