"""Images of random label maps, as no scanner makes them: any contrast, texture, noise, blur and artefact.

Source:
    Random contrasts for random labels: Billot et al., SynthSeg (arXiv 2107.09559). What is drawn here is our own.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from effvit_med.engine.prompting.answering import VIEW_INTENSITY
from effvit_med.training.synthetic_shapes import Field, Labels, Rng, draw_field
from effvit_med.transforms import scale_intensity

NOISIEST = 0.15
"""Most noise beside means from 0 to 1. With twice as much, many borders could not be seen, and what is learnt from them
is to answer with a disc about the click."""


def draw_image(labels: Labels, rng: Rng) -> Field:
    """An image of a label map, of mean 0 and standard deviation 1.

    Args:
        labels: of two or three axes.
        rng: what is drawn from.

    Examples:
        >>> labels = np.zeros((32, 32), np.uint8)
        >>> labels[8:20, 8:20] = 1
        >>> image = draw_image(labels, np.random.default_rng(0))
        >>> image.shape, image.dtype.name, bool(np.isfinite(image).all())
        ((32, 32), 'float32', True)
    """
    shape = labels.shape
    outlined = rng.uniform() < 0.18
    image = _paint(labels, rng, alike=outlined)
    if outlined or rng.uniform() < 0.25:
        image = _line_borders(image, labels, rng, alone=outlined)
    if rng.uniform() < 0.8:
        image = np.asarray(ndimage.gaussian_filter(image, np.exp(rng.uniform(np.log(0.2), np.log(1.5)))), np.float32)
    if rng.uniform() < 0.5:
        image = image * np.exp(rng.uniform(0.05, 0.4) * draw_field(shape, min(shape) * rng.uniform(0.4, 1.5), rng))
    if rng.uniform() < 0.3:
        image = _shade(image, rng)
    if rng.uniform() < 0.25:
        image = _coarsen(image, rng)
    image = _add_noise(image, rng)
    if rng.uniform() < 0.15:
        image = _stripe(image, rng)
    if rng.uniform() < 0.4:
        image = _bend_grey(image, rng)
    # as every view is scaled that a network is shown in use
    return scale_intensity(torch.from_numpy(np.ascontiguousarray(image, np.float32)), VIEW_INTENSITY).numpy()


def vary_image(image: Field, rng: Rng) -> Field:
    """A picture or scan as another device could have taken it, of mean 0 and standard deviation 1.

    Args:
        image: of two or three axes and any values.
        rng: what is drawn from.

    Examples:
        >>> scan = np.linspace(0, 900, 32 * 32, dtype=np.float32).reshape(32, 32)
        >>> varied = vary_image(scan, np.random.default_rng(0))
        >>> varied.shape, bool(abs(varied.mean()) < 0.01)
        ((32, 32), True)
    """
    image = np.asarray((image - image.min()) / max(float(np.ptp(image)), 1e-6), np.float32)
    if rng.uniform() < 0.3:
        image = image * np.exp(rng.uniform(0.05, 0.3) * draw_field(image.shape, min(image.shape), rng))
    if rng.uniform() < 0.2:
        image = _coarsen(image, rng)
    if rng.uniform() < 0.3:
        image = image + np.float32(rng.uniform(0, 0.1)) * rng.standard_normal(image.shape).astype(np.float32)
    if rng.uniform() < 0.5:
        image = _bend_grey(np.asarray(image, np.float32), rng)
    return scale_intensity(torch.from_numpy(np.ascontiguousarray(image, np.float32)), VIEW_INTENSITY).numpy()


def _paint(labels: Labels, rng: Rng, *, alike: bool = False) -> Field:
    """A mean and a texture for each label; some labels are only a little brighter than others, or all are alike."""
    count = int(labels.max()) + 1
    means = rng.uniform(0, 1, count)
    if alike:
        means = means[:1] + rng.normal(0, 0.03, count)
    elif rng.uniform() < 0.2:  # few contrasts: most look alike
        means = rng.choice(means[: max(2, count // 3)], count) + rng.normal(0, 0.04, count)
    image = means.astype(np.float32)[labels]
    if rng.uniform() < 0.8:
        strengths = rng.uniform(0, 0.2, count) * (rng.uniform(size=count) < 0.6)
        for _ in range(int(rng.integers(1, 3))):
            detail = np.exp(rng.uniform(np.log(1.5), np.log(0.3 * min(labels.shape) + 2)))
            mine = (strengths * rng.permutation(count) / max(1, count)).astype(np.float32)
            image = image + mine[labels] * draw_field(labels.shape, float(detail), rng)
    return np.asarray(image, np.float32)


def _line_borders(image: Field, labels: Labels, rng: Rng, *, alone: bool) -> Field:
    """Bright or dark lines where labels meet, as ultrasound and microscopy have them; not everywhere.

    Where nothing else tells labels apart the lines are stronger and have fewer gaps.
    """
    border = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        ahead, behind = [slice(None)] * labels.ndim, [slice(None)] * labels.ndim
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        border[tuple(behind)] |= labels[tuple(ahead)] != labels[tuple(behind)]
    width = np.exp(rng.uniform(np.log(0.4), np.log(2.5)))
    line = ndimage.gaussian_filter(border.astype(np.float32), width)
    line /= max(float(line.max()), 1e-6)
    gaps = draw_field(labels.shape, min(labels.shape) * 0.2, rng) > (
        rng.uniform(-2.5, -0.5) if alone else rng.uniform(-1.5, 0.3)
    )
    strength = rng.choice([-1, 1, 1]) * rng.uniform(0.4, 1.2) if alone else rng.uniform(-0.8, 1.2)
    return np.asarray(image + strength * line * gaps, np.float32)


def _shade(image: Field, rng: Rng) -> Field:
    """Darker from one side to the other or about a field of view."""
    places = [np.linspace(-1, 1, size, dtype=np.float32) for size in image.shape]
    grids = np.meshgrid(*places, indexing="ij", sparse=True)
    if rng.uniform() < 0.5:
        ramp = sum(weight * grid for weight, grid in zip(rng.normal(size=image.ndim), grids, strict=True))
        return np.asarray(image + rng.uniform(0.1, 0.4) * ramp, np.float32)
    centre = rng.uniform(-0.3, 0.3, image.ndim)
    away = sum(np.square(grid - at) for grid, at in zip(grids, centre, strict=True))
    return np.where(away > rng.uniform(0.5, 1.6), np.float32(rng.choice([0.0, float(image.min())])), image)


def _coarsen(image: Field, rng: Rng) -> Field:
    """What is left when voxels were larger, along some axes more than along others."""
    factors = np.where(rng.uniform(size=image.ndim) < 0.6, rng.uniform(1.0, 4.0, image.ndim), 1.0)
    blurred = ndimage.gaussian_filter(image, 0.4 * (factors - 1))
    small = ndimage.zoom(blurred, 1 / factors, order=1)
    back = [size / few for size, few in zip(image.shape, small.shape, strict=True)]
    return np.asarray(ndimage.zoom(small, back, order=1)[tuple(slice(size) for size in image.shape)], np.float32)


def _add_noise(image: Field, rng: Rng) -> Field:
    strength = np.exp(rng.uniform(np.log(0.01), np.log(NOISIEST)))
    noise = rng.standard_normal(image.shape).astype(np.float32)
    grain = rng.uniform(0, 1.2)
    if grain > 0.4:
        noise = np.asarray(ndimage.gaussian_filter(noise, grain), np.float32)
        noise /= max(float(noise.std()), 1e-6)
    if rng.uniform() < 0.3:  # speckle, which is strong by nature
        return np.asarray(image * (1 + strength * rng.uniform(1.0, 3.0) * noise), np.float32)
    return np.asarray(image + strength * noise, np.float32)


def _stripe(image: Field, rng: Rng) -> Field:
    axis = int(rng.integers(image.ndim))
    wave = np.sin(np.arange(image.shape[axis]) * rng.uniform(0.2, 2.5) + rng.uniform(0, 6.28))
    along = [1] * image.ndim
    along[axis] = -1
    return np.asarray(image + rng.uniform(0.02, 0.15) * wave.reshape(along), np.float32)


def _bend_grey(image: Field, rng: Rng) -> Field:
    """Another gamma, or bright for dark."""
    low, high = float(image.min()), float(image.max())
    grey = (image - low) / max(high - low, 1e-6)
    if rng.uniform() < 0.3:
        grey = 1 - grey
    return np.asarray(grey ** np.exp(rng.uniform(-0.8, 0.8)), np.float32)
