"""What the search trains on and scores: whole cases in memory, on the network's grid and in its range of values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.splits import cut_groups
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


def load_set(name: str, data: Path) -> SearchSet:
    """A set by its name.

    Args:
        name: one of `SETS`.
        data: the folder of openly licensed scans.
    """
    return SETS[name](data)


def _load_hippocampus(data: Path) -> SearchSet:
    folder = data / "seg3d" / "hippocampus_msd04"
    names, _ = cut_groups([path.name.removesuffix(".nii.gz") for path in folder.glob("images/*.nii.gz")], folds=5)
    settings = Preprocess((1.0, 1.0, 1.0), "SPL", Intensity("percentile", 0.5, 99.5))

    def load(name: str) -> Case:
        image = read_nifti(folder / "images" / f"{name}.nii.gz")
        label = read_nifti(folder / "labels" / f"{name}.nii.gz")
        values = prepare(image, settings).values
        return values, prepare_labels(label.array.astype(np.uint8), label.geometry, settings)[0].long()

    return SearchSet(
        name="hippocampus",
        spatial_dims=3,
        classes=3,
        patch=(32, 48, 40),
        training=tuple(load(name) for name in names[:-30]),
        validation=tuple(load(name) for name in names[-30:]),
        mirrored=(2,),  # left and right; mirrored from front to back, anterior is where posterior was
    )


def _load_vessels(data: Path) -> SearchSet:
    from PIL import Image

    folder = data / "seg2d" / "chasedb1"
    children, _ = cut_groups([path.stem[:-1] for path in folder.glob("images/*.jpg")], folds=3)

    def load(child: str) -> list[Case]:
        found = []
        for path in sorted(folder.glob(f"images/{child}?.jpg")):
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
        training=tuple(case for child in children[:-2] for case in load(child)),
        validation=tuple(case for child in children[-2:] for case in load(child)),
        mirrored=(0, 1),
    )


#: By name: whole volumes of 3 cm, where everything is near, and photographs of 999 x 960 with vessels across them.
SETS = {"hippocampus": _load_hippocampus, "vessels": _load_vessels}
