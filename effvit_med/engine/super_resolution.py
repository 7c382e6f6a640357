"""A finer scan from a coarse one: the same field of view on a finer grid, window by window, with a record of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med import NOT_FOR_CLINICAL_USE
from effvit_med.engine.tiling import Size, Tiling, blending_weight, place_windows
from effvit_med.errors import GeometryError, InputError, SettingsError
from effvit_med.networks.super_resolution import SuperResolutionNetwork
from effvit_med.transforms import Intensity, stack_neighbours
from effvit_med.volume import Finding, Geometry, Source, Volume

ESTIMATED = "ESTIMATED_VOXELS"
"""The code of the finding that every result carries."""

_MARGIN = 1  # input voxels at a cut edge of a window, where interpolation lacks its neighbour


@dataclass(frozen=True)
class SuperResolution:
    """How a scan is made finer.

    Args:
        tiling: window, in voxels of the scan, and overlap. For 2D networks the size along ``plane_axis`` is the number
            of slices that go through together. Larger windows than the scan are cut to its size.
        intensity: what is mapped to -1 and 1 for the network: a window in the scan's unit, or two percentiles of its
            values. Unlike for segmentation nothing is clipped, so that every value can be brought back.
        plane_axis: for 2D networks, the array axis across the planes that they see.
        model: what the record calls the network, such as a file name and the start of its SHA-256.

    Raises:
        SettingsError: if the axis is not 0, 1 or 2.
    """

    tiling: Tiling = field(default_factory=lambda: Tiling((32, 96, 96), 0.25))
    intensity: Intensity = field(default_factory=lambda: Intensity("window", -1000.0, 1000.0))
    plane_axis: int = 0
    model: str = "a network without name"

    def __post_init__(self) -> None:
        if self.plane_axis not in (0, 1, 2):
            raise SettingsError(f"plane_axis is {self.plane_axis}; it must be 0, 1 or 2.")


def refine_geometry(geometry: Geometry, scale: Sequence[int]) -> Geometry:
    """The grid with each voxel cut into ``scale`` equal parts: same outer corners, finer spacing.

    Each axis' column is divided by its factor, and the origin, the centre of the first voxel, moves outwards by half
    the difference of old and new column. That holds for any affine, oblique or tilted.

    Args:
        geometry: a regular grid.
        scale: how many times finer along each array axis.

    Raises:
        GeometryError: if slices are missing or at unequal distances: parts of equal thickness would lie elsewhere.
        SettingsError: if the scale is not three whole numbers of at least 1.

    Examples:
        >>> fine = refine_geometry(Geometry(np.diag([6.0, 1.0, 1.0, 1.0]), (4, 8, 8)), (3, 1, 1))
        >>> fine.shape, fine.spacing_mm, fine.affine[:3, 3].tolist()
        ((12, 8, 8), (2.0, 1.0, 1.0), [-2.0, 0.0, 0.0])
    """
    if len(scale) != 3 or any(factor != int(factor) or factor < 1 for factor in scale):
        raise SettingsError(f"scale is {tuple(scale)}; give three whole numbers of at least 1, one per array axis.")
    if not geometry.is_regular:
        _refuse_irregular(geometry)
    factors = np.array([int(factor) for factor in scale])
    affine = geometry.affine.copy()
    affine[:3, :3] /= factors
    affine[:3, 3] = geometry.index_to_world((1 / factors - 1) / 2)
    shape = tuple(int(n * factor) for n, factor in zip(geometry.shape, factors, strict=True))
    return replace(geometry, affine=affine, shape=(shape[0], shape[1], shape[2]))


def grid_scale(network: SuperResolutionNetwork, plane_axis: int = 0) -> Size:
    """The factors along the three axes of a volume; a 2D network leaves ``plane_axis`` alone.

    Args:
        network: the network.
        plane_axis: the array axis across the planes that a 2D network sees.
    """
    factors = list(network.scale)
    if network.spatial_dims == 2:
        factors.insert(plane_axis, 1)
    return factors[0], factors[1], factors[2]


def value_range(values: Float[Tensor, "a0 a1 a2"], intensity: Intensity) -> tuple[float, float]:
    """The middle and half the width of the range that is mapped to -1 and 1.

    Args:
        values: the scan.
        intensity: a window in its unit, or two percentiles of it.

    Returns:
        Both in the unit of the scan; half a width of 1 where all values are the same.

    Examples:
        >>> value_range(torch.zeros(1, 1, 1), Intensity("window", -200.0, 300.0))
        (50.0, 250.0)
    """
    low, high = intensity.low, intensity.high
    if intensity.kind == "percentile":
        low, high = (float(bound) for bound in np.percentile(values.numpy(), (low, high)))
    return (low + high) / 2, (high - low) / 2 or 1.0


def super_resolve(
    volume: Volume,
    network: SuperResolutionNetwork,
    settings: SuperResolution | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Volume:
    """The scan on a finer grid: the voxels between are estimated by the network, not measured. Not for clinical use.

    The field of view stays: outer corners keep their world points, spacings are divided by the scale. The memory for
    the network is that of one window.

    Args:
        volume: a scan on a regular grid; it may be oblique.
        network: takes one channel, or for 2D an odd number of neighbouring slices, and gives one.
        settings: how to cut it up and to scale its values; None for those of a CT.
        progress: called as progress(done, total) windows; may raise to stop.

    Returns:
        A float32 volume in the unit of the scan, not rounded. Its source has the kind ``estimated`` and the finding
        ``ESTIMATED_VOXELS``; the files and findings of the scan stay in it.

    Raises:
        GeometryError: if slices are missing or at unequal distances.
        InputError: if a value is not finite.
        SettingsError: if the network has other channels, or the overlap is below two voxels.

    Examples:
        >>> from effvit_med.networks.super_resolution import build_super_resolution
        >>> scan = Volume(np.zeros((4, 8, 8)), Geometry(np.diag([6.0, 1.0, 1.0, 1.0]), (4, 8, 8)))
        >>> fine = super_resolve(scan, build_super_resolution(3, 1, [3, 1, 1]))
        >>> fine.array.shape, fine.geometry.spacing_mm, fine.source.findings[0].code
        ((12, 8, 8), (2.0, 1.0, 1.0), 'ESTIMATED_VOXELS')
    """
    settings = settings or SuperResolution()
    _check_channels(network)
    scale = grid_scale(network, settings.plane_axis)
    geometry = refine_geometry(volume.geometry, scale)
    values = torch.from_numpy(np.ascontiguousarray(volume.array, dtype=np.float32))
    _check_finite(values)
    middle, half = value_range(values, settings.intensity)
    scaled = (values - middle) / half
    axes = [0, 1, 2]
    if network.spatial_dims == 2:
        axes = [settings.plane_axis, *(axis for axis in axes if axis != settings.plane_axis)]
    plan = _Plan.over(scaled.permute(axes), settings.tiling, axes, scale, network)
    training = network.training
    network.eval()
    try:
        fine = _resolve_windows(scaled.permute(axes), network, plan, progress)
    finally:
        network.train(training)
    array = np.ascontiguousarray(fine.numpy().transpose([axes.index(axis) for axis in range(3)]))
    array *= half
    array += middle
    return replace(volume, array=array, geometry=geometry, source=_describe(volume, scale, settings.model))


@dataclass(frozen=True)
class _Plan:
    """The windows, all in the network's order of axes: for 2D networks the axis across the planes comes first."""

    window: Size
    starts: list[Size]
    scale: Size
    flat_axes: tuple[int, ...]

    @classmethod
    def over(
        cls, values: Tensor, tiling: Tiling, axes: list[int], scale: Size, network: SuperResolutionNetwork
    ) -> _Plan:
        shape = (values.shape[0], values.shape[1], values.shape[2])
        sizes = [min(tiling.window[axis], n) for axis, n in zip(axes, shape, strict=True)]
        window = (sizes[0], sizes[1], sizes[2])
        flat_axes = (0,) if network.spatial_dims == 2 else ()
        for axis, (size, n) in enumerate(zip(window, shape, strict=True)):
            shared = size - max(1, math.floor(size * (1 - tiling.overlap)))
            if axis not in flat_axes and size < n and shared < 2 * _MARGIN:
                raise SettingsError(
                    f"A window of {size} voxels with an overlap of {tiling.overlap} shares {shared} voxels with its "
                    f"neighbour along axis {axes[axis]}; give a larger window or overlap, for at least {2 * _MARGIN}."
                )
        starts = place_windows(shape, replace(tiling, window=window), (1, 1, 1), flat_axes)
        return cls(window, starts, (scale[axes[0]], scale[axes[1]], scale[axes[2]]), flat_axes)

    def weight(self, start: Size, shape: Sequence[int]) -> Float[Tensor, "w0 w1 w2"]:
        """How much each finer voxel of a window counts: none at an edge that is cut and not the scan's own."""
        fine = [size * factor for size, factor in zip(self.window, self.scale, strict=True)]
        weight = blending_weight((fine[0], fine[1], fine[2]), self.flat_axes)
        for axis in {0, 1, 2} - set(self.flat_axes):
            margin = _MARGIN * self.scale[axis]
            if start[axis] > 0:
                weight.narrow(axis, 0, margin).zero_()
            if start[axis] + self.window[axis] < shape[axis]:
                weight.narrow(axis, fine[axis] - margin, margin).zero_()
        return weight


@torch.inference_mode()
def _resolve_windows(
    values: Float[Tensor, "a0 a1 a2"],
    network: SuperResolutionNetwork,
    plan: _Plan,
    progress: Callable[[int, int], None] | None,
) -> Float[Tensor, "b0 b1 b2"]:
    device = next(network.parameters()).device
    size = [n * factor for n, factor in zip(values.shape, plan.scale, strict=True)]
    total, weights = torch.zeros(size), torch.zeros(size)
    for done, start in enumerate(plan.starts, start=1):
        window = tuple(slice(first, first + n) for first, n in zip(start, plan.window, strict=True))
        if network.spatial_dims == 3:
            fine = network(values[window][None, None].to(device))[0, 0]
        else:
            column = values[None, :, window[1], window[2]]
            stack = stack_neighbours(column, range(window[0].start, window[0].stop), network.in_channels // 2)
            fine = network(stack.to(device))[:, 0]
        place = tuple(slice(w.start * s, w.stop * s) for w, s in zip(window, plan.scale, strict=True))
        weight = plan.weight(start, values.shape)
        total[place] += fine.float().cpu() * weight
        weights[place] += weight
        if progress:
            progress(done, len(plan.starts))
    return total.div_(weights)


def _refuse_irregular(geometry: Geometry) -> None:
    steps = np.diff(geometry.slice_offsets or ())
    widest = int(np.argmax(steps)) if len(steps) else 0
    spacing = geometry.spacing_mm[geometry.slice_axis]
    distances = f" from {steps.min() * spacing:.3g} to {steps.max() * spacing:.3g} mm" if len(steps) else ""
    raise GeometryError(
        f"The slices along axis {geometry.slice_axis} are at unequal distances{distances}, widest after slice "
        f"{widest}; on such a grid nothing can be estimated between slices. Send the missing slices, or resample."
    )


def _check_channels(network: SuperResolutionNetwork) -> None:
    stacked = network.spatial_dims == 2 and network.in_channels % 2 == 1
    if network.out_channels != 1 or not (network.in_channels == 1 or stacked):
        raise SettingsError(
            f"The network takes {network.in_channels} channels and gives {network.out_channels}; a volume has one "
            "value per voxel: build it with in_channels=1, or for 2D an odd number of slices and out_channels=1."
        )


def _check_finite(values: Tensor) -> None:
    wrong = torch.nonzero(~values.isfinite())
    if len(wrong):
        raise InputError(
            f"{len(wrong)} values of the volume are not finite, the first at index {tuple(wrong[0].tolist())}; "
            "a network would spread them. Replace them, by the value of air for CT."
        )


def _describe(volume: Volume, scale: Size, model: str) -> Source:
    """The source of a result: it is no scan any more, and says so."""
    share = 100 * (1 - 1 / math.prod(scale))
    message = (
        f"The grid is {' x '.join(map(str, scale))} times finer than that of the scan ({model}): its voxels are "
        f"estimated, not measured; {share:.0f} % of them have no measurement of their own, and fine detail may be made "
        f"up. {NOT_FOR_CLINICAL_USE}"
    )
    before = volume.source or Source("in_memory", "estimated", ())
    return replace(before, kind="estimated", findings=(*before.findings, Finding(ESTIMATED, message)))
