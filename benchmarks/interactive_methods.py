"""Other ways to grow a region from a click, beside the one that is used; each answers the same requests."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from effvit_med.review.growing import GrowthLimits, Image, Mask, measure_appearance, smooth
from effvit_med.review.refining import RefineRequest
from effvit_med.transforms.drawing import draw_ball


@dataclass(frozen=True)
class RivalRefiner:
    """A way of growing that knows where was clicked and what lies farther than allowed; points only.

    Args:
        method: ``watershed`` (between the click and everything too far), ``random walker`` (the same, on every other
            voxel), or ``fast marching`` (arrival times within the barrier).
        limits: how far regions grow.
    """

    method: str
    limits: GrowthLimits = field(default_factory=GrowthLimits)

    def refine(self, request: RefineRequest) -> Mask:
        """The structure in the crop after the newest point."""
        prompt, structure = request.prompts[-1], request.labels == request.value
        allowed = ~structure if prompt.adds else structure
        seeds = draw_ball(prompt, allowed.shape, request.spacing_mm, 1.5) & allowed
        if not seeds.any():
            return structure
        away = ndimage.distance_transform_edt(~seeds, sampling=request.spacing_mm)
        smoothed = smooth(request.image, request.spacing_mm, self.limits.smooth_mm)
        if self.method == "fast marching":
            region = self._march(request, smoothed, seeds, allowed)
        else:
            markers = np.where(seeds, 1, np.where(away > self.limits.most_mm * 0.8, 2, 0)).astype(np.int32)
            region = self._compete(smoothed, markers, request.spacing_mm)
        region &= allowed
        return (structure | region) if prompt.adds else (structure & ~region)

    def _compete(self, smoothed: Image, markers: npt.NDArray[np.int32], spacing: tuple[float, ...]) -> Mask:
        from skimage.segmentation import random_walker, watershed

        if not (markers == 2).any():
            return markers == 1
        if self.method == "watershed":
            steps = [ndimage.sobel(smoothed, axis) / spacing[axis] for axis in range(3)]
            return np.asarray(watershed(np.sqrt(sum(step * step for step in steps)), markers) == 1)
        coarse = markers[::2, ::2, ::2].copy()
        if not (coarse == 1).any():
            middle = np.argwhere(markers == 1).mean(axis=0) / 2
            coarse[tuple(np.minimum(np.rint(middle).astype(int), np.asarray(coarse.shape) - 1))] = 1
        small = np.clip(smoothed[::2, ::2, ::2], *np.percentile(smoothed, [1, 99]))
        walked = random_walker(small, coarse, beta=300, mode="cg_j", tol=1e-2, spacing=spacing) == 1
        fine = np.repeat(np.repeat(np.repeat(walked, 2, 0), 2, 1), 2, 2)
        return np.asarray(fine[tuple(slice(size) for size in markers.shape)])

    def _march(self, request: RefineRequest, smoothed: Image, seeds: Mask, allowed: Mask) -> Mask:
        import SimpleITK

        look = measure_appearance(smoothed, request.image, seeds)
        difference = np.abs(smoothed - np.float32(look.centre)) / np.float32(look.scatter)
        speed = 1 / (1 + np.square(difference / np.float32(self.limits.contrast)))
        speed[~allowed | (difference > self.limits.barrier)] = 0
        image = SimpleITK.GetImageFromArray(speed.astype(np.float32))
        image.SetSpacing(request.spacing_mm[::-1])
        march = SimpleITK.FastMarchingImageFilter()
        march.SetTrialPoints([tuple(int(at) for at in place[::-1]) for place in np.argwhere(seeds)])
        farthest = self.limits.most_mm * 0.5
        march.SetStoppingValue(farthest)
        return np.asarray(SimpleITK.GetArrayFromImage(march.Execute(image)) <= farthest)
