"""Which values are shown from black to white, by modality. Knows neither napari nor Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_SAMPLES = 200_000


@dataclass(frozen=True)
class Window:
    """A window preset: either fixed limits, or percentiles of the scan's own values.

    Attributes:
        name: as the user sees it.
        limits: lowest and highest value shown, HU for CT; None to take percentiles.
        percentiles: lowest and highest, 0 to 100, of the values of the scan.
    """

    name: str
    limits: tuple[float, float] | None = None
    percentiles: tuple[float, float] = (0.5, 99.5)

    def limits_of(self, array: npt.NDArray[Any]) -> tuple[float, float]:
        """The limits for a scan; the second is always larger than the first.

        Args:
            array: its values; for percentiles, a sample of them is looked at.

        Examples:
            >>> WINDOWS["CT"][0].limits_of(np.zeros(3))
            (-160.0, 240.0)
        """
        low, high = self.limits or self._percentiles_of(array)
        return (low, high) if high > low else (low, low + 1.0)

    def _percentiles_of(self, array: npt.NDArray[Any]) -> tuple[float, float]:
        step = max(1, round((array.size / _SAMPLES) ** (1 / array.ndim)))
        sample = array[tuple(slice(None, None, step) for _ in range(array.ndim))]
        low, high = np.percentile(sample, self.percentiles)
        return float(low), float(high)


def _hounsfield(name: str, centre: float, width: float) -> Window:
    return Window(name, (centre - width / 2, centre + width / 2))


_AUTO = Window("from 0.5 to 99.5 %")
_ALL = Window("all values", percentiles=(0, 100))

WINDOWS: dict[str, tuple[Window, ...]] = {
    "CT": (
        _hounsfield("abdomen", 40, 400),
        _hounsfield("lung", -600, 1500),
        _hounsfield("bone", 480, 2500),
        _hounsfield("brain", 40, 80),
        _hounsfield("mediastinum", 50, 350),
        _hounsfield("liver", 90, 150),
        _ALL,
    ),
    "PT": (Window("from 0 to 99.9 %", percentiles=(0, 99.9)), _AUTO, _ALL),
}
"""By DICOM Modality; the first is where a scan starts. CT in HU."""

OTHER_WINDOWS = (_AUTO, Window("from 2 to 98 %", percentiles=(2, 98)), _ALL)
"""For every other modality, and where it is not known."""


def windows_for(modality: str) -> tuple[Window, ...]:
    """The presets of a modality, the first as default.

    Args:
        modality: DICOM Modality; empty if not known.
    """
    return WINDOWS.get(modality, OTHER_WINDOWS)
