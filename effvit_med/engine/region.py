"""Region of interest: a box found by a quick look at low resolution, inside which the network then looks closely."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from effvit_med.engine.scoring import Predict, RowSource, Scoring, stream_scores
from effvit_med.engine.tiling import Size
from effvit_med.transforms import PreparedRows, network_grid, strided_grid
from effvit_med.transforms.decision import Decision
from effvit_med.transforms.resampling import RowResampler
from effvit_med.volume import Finding, Geometry, Volume

BODY_SPACING_MM = 6.0
"""The grid on which the body is looked for."""

BODY_MARGIN_MM = 10.0
"""How far the box reaches beyond the body that was found."""

ORGANS_COARSER = 2.0
"""How many times coarser than the network's grid the organs are looked for."""

ORGANS_MARGIN_MM = 25.0
"""How far the box reaches beyond the organs that were found: a coarse look misses thin ends."""

LARGE_PART = 0.02
"""A part counts as body from this share of the largest part on: a limb does, a cable or noise does not."""

_AIR_HU = -300.0


@dataclass(frozen=True)
class Box:
    """A part of a grid.

    Attributes:
        start: first index along each axis.
        stop: index behind the last along each axis.
    """

    start: Size
    stop: Size

    @property
    def shape(self) -> Size:
        """Voxels along each axis."""
        a, b, c = (stop - start for start, stop in zip(self.start, self.stop, strict=True))
        return a, b, c

    def grown(self, least: Size, margin: Size, shape: Size) -> Box:
        """The box with a margin and of a least size, as far as the grid goes.

        Args:
            least: voxels along each axis; a network sees a whole window of the scan, not air around a small box.
            margin: voxels added at both ends of each axis.
            shape: of the grid.

        Examples:
            >>> Box((0, 8, 3), (2, 10, 5)).grown((4, 4, 4), (0, 0, 1), (10, 10, 10))
            Box(start=(0, 6, 2), stop=(4, 10, 6))
        """
        ends = []
        for start, stop, size, more, end in zip(self.start, self.stop, least, margin, shape, strict=True):
            missing = max(0, size - (stop - start) - 2 * more)
            first = max(0, min(start - more - missing // 2, end - min(end, max(size, stop - start + 2 * more))))
            ends.append((first, min(end, max(stop + more, first + size))))
        (a, d), (b, e), (c, f) = ends
        return Box((a, b, c), (d, e, f))

    def part_of(self, grid: Geometry) -> float:
        """Its share of the voxels of a grid."""
        return math.prod(self.shape) / math.prod(grid.shape)

    def tell(self, kind: str, grid: Geometry) -> Finding:
        """That only this part was segmented.

        Args:
            kind: what it was found around, such as ``body``.
            grid: all of it.
        """
        share = 100 * self.part_of(grid)
        text = (
            f"Only a box around the {kind}, {share:.0f} % of the grid, was segmented; it was found by a quick look at "
            "low resolution, and everything outside it is background without having been looked at closely."
        )
        return Finding("REGION_ONLY", text)

    def crop(self, grid: Geometry) -> Geometry:
        """The geometry of the part."""
        affine = grid.affine.copy()
        steps = np.array(self.start, dtype=np.float64)
        offsets = grid.slice_offsets
        if offsets is not None:
            axis = grid.slice_axis
            steps[axis] = offsets[self.start[axis]]
            kept = offsets[self.start[axis] : self.stop[axis]]
            offsets = tuple(offset - kept[0] for offset in kept)
        affine[:3, 3] += affine[:3, :3] @ steps
        return replace(grid, affine=affine, shape=self.shape, slice_offsets=offsets)


@dataclass(frozen=True, eq=False)
class BoxRows:
    """The rows of a prepared volume inside a box.

    Attributes:
        rows: those of the whole volume.
        box: the part.
    """

    rows: RowSource
    box: Box

    @property
    def shape(self) -> Size:
        """The size of the box."""
        return self.box.shape

    def read(self, start: int, stop: int) -> Float[Tensor, "channels rows g1 g2"]:
        """Rows of the box, from ``start`` up to but not including ``stop``."""
        first, (_, b, c), (_, e, f) = self.box.start[0], self.box.start, self.box.stop
        return self.rows.read(first + start, first + stop)[:, :, b:e, c:f]


def find_body(volume: Volume, grid: Geometry) -> Box | None:
    """The box around the body, both legs or arms too: all large connected parts that are not air, seen at 6 mm.

    Air is what lies below -300 HU in a CT. Elsewhere it is what lies below the most frequent dark value and a tenth of
    the way from there to the mean of what is bright, so that a body whose signal fades towards the ends is held.

    Args:
        volume: the scan.
        grid: the network's grid for it.

    Returns:
        A box of the grid with a margin of 10 mm, or None if nothing was found.
    """
    spacing = tuple(max(BODY_SPACING_MM, each) for each in volume.geometry.spacing_mm)
    coarse = network_grid(volume.geometry, None, (spacing[0], spacing[1], spacing[2]))
    values = RowResampler(volume.array, volume.geometry, coarse).read(0, coarse.shape[0]).numpy()
    threshold = _AIR_HU if volume.modality == "CT" else _air_threshold(values)
    parts, count = ndimage.label(values > threshold)
    if not count:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return _box_around((sizes >= LARGE_PART * sizes.max())[parts], coarse, grid, BODY_MARGIN_MM)


def find_organs(
    volume: Volume,
    grid: Geometry,
    predict: Predict,
    scoring: Scoring,
    progress: Callable[[int, int], None] | None = None,
    decision: Decision = Decision.HIGHEST,
) -> Box | None:
    """The box around all structures that the network itself finds on a grid twice as coarse as its own.

    Args:
        volume: the scan.
        grid: the network's grid for it.
        predict: the network.
        scoring: how the grid is cut up.
        progress: called as progress(done, total) windows; may raise to stop.
        decision: how scores tell what is there.

    Returns:
        A box of the grid with a margin of 25 mm, or None if nothing was found.
    """
    spacing = tuple(each * ORGANS_COARSER for each in grid.spacing_mm)
    coarse = replace(scoring.preprocess, spacing_mm=(spacing[0], spacing[1], spacing[2]))
    rows = PreparedRows(volume, coarse)
    tiling = replace(scoring.tiling, overlap=0.0)
    found = [
        scores.argmax(dim=-1) > 0 if decision == Decision.HIGHEST else (scores > 0).any(dim=-1)
        for scores in stream_scores(
            rows, predict, replace(scoring, preprocess=coarse, tiling=tiling), progress=progress
        )
    ]
    mask = torch.cat(found).numpy()
    return _box_around(mask, strided_grid(rows.grid, scoring.stride), grid, ORGANS_MARGIN_MM) if mask.any() else None


def _box_around(mask: npt.NDArray[np.bool_], place: Geometry, grid: Geometry, margin_mm: float) -> Box:
    """The voxels of a grid within a margin of the true voxels of a mask that lies elsewhere."""
    places = np.argwhere(mask)
    low, high = places.min(axis=0) - 0.5, places.max(axis=0) + 0.5
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, 8).T
    index = grid.world_to_index(place.index_to_world(corners))
    margin = margin_mm / np.array(grid.spacing_mm)
    last = np.array(grid.shape)
    start = np.clip(np.floor(index.min(axis=0) - margin).astype(int), 0, last - 1)
    stop = np.clip(np.ceil(index.max(axis=0) + margin).astype(int) + 1, start + 1, last)
    (a, b, c), (d, e, f) = start.tolist(), stop.tolist()
    return Box((a, b, c), (d, e, f))


def _air_threshold(values: npt.NDArray[np.float32]) -> float:
    """A threshold close above the values of air, in a unit that is not known."""
    middle = _otsu(values)
    dark, bright = values[values <= middle], values[values > middle]
    counts, edges = np.histogram(dark, bins=64)
    air = float(edges[int(np.argmax(counts))])
    return air + 0.1 * (float(bright.mean()) - air) if bright.size else middle


def _otsu(values: npt.NDArray[np.float32]) -> float:
    """The threshold between two groups of values whose means are furthest apart.

    Source:
        Otsu, A threshold selection method from gray-level histograms, IEEE Transactions SMC 9 (1979), equation 18.
    """
    counts, edges = np.histogram(values, bins=256)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1 + int(np.nanargmax(np.where(above > 0, between, -1)))])
