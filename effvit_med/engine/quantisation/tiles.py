"""Tiles to calibrate on: what the engine itself gives the network."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.engine.tiling import Tiling, place_windows
from effvit_med.errors import SettingsError
from effvit_med.transforms import Preprocess, cut_mirrored, stack_neighbours

_RICH_SHARE = 0.75
_CANDIDATES = 4


def calibration_tiles(
    values: Float[Tensor, "1 g0 g1 g2"], tiling: Tiling, preprocess: Preprocess, count: int, seed: int = 0
) -> list[Tensor]:
    """Tiles of a prepared volume, three quarters of them where there is much to see and one quarter where there is not.

    The candidates are the windows of the engine and, where these are fewer than four for each tile, others at random
    places. How much there is to see
    is the standard deviation of a tile's values. Among the richer half, and then among the rest, each tile is taken as
    far as possible from those taken already.

    Args:
        values: a scan as `effvit_med.transforms.prepare` gives it.
        tiling: the bundle's.
        preprocess: the bundle's; says whether the network takes slices, stacks of slices or blocks.
        count: how many.
        seed: of the random places.

    Returns:
        ``count`` float32 tiles (1, channels, *window); window is two sizes for a 2D network, whose channels are the
        slice and its neighbours.

    Raises:
        SettingsError: if count is below 1.

    Examples:
        >>> tiles = calibration_tiles(torch.rand(1, 8, 8, 8), Tiling((4, 4, 4)), Preprocess((1.0, 1.0, 1.0)), 2)
        >>> [tuple(tile.shape) for tile in tiles]
        [(1, 1, 4, 4, 4), (1, 1, 4, 4, 4)]
    """
    if count < 1:
        raise SettingsError(f"count is {count}; calibration needs at least 1 tile.")
    flat = preprocess.spatial_dims == 2
    window = (1, *tiling.window[1:]) if flat else tiling.window
    sizes = [max(wanted, found) for wanted, found in zip(window, values.shape[1:], strict=True)]
    padded = cut_mirrored(values, (0, 0, 0), sizes)
    shape = (padded.shape[1], padded.shape[2], padded.shape[3])
    starts = place_windows(shape, Tiling(window, tiling.overlap), flat_axes=(0,) if flat else ())
    generator = torch.Generator().manual_seed(seed)
    last = torch.tensor(shape) - torch.tensor(window)
    needed = max(_CANDIDATES * count, len(starts)) - len(starts)
    chance = (torch.rand(needed, 3, generator=generator) * (last + 1)).long()
    places = torch.cat([torch.tensor(starts), chance])
    richness = torch.stack([_cut(padded, place, window).std(correction=0) for place in places])
    order = richness.argsort(descending=True, stable=True)
    half = max(1, len(places) // 2)
    rich = min(-int(-count * _RICH_SHARE // 1), half)
    chosen = _spread(places[order[:half]], rich)
    chosen = torch.cat([chosen, _spread(places[order[half:]], count - rich)])
    return [_tile(padded, place, window, preprocess) for place in chosen]


def _cut(values: Tensor, place: Tensor, window: tuple[int, ...]) -> Tensor:
    a, b, c = (slice(int(start), int(start) + size) for start, size in zip(place, window, strict=True))
    return values[:, a, b, c]


def _tile(values: Tensor, place: Tensor, window: tuple[int, ...], preprocess: Preprocess) -> Tensor:
    if preprocess.spatial_dims == 3:
        return _cut(values, place, window)[None].contiguous()
    column = _cut(values, torch.tensor([0, *place[1:].tolist()]), (values.shape[1], *window[1:]))
    centre = int(place[0])
    return stack_neighbours(column, range(centre, centre + 1), preprocess.neighbours).contiguous()


def _spread(places: Tensor, count: int) -> Tensor:
    """The first place, then each time the one whose nearest chosen place is farthest away."""
    chosen = [0][:count]
    distance = torch.full((len(places),), torch.inf)
    while len(chosen) < count:
        step = (places - places[chosen[-1]]).float().norm(dim=1)
        distance = torch.minimum(distance, step)
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    return places[chosen]
