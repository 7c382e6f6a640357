"""Training pairs for super-resolution: a scan degraded as a scanner with thicker slices or larger pixels would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from effvit_med.engine.super_resolution import SuperResolution, grid_scale, value_range
from effvit_med.engine.tiling import Size
from effvit_med.errors import GeometryError, SettingsError
from effvit_med.networks.super_resolution import SuperResolutionNetwork
from effvit_med.transforms import stack_neighbours
from effvit_med.volume import Geometry, Volume


@dataclass(frozen=True)
class Pair:
    """A scan and what is left of it.

    Attributes:
        low: the degraded scan; each of its voxels is the mean of a block.
        high: the scan, cut at the far ends to whole blocks; on the grid that `refine_geometry` makes of the low one.
    """

    low: Volume
    high: Volume


@dataclass(frozen=True)
class Schedule:
    """How a network is trained.

    Attributes:
        steps: how many patches' gradients are followed.
        patch: size of a low patch, one number per axis of the network; cut to the scan where that is smaller.
        batch_size: patches a step; at least 2 where a patch is a single voxel of the deepest map and the normalisation
            is that of batches.
        learning_rate: at its highest; it rises over the first tenth and falls to zero.
        seed: decides patches and flips.
        resolution: how the scan is scaled, and across which axis a 2D network sees planes.
    """

    steps: int
    patch: tuple[int, ...]
    batch_size: int = 4
    learning_rate: float = 3e-3
    seed: int = 0
    resolution: SuperResolution = field(default_factory=SuperResolution)


def degrade(volume: Volume, scale: Sequence[int]) -> Pair:
    """The pair of a scan and its coarser self, whose voxels are the means of blocks.

    Along slices that is a scan of slices ``scale`` times as thick, without gap, and a rectangular slice profile; in
    plane it is a detector with larger elements. Noise is averaged with the rest, as thicker slices do.

    Args:
        volume: a scan on a regular grid.
        scale: the size of a block along each array axis.

    Raises:
        GeometryError: if slices are missing or at unequal distances, or the scan is smaller than one block.
        SettingsError: if the scale is not three whole numbers of at least 1.

    Examples:
        >>> scan = Volume(np.arange(7.0).reshape(7, 1, 1), Geometry(np.diag([2.0, 1.0, 1.0, 1.0]), (7, 1, 1)))
        >>> pair = degrade(scan, (3, 1, 1))
        >>> pair.low.array.ravel().tolist(), pair.low.geometry.spacing_mm[0], pair.high.geometry.shape
        ([1.0, 4.0], 6.0, (6, 1, 1))
    """
    if len(scale) != 3 or any(factor != int(factor) or factor < 1 for factor in scale):
        raise SettingsError(f"scale is {tuple(scale)}; give three whole numbers of at least 1, one per array axis.")
    geometry = volume.geometry
    if not geometry.is_regular:
        raise GeometryError("The slices of the scan are at unequal distances; no blocks of equal size can be averaged.")
    counts = [n // factor for n, factor in zip(geometry.shape, scale, strict=True)]
    if min(counts) < 1:
        raise GeometryError(f"The scan of {geometry.shape} voxels is smaller than one block of {tuple(scale)}.")
    size = [count * factor for count, factor in zip(counts, scale, strict=True)]
    array = volume.array[: size[0], : size[1], : size[2]].astype(np.float32)
    high = Volume(array, Geometry(geometry.affine, _three(size), geometry.frame_of_reference_uid), volume.modality)
    blocks = array.reshape([number for count, factor in zip(counts, scale, strict=True) for number in (count, factor)])
    affine = geometry.affine.copy()
    affine[:3, :3] *= np.array(scale)
    affine[:3, 3] = geometry.index_to_world((np.array(scale) - 1) / 2)
    coarse = Geometry(affine, _three(counts), geometry.frame_of_reference_uid)
    return Pair(Volume(blocks.mean(axis=(1, 3, 5)), coarse, volume.modality), high)


def train(network: SuperResolutionNetwork, volumes: Sequence[Volume], schedule: Schedule) -> list[float]:
    """The loss of every step, in the unit of the scans; the network is trained in place and left in eval mode.

    The loss is the mean absolute error of the finer patch, without the outermost low voxel of each side, which lacks
    a neighbour that it has in the scan. Patches are mirrored by chance along every axis, as blocks have no direction.

    Args:
        network: a new or trained network of one output channel.
        volumes: fine scans; each is degraded by the network's scale.
        schedule: how long, on what and how fast.

    Raises:
        SettingsError: if there are no volumes, or patch and network have not as many axes.
        GeometryError: if a scan cannot be degraded.
    """
    if not volumes:
        raise SettingsError("There are no volumes to train on; give at least one.")
    if len(schedule.patch) != network.spatial_dims:
        raise SettingsError(f"The patch {schedule.patch} must have one size for each of {network.spatial_dims} axes.")
    draws = [_Draw.of(degrade(each, grid_scale(network, schedule.resolution.plane_axis)), schedule) for each in volumes]
    rng = np.random.default_rng(schedule.seed)
    optimiser = torch.optim.AdamW(network.parameters(), schedule.learning_rate, weight_decay=1e-4)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, schedule.steps))
    device = next(network.parameters()).device
    losses = []
    network.train()
    for _ in tqdm(range(schedule.steps), desc="training", disable=None):
        pairs, unit = _draw_batch(draws, network, schedule, rng)
        low, high = (torch.stack(patches).to(device) for patches in zip(*pairs, strict=True))
        loss = functional.l1_loss(_inner(network(low), network.scale), _inner(high, network.scale))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # documented, but not typed
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        rates.step()
        losses.append(float(loss.detach()) * unit)
    network.eval()
    return losses


@dataclass(frozen=True)
class _Draw:
    """A scaled pair, planes first where the network sees planes; ``unit`` brings a difference back to the scan's."""

    low: Tensor
    high: Tensor
    unit: float

    @classmethod
    def of(cls, pair: Pair, schedule: Schedule) -> _Draw:
        low, high = (torch.from_numpy(each.array) for each in (pair.low, pair.high))
        middle, half = value_range(low, schedule.resolution.intensity)
        axis = schedule.resolution.plane_axis if len(schedule.patch) == 2 else 0
        low, high = (((each - middle) / half).movedim(axis, 0) for each in (low, high))
        return cls(low, high, half)


def _draw_batch(
    draws: Sequence[_Draw], network: SuperResolutionNetwork, schedule: Schedule, rng: np.random.Generator
) -> tuple[list[tuple[Tensor, Tensor]], float]:
    """Patches of one scan, all of one size, and the unit of their difference."""
    draw = draws[int(rng.integers(len(draws)))]
    pairs = []
    for _ in range(schedule.batch_size):
        low, high = _draw_patch(draw, network, schedule, rng)
        flips = [axis for axis in range(1, low.dim()) if rng.random() < 0.5]
        pairs.append((low.flip(flips), high.flip(flips)))
    return pairs, draw.unit


def _draw_patch(
    draw: _Draw, network: SuperResolutionNetwork, schedule: Schedule, rng: np.random.Generator
) -> tuple[Float[Tensor, "in_channels *low"], Float[Tensor, "one *high"]]:
    values, high, channels_first = draw.low, draw.high, draw.low[None]
    if network.spatial_dims == 2:
        plane = int(rng.integers(values.shape[0]))
        channels_first = stack_neighbours(values[None], range(plane, plane + 1), network.in_channels // 2)[0]
        high = high[plane]
    places, fine_places = [], []
    for n, wanted, factor in zip(channels_first.shape[1:], schedule.patch, network.scale, strict=True):
        size = min(wanted, n)
        start = int(rng.integers(n - size + 1))
        places.append(slice(start, start + size))
        fine_places.append(slice(start * factor, (start + size) * factor))
    return channels_first[(slice(None), *places)], high[tuple(fine_places)][None]


def _rate(step: int, steps: int) -> float:
    """The share of the learning rate: a straight rise over the first tenth, under half a cosine."""
    return min(1.0, (step + 1) / max(1.0, steps / 10)) * (1 + math.cos(math.pi * step / max(1, steps))) / 2


def _inner(x: Tensor, scale: Sequence[int]) -> Tensor:
    """The finer patch without the outermost low voxel of each side, where that leaves something."""
    for axis, factor in enumerate(scale, start=2):
        size = x.shape[axis] - 2 * factor
        x = x.narrow(axis, factor, size) if size > 0 else x
    return x


def _three(sizes: Sequence[int]) -> Size:
    return int(sizes[0]), int(sizes[1]), int(sizes[2])
