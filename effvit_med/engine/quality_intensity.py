"""How unlike the training scans the values of a scan are: its profile, and one number for the distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from effvit_med.engine.quality_reference import IntensityReference
from effvit_med.transforms.intensity import Intensity
from effvit_med.volume import Volume
from effvit_med.volume.pages import count_slab, find_outermost, release_pages

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)

_SAMPLE = 1_000_000
_FEWEST = 1000
_LEAST_SD = 0.005  # of the range that is looked at: cases that happen to agree more closely prove nothing

Profile = npt.NDArray[np.float64]


def measure_profile(volume: Volume, intensity: Intensity) -> Profile | None:
    """The spread of a scan's values as its model sees them, the same for any size of the field of view.

    For a window: quantiles of the values strictly inside it, as shares of its width, and the share of values above it
    among those not below it. Air around the patient lies below the window and so does not count. For percentiles: the
    quantiles of the values clipped to them, after subtracting the mean and dividing by the standard deviation.

    Args:
        volume: the scan; about a million voxels are looked at, evenly spread.
        intensity: how the bundle scales values.

    Returns:
        (8,) or (7,) numbers; None where fewer than a thousand voxels lie in the range.
    """
    values = _sample(volume.array)
    if intensity.kind == "window":
        inside = values[(values > intensity.low) & (values < intensity.high)]
        if len(inside) < _FEWEST:
            return None
        width = intensity.high - intensity.low
        above = np.count_nonzero(values >= intensity.high)
        shares = (np.quantile(inside, QUANTILES) - intensity.low) / width
        return np.array([*shares, above / (above + len(inside))])
    if len(values) < _FEWEST:
        return None
    low, high = np.percentile(values, (intensity.low, intensity.high))
    clipped = np.clip(values, low, high)
    spread = float(clipped.std())
    return (np.quantile(clipped, QUANTILES) - clipped.mean()) / spread if spread > 0 else None


def score_profile(profile: Profile, reference: IntensityReference) -> float:
    """The distance of a scan from the training scans, in units of their own spread.

    The root of the mean squared departure of the profile's numbers from the training mean, each divided by its standard
    deviation over the training scans: about 1 for a scan of the training data.

    Args:
        profile: as `measure_profile` gives it.
        reference: of the bundle.

    Examples:
        >>> from effvit_med.engine.quality_reference import Spread
        >>> one = Spread.of([1.0])
        >>> reference = IntensityReference(
        ...     kind="window", low=0, high=1, mean=(0.5, 0.5), sd=(0.1, 0.1), training_scores=one, unseen_scores=one
        ... )
        >>> round(score_profile(np.array([0.5, 0.7]), reference), 4)
        1.4142
    """
    departure = (profile - np.array(reference.mean)) / np.maximum(np.array(reference.sd), _LEAST_SD)
    return float(np.sqrt(np.mean(departure**2)))


def why_not_comparable(intensity: Intensity, reference: IntensityReference) -> str:
    """Why a reference says nothing about scans that are scaled so; empty if it does."""
    if (intensity.kind, intensity.low, intensity.high) == (reference.kind, reference.low, reference.high):
        return ""
    return (
        f"the reference was made for {reference.kind} {reference.low:g} to {reference.high:g}, the bundle now looks at "
        f"{intensity.kind} {intensity.low:g} to {intensity.high:g}"
    )


def _sample(array: npt.NDArray[np.number]) -> npt.NDArray[np.float64]:
    """About a million values, evenly spread; a slab of the array at a time is in memory."""
    planes = np.moveaxis(array, find_outermost(array), 0)
    step = max(1, round((array.size / _SAMPLE) ** (1 / 3)))
    slab = -(-count_slab(planes) // step) * step
    parts = []
    for start in range(0, len(planes), slab):
        parts.append(planes[start : start + slab : step, ::step, ::step].astype(np.float64).ravel())
        release_pages(array)
    values = np.concatenate(parts)
    return values[np.isfinite(values)]
