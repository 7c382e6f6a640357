"""One preprocessing for 2D, 2.5D and 3D: the same settings serve training, the engine and the bundle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from effvit_med.errors import GeometryError, InputError, RefusedError, SettingsError
from effvit_med.transforms.intensity import Intensity, measure_scale
from effvit_med.transforms.mirroring import mirrored_places
from effvit_med.transforms.resampling import BLOCK_VALUES, RowResampler, resample, resampling_memory
from effvit_med.transforms.spatial import network_grid
from effvit_med.volume import Geometry, Volume
from effvit_med.volume.pages import SLAB_BYTES, count_slab, find_outermost, lies_on_disk, release_pages

LARGEST_GRID = 1 << 30
"""Voxels of the largest grid that a scan is brought onto: two metres of 1 mm slices of 700 x 700."""

HELD_VALUES = 1 << 25
"""Voxels of the largest grid that is kept while its percentiles are found (128 MiB); above, it is made three times."""

_PART_VALUES = 1 << 20
_PART_BYTES = 48  # of a value while it is scaled, sorted or counted


@dataclass(frozen=True)
class Preprocess:
    """How a scan becomes the input of a network.

    * 3D: ``spatial_dims=3``; the network sees blocks of the grid.
    * 2D: ``spatial_dims=2``; the network sees one slice of the grid's axis 0 at a time.
    * 2.5D: ``spatial_dims=2, neighbours=k``; it sees k slices on each side as more channels, and labels the middle.

    Args:
        spacing_mm: voxel spacing along each axis of the network's grid; None keeps the scan's own.
        orientation: letters towards which the axes of the grid grow, or None to keep the scan's axes.
        intensity: how values are scaled.
        spatial_dims: 2 or 3.
        neighbours: slices on each side of the middle one, 2D networks only.

    Raises:
        SettingsError: if a spacing is not above 0, the orientation has not one letter for each patient axis,
            spatial_dims is not 2 or 3, or neighbours is negative or used with 3D.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    spacing_mm: tuple[float | None, float | None, float | None]
    orientation: str | None = "SPL"
    intensity: Intensity = field(default_factory=Intensity)
    spatial_dims: int = 3
    neighbours: int = 0

    def __post_init__(self) -> None:
        if [spacing is None or 0 < spacing < np.inf for spacing in self.spacing_mm] != [True] * 3:
            raise SettingsError(f"spacing_mm is {self.spacing_mm}; give three spacings above 0, or null to keep one.")
        if self.orientation is not None:
            try:
                Geometry(np.eye(4), (1, 1, 1)).reorienting(self.orientation)
            except GeometryError as error:
                raise SettingsError(str(error)) from error
        if self.spatial_dims not in (2, 3):
            raise SettingsError(f"spatial_dims is {self.spatial_dims}; it must be 2 or 3.")
        if self.neighbours < 0 or (self.neighbours and self.spatial_dims == 3):
            raise SettingsError(f"neighbours is {self.neighbours}; it must be 0 or more, and 0 for 3D.")

    @property
    def slices_per_input(self) -> int:
        """How many slices the network sees at once as channels: 1 for 3D and 2D, 2k+1 for 2.5D."""
        return 2 * self.neighbours + 1


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan as a network sees it.

    Attributes:
        values: (1, g0, g1, g2) scaled values.
        grid: where they lie; `effvit_med.transforms.label_grid` leads from it back to the scan.
    """

    values: Float[Tensor, "1 g0 g1 g2"]
    grid: Geometry


@dataclass(frozen=True)
class PreparingMemory:
    """What preparing a scan holds beside the scan and the rows that are asked for.

    Attributes:
        scratch_bytes: while rows are made, on the processor.
        device_bytes: while rows are made, on the accelerator where they come to lie.
        thin_bytes: of a tilted scan, averaged on its own grid, on the processor to the end.
        held_bytes: of the grid that percentiles are found of, where the rows lie, to the end.
    """

    scratch_bytes: int = 0
    device_bytes: int = 0
    thin_bytes: int = 0
    held_bytes: int = 0


def preparing_memory(volume: Volume, settings: Preprocess) -> PreparingMemory:
    """What `PreparedRows` of a scan holds at most, found from its sizes alone.

    Args:
        volume: the scan; its values are not looked at.
        settings: how it is prepared.

    Examples:
        >>> scan = Volume(np.zeros((8, 8, 8), np.int16), Geometry(np.eye(4), (8, 8, 8)))
        >>> preparing_memory(scan, Preprocess((2.0, 2.0, 2.0), intensity=Intensity("percentile", 1, 99))).held_bytes
        256
    """
    grid = network_grid(volume.geometry, settings.orientation, settings.spacing_mm)
    resampling = resampling_memory(volume.geometry, grid, volume.array.dtype)
    percentile, size = settings.intensity.kind == "percentile", math.prod(grid.shape)
    row = grid.shape[1] * grid.shape[2]
    scratch = resampling.scratch_bytes + _PART_BYTES * min(size, max(row, _PART_VALUES))
    if percentile and size > HELD_VALUES:
        scratch += 4 * max(row, BLOCK_VALUES)
    if lies_on_disk(volume.array):
        scratch += max(SLAB_BYTES, volume.array.nbytes // volume.array.shape[find_outermost(volume.array)])
    held = 4 * size if percentile and size <= HELD_VALUES else 0
    return PreparingMemory(scratch, resampling.device_bytes, resampling.thin_bytes, held)


class PreparedRows:
    """A scan as a network sees it, a few rows at a time: what `prepare` gives, without ever holding all of it.

    Args:
        volume: the scan.
        settings: how it is prepared.
        device: where the rows come to lie.

    Attributes:
        grid: where all rows lie.
        value_range: the smallest and the largest value of the scan, in its unit.

    Raises:
        InputError: if a value of the scan is not finite.
        RefusedError: if the grid would be larger than any scan, as when a spacing in the header is wrong.
    """

    def __init__(self, volume: Volume, settings: Preprocess, device: torch.device | None = None) -> None:
        self.grid = network_grid(volume.geometry, settings.orientation, settings.spacing_mm)
        _check_size(self.grid, volume.geometry)
        self.value_range = _value_range(volume.array)
        self._rows = RowResampler(volume.array, volume.geometry, self.grid, self.value_range[0], device)
        self._whole: Tensor | None = None
        if settings.intensity.kind == "percentile" and math.prod(self.grid.shape) <= HELD_VALUES:
            self._whole = self._rows.read(0, self.grid.shape[0])  # it is looked at several times
        self._scale = measure_scale(self._parts, settings.intensity)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The size of the grid."""
        return self.grid.shape

    def read(self, start: int, stop: int) -> Float[Tensor, "1 rows g1 g2"]:
        """The scaled rows from ``start`` up to but not including ``stop`` of axis 0 of the grid."""
        values = self._read(start, stop)
        if self._whole is not None:
            return self._scale(values)[None]
        for part in _split(values):  # in place, so that the rows are there only once
            part.copy_(self._scale(part))
        return values[None]

    def _read(self, start: int, stop: int) -> Tensor:
        return self._rows.read(start, stop) if self._whole is None else self._whole[start:stop]

    def _parts(self) -> Iterator[Tensor]:
        """All values, on the processor: they are counted and summed with a precision that accelerators may not have."""
        rows = max(1, BLOCK_VALUES // (self.grid.shape[1] * self.grid.shape[2]))
        for start in range(0, self.grid.shape[0], rows):
            for part in _split(self._read(start, min(start + rows, self.grid.shape[0]))):
                yield part.cpu()


def _split(values: Tensor) -> Iterator[Tensor]:
    """Rows in parts of about `_PART_VALUES`, as views."""
    rows = max(1, _PART_VALUES // max(1, values[:1].numel()))
    for start in range(0, len(values), rows):
        yield values[start : start + rows]


def prepare(volume: Volume, settings: Preprocess) -> Prepared:
    """A scan on the network's grid, in the network's range of values.

    Args:
        volume: the scan.
        settings: how.

    Returns:
        The values and their grid.

    Raises:
        InputError: if a value of the scan is not finite.
        RefusedError: if the grid would be larger than any scan, as when a spacing in the header is wrong.
    """
    rows = PreparedRows(volume, settings)
    return Prepared(rows.read(0, rows.grid.shape[0]), rows.grid)


def _value_range(array: npt.NDArray[Any]) -> tuple[float, float]:
    """The smallest and the largest value, a few planes at a time as they lie in memory.

    Raises:
        InputError: if a value is not finite.
    """
    low, high, wrong = math.inf, -math.inf, 0
    outer = find_outermost(array)
    step = count_slab(array, outer)
    for start in range(0, array.shape[outer], step):
        part = array[(slice(None),) * outer + (slice(start, start + step),)]
        if part.dtype.kind == "f" and not np.isfinite(part).all():
            wrong += int(np.count_nonzero(~np.isfinite(part)))
        else:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
        release_pages(array)
    if wrong:
        raise InputError(f"{wrong} voxels of the scan are not finite; replace them, or read it with effvit_med.io.")
    return low, high


def prepare_labels(
    labels: npt.NDArray[np.uint8], geometry: Geometry, settings: Preprocess
) -> tuple[Shaped[Tensor, "g0 g1 g2"], Geometry]:
    """A label map on the network's grid: each voxel takes the label that fills most of it.

    What marks ignored voxels is a label like any other, so a voxel is ignored that is mostly covered by such.

    Args:
        labels: (a0, a1, a2) labels on the scan's grid.
        geometry: the scan's grid.
        settings: how the scan itself is prepared.

    Returns:
        uint8 labels and their grid, the same as `prepare` gives for the scan.

    Raises:
        RefusedError: if the grid would be larger than any scan.
    """
    grid = network_grid(geometry, settings.orientation, settings.spacing_mm)
    _check_size(grid, geometry)
    result = torch.zeros(grid.shape, dtype=torch.uint8)
    best = torch.zeros(grid.shape)
    for value in np.flatnonzero(np.bincount(labels.ravel())):
        share = resample(_as_tensor(labels == value), geometry, grid, fill=float(value == 0))
        result[share > best] = int(value)
        best = torch.maximum(best, share)
    return result, grid


def _check_size(grid: Geometry, scan: Geometry) -> None:
    if math.prod(grid.shape) > LARGEST_GRID:
        raise RefusedError(
            "TOO_LARGE",
            f"A scan of {scan.shape} voxels at {scan.spacing_mm} mm would need a grid of {grid.shape} at "
            f"{grid.spacing_mm} mm.",
            "Check the spacing in its header.",
        )


def _as_tensor(array: npt.NDArray[Any]) -> Tensor:
    """An array as a tensor without a copy where torch knows its type and strides."""
    known = array.dtype in (np.bool_, np.uint8, np.int16, np.int32, np.float32) and array.dtype.isnative
    array = np.ascontiguousarray(array if known else array.astype(np.float32))
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def stack_neighbours(
    values: Float[Tensor, "channels slices height width"], centres: range, neighbours: int
) -> Float[Tensor, "batch stacked height width"]:
    """Slices with their neighbours as channels, one batch entry for each centre.

    Args:
        values: (channels, slices, height, width).
        centres: the middle slices.
        neighbours: k slices on each side; beyond the ends the slices mirrored, the end slice first.

    Returns:
        (len(centres), channels * (2k + 1), height, width); the slices of one channel stand together, lowest first.

    Examples:
        >>> stack_neighbours(torch.arange(4.0).reshape(1, 4, 1, 1), range(0, 2), 1).flatten(1).tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 2.0]]
    """
    size = values.shape[1]
    picked = torch.stack([mirrored_places(c - neighbours, c + neighbours + 1, size) for c in centres])
    stacked = values[:, picked]  # (channels, batch, 2k+1, height, width)
    return stacked.transpose(0, 1).flatten(1, 2)
