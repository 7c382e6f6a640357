"""From a prompt to the voxels that change: what any way of refining is asked, and one that looks at the image alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from effvit_med.errors import GeometryError
from effvit_med.review.growing import (
    GrowthLimits,
    Mask,
    fill_pinholes,
    grow_region,
    measure_appearance,
    smooth,
    snap_outline,
)
from effvit_med.transforms.drawing import draw_ball, draw_outline, slice_of, trace_path
from effvit_med.volume.geometry import Geometry
from effvit_med.volume.prompts import Prompt
from effvit_med.volume.volume import Volume

if TYPE_CHECKING:
    from effvit_med.engine.prompting.carrying import Carried

Slices = tuple[slice, slice, slice]
Labels = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True, eq=False)
class RefineRequest:
    """A crop of the scan and what has been said about one structure in it.

    Args:
        image: float32 crop, as the scan has it.
        labels: of the same shape, as they are now.
        value: of the structure.
        prompts: about this structure, oldest first; the last one is new. Indices are those of the crop; prompts that
            lie outside are allowed and ignored, but for the last.
        spacing_mm: along each axis of the crop.
        confidence: uint8 of the first result (see `Segmentation`), or None.
        locked: values that must not change.

    Raises:
        GeometryError: if the shapes differ, there is no prompt, a prompt is about another structure, or the last one
            lies outside the crop.
    """

    image: npt.NDArray[np.float32]
    labels: Labels
    value: int
    prompts: tuple[Prompt, ...]
    spacing_mm: tuple[float, float, float]
    confidence: npt.NDArray[np.uint8] | None = None
    locked: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        shapes = {self.image.shape, self.labels.shape}
        if self.confidence is not None:
            shapes.add(self.confidence.shape)
        if len(shapes) != 1 or self.image.ndim != 3:
            raise GeometryError(
                f"The crops of a request have shapes {sorted(shapes)}; they must be one, of three axes."
            )
        if not self.prompts:
            raise GeometryError("A request has no prompt; give at least the new one.")
        others = {prompt.value for prompt in self.prompts} - {self.value}
        if others:
            raise GeometryError(f"Prompts are about the structures {sorted(others)}, the request about {self.value}.")
        if not all(_is_inside(vertex, self.image.shape) for vertex in self.prompts[-1].index[:1]):
            raise GeometryError(
                f"The new prompt begins at {self.prompts[-1].index[0]}, outside its crop of {self.image.shape}."
            )


class Refiner(Protocol):
    """Whatever makes a better structure out of a request; a promptable network as well as `LocalRefiner`."""

    def refine(self, request: RefineRequest) -> npt.NDArray[np.bool_]:
        """The structure in the crop, as it should be now; of the shape of the crop."""
        ...


@runtime_checkable
class ScanRefiner(Protocol):
    """Whatever answers prompts about a whole scan, and chooses for itself which part of it to look at."""

    def refine_scan(
        self, volume: Volume, labels: Labels, prompts: Sequence[Prompt]
    ) -> tuple[npt.NDArray[np.bool_], Slices]:
        """The structure in a part of the scan, as it should be now, and which part that is.

        Args:
            volume: the scan.
            labels: of the scan, as they are now.
            prompts: about one structure, oldest first, in indices of the scan.
        """
        ...


@runtime_checkable
class SliceCarrier(Protocol):
    """Whatever looks for a structure in the slices beside one in which it is right."""

    def carry_scan(
        self,
        volume: Volume,
        mask: npt.NDArray[np.bool_],
        prompts: Sequence[Prompt],
        place: tuple[int, int],
        cancelled: Callable[[], bool] | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Carried:
        """In which slices the structure is, and why no further; see `effvit_med.review.NetworkRefiner.carry_scan`."""
        ...


def crop_around(prompts: Sequence[Prompt], geometry: Geometry, extent_mm: float = 60.0) -> Slices:
    """The crop to refine in: the box of the last prompt with a margin on every side.

    Args:
        prompts: about one structure, the new one last; at least one.
        geometry: of the scan.
        extent_mm: size of the crop around a single point.

    Returns:
        Slices of the array; at least one voxel along each axis, also for a prompt outside the grid.

    Examples:
        >>> grid = Geometry(np.diag([1.0, 1.0, 1.0, 1.0]), (100, 100, 100))
        >>> crop_around([Prompt("point", 1, True, ((50, 50, 2),))], grid, 20)
        (slice(40, 61, None), slice(40, 61, None), slice(0, 13, None))
    """
    vertices = np.asarray(prompts[-1].index)
    margin = extent_mm / 2 / np.asarray(geometry.spacing_mm)
    last = np.asarray(geometry.shape) - 1
    low = np.clip(np.floor(vertices.min(axis=0) - margin), 0, last).astype(int)
    high = np.clip(np.ceil(vertices.max(axis=0) + margin), 0, last).astype(int)
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))  # type: ignore[return-value]


def cut_request(
    volume: Volume,
    labels: Labels,
    prompts: Sequence[Prompt],
    *,
    confidence: npt.NDArray[np.uint8] | None = None,
    locked: Collection[int] = (),
    extent_mm: float = 60.0,
) -> tuple[RefineRequest, Slices]:
    """The request for the newest prompt, and where its crop lies.

    Args:
        volume: the scan.
        labels: of the scan, as they are now.
        prompts: in indices of the scan, the new one last; those about other structures are left out.
        confidence: of the first result, or None.
        locked: values that must not change.
        extent_mm: size of the crop around a single point.

    Raises:
        GeometryError: if there is no prompt or the new one lies outside the scan.
    """
    if not prompts:
        raise GeometryError("There is no prompt to refine with; give at least one.")
    value = prompts[-1].value
    crop = crop_around(prompts, volume.geometry, extent_mm)
    start = [-float(part.start) for part in crop]
    request = RefineRequest(
        image=np.ascontiguousarray(volume.array[crop], np.float32),
        labels=np.ascontiguousarray(labels[crop]),
        value=value,
        prompts=tuple(prompt.moved(start) for prompt in prompts if prompt.value == value),
        spacing_mm=volume.geometry.spacing_mm,
        confidence=None if confidence is None else np.ascontiguousarray(confidence[crop]),
        locked=frozenset(int(each) for each in locked),
    )
    return request, crop


def list_changes(
    request: RefineRequest, structure: npt.NDArray[np.bool_], crop: Slices, shape: tuple[int, int, int]
) -> tuple[npt.NDArray[np.int64], Labels]:
    """What a refined structure changes in the labels of the whole scan; `find_changes` of what was asked.

    Args:
        request: what was asked.
        structure: what `Refiner.refine` gave.
        crop: where the crop lies.
        shape: of the scan.

    Returns:
        As of `find_changes`.
    """
    return find_changes(request.labels, request.value, request.locked, structure, crop, shape)


def find_changes(
    labels: Labels,
    value: int,
    locked: Collection[int],
    structure: npt.NDArray[np.bool_],
    crop: Slices,
    shape: tuple[int, int, int],
) -> tuple[npt.NDArray[np.int64], Labels]:
    """What another extent of a structure changes in the labels of the whole scan.

    Args:
        labels: of the crop, as they are now.
        value: of the structure.
        locked: values that must not change.
        structure: what it should be, of the crop's shape.
        crop: where the crop lies.
        shape: of the scan.

    Returns:
        Flat C-order indices of the voxels that change, rising, and their new values: the structure, or background
        where it was taken away. Locked voxels are left out.
    """
    free = ~np.isin(labels, list(locked))
    places = np.argwhere(free & (structure != (labels == value)))
    flat = np.ravel_multi_index(tuple((places + [part.start for part in crop]).T), shape)
    after = np.where(structure[tuple(places.T)], value, 0).astype(labels.dtype)
    return flat.astype(np.int64), after


@dataclass(frozen=True)
class LocalRefiner:
    """Refines by the image alone, in about a tenth of a second: no network, no memory of earlier calls.

    A point or scribble takes what looks like the tissue under it, hangs together with it and is not far; how far
    depends on the room about it, so that a click into a thin gap stays small. A box or lasso is snapped to edges
    nearby, in its slice.

    Args:
        limits: how far regions grow.
        point_mm: radius about a point that is taken to be meant by it.
        kept_mm: within this distance of an earlier point or scribble that says the contrary, only what is nearer to
            the newest prompt than to it changes.
        outline_mm: how far the border of a lasso may move to an edge.
        box_share: how far the border of an object may lie inside its box, as a share of the box's narrower side.

    Examples:
        >>> image = np.zeros((9, 40, 40), np.float32)
        >>> image[2:7, 10:30, 10:30] = 100
        >>> labels = np.zeros(image.shape, np.uint8)
        >>> labels[2:7, 10:30, 10:20] = 1
        >>> click = Prompt("point", 1, True, ((4, 20, 25),))
        >>> refined = LocalRefiner().refine(RefineRequest(image, labels, 1, (click,), (1.0, 1.0, 1.0)))
        >>> bool(refined[4, 20, 25]), bool(refined[4, 20, 35])
        (True, False)
    """

    limits: GrowthLimits = field(default_factory=GrowthLimits)
    point_mm: float = 1.5
    kept_mm: float = 10.0
    outline_mm: float = 4.0
    box_share: float = 0.35

    def refine(self, request: RefineRequest) -> npt.NDArray[np.bool_]:
        """The structure in the crop after the newest prompt.

        Args:
            request: what is asked.

        Returns:
            Of the shape of the crop. Voxels with a locked label are as before; so are those that earlier points and
            scribbles have settled, but for the very place of the newest prompt.
        """
        prompt, structure = request.prompts[-1], request.labels == request.value
        allowed = ~structure if prompt.adds else structure.copy()
        if request.locked:
            allowed &= ~np.isin(request.labels, list(request.locked))
        allowed &= ~self._settled(request)
        if prompt.axis is None:
            region = self._grow(request, prompt, allowed, structure)
        else:
            region = self._snap(request, prompt, prompt.axis) & allowed
        return (structure | region) if prompt.adds else (structure & ~region)

    def _settled(self, request: RefineRequest) -> Mask:
        """What is near to earlier points and scribbles that say the contrary, and nearer to them than to the newest."""
        shape, newest = request.image.shape, request.prompts[-1]
        settled = np.zeros(shape, bool)
        against = [old for old in request.prompts[:-1] if old.adds != newest.adds and old.axis is None]
        for earlier in against:
            settled |= draw_ball(earlier, shape, request.spacing_mm, self.kept_mm)
        if not settled.any():
            return settled
        places, spacing = np.argwhere(settled), np.asarray(request.spacing_mm)
        if newest.axis is None:
            old = cKDTree(np.concatenate([trace_path(earlier) for earlier in against]) * spacing)
            new = cKDTree(trace_path(newest) * spacing)
            places = places[old.query(places * spacing)[0] < new.query(places * spacing)[0]]
            settled[:] = False
            settled[tuple(places.T)] = True
            settled &= ~draw_ball(newest, shape, request.spacing_mm, 0.0)
        return settled

    def _grow(self, request: RefineRequest, prompt: Prompt, allowed: Mask, structure: Mask) -> Mask:
        spacing = request.spacing_mm
        seeds = draw_ball(prompt, allowed.shape, spacing, self.point_mm) & allowed
        place = draw_ball(prompt, allowed.shape, spacing, 0.0) & allowed
        if not place.any():  # pointed at what is so already, or at what is locked
            return place
        image = np.nan_to_num(request.image)
        smoothed = smooth(image, spacing, self.limits.smooth_mm)
        rival = None if prompt.adds else float(np.median(smoothed[structure]))
        look = measure_appearance(smoothed, image, seeds, rival)
        ease = None
        if request.confidence is not None:
            doubt = np.float32(1) - request.confidence.astype(np.float32) / np.float32(255)
            ease = np.float32(1) + np.float32(self.limits.doubt) * doubt
        region = place | grow_region(smoothed, allowed, seeds, look, spacing, self.limits, ease)
        return fill_pinholes(region, allowed, structure if prompt.adds else ~structure)

    def _snap(self, request: RefineRequest, prompt: Prompt, axis: int) -> Mask:
        region = np.zeros(request.image.shape, bool)
        where = slice_of(prompt, region.shape)
        if where is None:
            return region
        spacing = tuple(step for other, step in enumerate(request.spacing_mm) if other != axis)
        image = smooth(np.nan_to_num(request.image[where]), spacing, self.limits.smooth_mm)
        outline = draw_outline(prompt, image.shape)
        if outline.any():
            inwards_mm = outwards_mm = self.outline_mm
            if prompt.kind == "box":  # its corners are empty, and nothing of the object lies outside
                share = self.box_share * _narrowest_mm(prompt, request.spacing_mm)
                inwards_mm, outwards_mm = max(inwards_mm, share), 0.0
            region[where] = snap_outline(image, outline, spacing, inwards_mm, outwards_mm)
        return region


def _narrowest_mm(prompt: Prompt, spacing_mm: Sequence[float]) -> float:
    extent = np.ptp(np.asarray(prompt.index), axis=0) * np.asarray(spacing_mm)
    return float(min(size for axis, size in enumerate(extent) if axis != prompt.axis))


def _is_inside(vertex: Sequence[float], shape: Sequence[int]) -> bool:
    return all(-0.5 <= place <= size - 0.5 for place, size in zip(vertex, shape, strict=True))
