"""Parts of labelled scans and pictures, for a promptable network that is to know more than random shapes."""

from __future__ import annotations

import functools
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.transforms import Randomizable, Transform
from scipy import linalg, ndimage

from effvit_med.errors import SettingsError
from effvit_med.io.label_files import read_labels
from effvit_med.io.read import read_scan
from effvit_med.training.prompt_samples import start_generator
from effvit_med.training.synthetic_images import vary_image
from effvit_med.training.synthetic_shapes import Rng

Pair = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]

FINEST = 0.8
"""Fewest voxels of the scan between two of a patch."""


def list_scenes(datalist: str, drawn_share: float = 0.5) -> list[dict[str, str]]:
    """What a promptable network learns from: the scans of a list, among samples that are made of nothing.

    Args:
        datalist: a JSON file whose ``training`` has ``image`` and ``label`` of each case, relative to its folder; empty
            for none, and every sample is made of nothing.
        drawn_share: how many of the samples are made of nothing, from 0 to 1.

    Returns:
        A mapping for each: empty, or with ``image_file`` and ``label_file``.

    Raises:
        SettingsError: if the file cannot be read or lists nothing, or the share is not from 0 to 1.

    Examples:
        >>> list_scenes("")
        [{}]
    """
    if not 0 <= drawn_share <= 1:
        raise SettingsError(f"drawn_share is {drawn_share}; give a number from 0 to 1.")
    if not datalist:
        return [{}]
    path = Path(datalist)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["training"]
        files = [{f"{name}_file": str(path.parent / row[name]) for name in ("image", "label")} for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"{path} is no list of cases ({type(error).__name__}: {error}); it needs `training` with `image` and "
            "`label` of each."
        ) from error
    if not files:
        raise SettingsError(f"{path} lists no case under `training`.")
    if drawn_share == 1:
        return [{}]
    made = round(len(files) * drawn_share / (1 - drawn_share))
    return [*files, *({} for _ in range(made))]


class ReadScened(Randomizable, Transform):  # type: ignore[misc]  # MONAI is not typed
    """Put a random part of a scan and its label map into a case that names files; other cases stay as they are.

    Of a patch with two axes, a slice of the scan is taken that has labels, across the axis of the largest spacing. The
    part is turned, mirrored and zoomed, out to as much as the whole slice, and its grey values are varied.

    Args:
        patch: size; two or three axes.
    """

    def __init__(self, patch: Sequence[int]) -> None:
        self.patch = tuple(patch)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The case with ``image`` and ``label``, (1, *patch) each.

        Raises:
            SettingsError: if image and label map differ in size.
            ScanError: if a file cannot be read.
        """
        if "image_file" not in data:
            return dict(data)
        rng = start_generator(self.R)
        image, labels = _read(str(data["image_file"]), str(data["label_file"]))
        if len(self.patch) == 2:
            marked = np.flatnonzero(labels.any(axis=(1, 2)))
            number = int(rng.choice(marked)) if len(marked) else len(labels) // 2
            image, labels = image[number], labels[number]
        image, labels = cut_part(image, labels, self.patch, rng)
        varied = vary_image(image, rng)
        return {**data, "image": torch.from_numpy(varied)[None], "label": torch.from_numpy(labels)[None]}


@functools.lru_cache(maxsize=256)
def _read(image_file: str, label_file: str) -> Pair:
    """A scan and its labels, slices first."""
    volume, reference = read_scan(Path(image_file)), read_labels(Path(label_file))
    if volume.geometry.shape != reference.labels.shape:
        raise SettingsError(
            f"{label_file} has {reference.labels.shape} voxels and {image_file} {volume.geometry.shape}; give labels "
            "on the scan's own grid."
        )
    thick = int(np.argmax(volume.geometry.spacing_mm)) if 1 not in volume.geometry.shape else 0
    image, labels = (np.moveaxis(each, thick, 0) for each in (volume.array, reference.labels))
    return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(labels, np.int32)


def cut_part(image: npt.NDArray[np.float32], labels: npt.NDArray[np.int32], patch: Sequence[int], rng: Rng) -> Pair:
    """A random part about a labelled place, turned, mirrored, zoomed; beyond the image its border goes on unlabelled.

    Args:
        image: of two or three axes.
        labels: of its size.
        patch: the size to have.
        rng: what is drawn from.
    """
    dims = image.ndim
    values = np.unique(labels[labels > 0])
    place = np.asarray(image.shape) / 2
    if len(values):
        places = np.flatnonzero(labels == rng.choice(values))
        place = np.asarray(np.unravel_index(int(rng.choice(places)), labels.shape), np.float64)
    widest = max(1.0, min(size / edge for size, edge in zip(image.shape, patch, strict=True)))
    zoom = np.exp(rng.uniform(np.log(FINEST), np.log(widest))) * np.exp(rng.uniform(-0.1, 0.1, dims))
    turn = rng.normal(0, 0.2, (dims, dims))
    mirrored = rng.choice([-1.0, 1.0], dims)
    matrix = linalg.expm(turn - turn.T) @ np.diag(zoom * mirrored)
    middle = (np.asarray(patch) - 1) / 2
    away = rng.uniform(-0.35, 0.35, dims) * (np.asarray(patch) - 1)
    offset = place - matrix @ (middle + away)
    blur = 0.4 * max(0.0, float(zoom.mean()) - 1)
    seen = ndimage.gaussian_filter(image, blur) if blur > 0.1 else image
    cut = ndimage.affine_transform(seen, matrix, offset, tuple(patch), order=1, mode="nearest")
    known = ndimage.affine_transform(labels, matrix, offset, tuple(patch), order=0, mode="constant")
    return np.asarray(cut, np.float32), np.asarray(known, np.int32)
