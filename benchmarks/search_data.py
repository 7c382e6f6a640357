"""What the search trains on and scores: whole cases in memory, on the network's grid and in its range of values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from effvit_med.io import read_nifti
from effvit_med.transforms import Intensity, Preprocess, prepare, prepare_labels, scale_intensity

Case = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class SearchSet:
    """Cases to learn from and cases to be scored on.

    Attributes:
        name: of the set.
        spatial_dims: 2 or 3.
        classes: background included.
        patch: size of what one training sample shows.
        training: images (1, *space) and labels (*space).
        validation: the same, never trained on; the test cases of the accuracy benchmark are in neither.
        mirrored: axes along which a mirrored sample is as good as the original.
    """

    name: str
    spatial_dims: int
    classes: int
    patch: tuple[int, ...]
    training: tuple[Case, ...]
    validation: tuple[Case, ...]
    mirrored: tuple[int, ...]


def order_by_digest(names: Sequence[str]) -> list[str]:
    """Names in an order that has nothing to do with what they say and is the same everywhere.

    Args:
        names: of cases or groups.

    Examples:
        >>> order_by_digest(["a", "b", "c"])
        ['c', 'b', 'a']
    """
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def load_set(name: str, data: Path) -> SearchSet:
    """A set by its name.

    Args:
        name: one of `SETS`.
        data: the folder of openly licensed scans.
    """
    return SETS[name](data)


def _load_hippocampus(data: Path) -> SearchSet:
    folder = data / "seg3d" / "hippocampus_msd04"
    names = order_by_digest([path.name for path in (folder / "images").glob("*.nii.gz")])
    settings = Preprocess((1.0, 1.0, 1.0), "SPL", Intensity("percentile", 0.5, 99.5))

    def load(name: str) -> Case:
        image = read_nifti(folder / "images" / name)
        label = read_nifti(folder / "labels" / name)
        values = prepare(image, settings).values
        return values, prepare_labels(label.array.astype(np.uint8), label.geometry, settings)[0].long()

    return SearchSet(
        name="hippocampus",
        spatial_dims=3,
        classes=3,
        patch=(32, 48, 40),
        training=tuple(load(name) for name in names[70:]),
        validation=tuple(load(name) for name in names[40:70]),
        mirrored=(0, 1, 2),
    )


def _load_vessels(data: Path) -> SearchSet:
    from PIL import Image

    folder = data / "seg2d" / "chasedb1"
    children = order_by_digest(sorted({path.stem.removeprefix("Image_")[:2] for path in folder.glob("images/*.jpg")}))

    def load(child: str) -> list[Case]:
        found = []
        for path in sorted(folder.glob(f"images/Image_{child}*.jpg")):
            green = np.array(Image.open(path), np.float32)[..., 1]
            label = np.array(Image.open(folder / "labels_1stHO" / f"{path.stem}.png").convert("L")) > 0
            scaled = scale_intensity(torch.from_numpy(green), Intensity("percentile", 0.5, 99.5))
            found.append((scaled[None], torch.from_numpy(label).long()))
        return found

    return SearchSet(
        name="vessels",
        spatial_dims=2,
        classes=2,
        patch=(320, 320),
        training=tuple(case for child in children[5:] for case in load(child)),
        validation=tuple(case for child in children[3:5] for case in load(child)),
        mirrored=(0, 1),
    )


#: By name: whole volumes of 3 cm, where everything is near, and photographs of 999 x 960 with vessels across them.
SETS = {"hippocampus": _load_hippocampus, "vessels": _load_vessels}
