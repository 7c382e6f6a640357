"""Small data sets to plan for, on the disk and in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.io import write_volume
from effvit_med.planning.checks import Examination, examine
from effvit_med.planning.layouts import find_training_set
from effvit_med.planning.network_choices import Budget
from effvit_med.planning.training_set import TrainingCase, TrainingSet
from effvit_med.volume import Geometry, Volume

GIB = 2**30
SMALL = Budget("cpu", 4 * GIB)
Size = tuple[int, int, int]


def make_image(seed: int, shape: Size = (16, 24, 24)) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """An image with two bright boxes, somewhere else for each seed, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for value in (1, 2):
        low = [int(rng.integers(0, max(1, size // 2))) for size in shape]
        box = tuple(slice(start, start + max(1, size // 3)) for start, size in zip(low, shape, strict=True))
        labels[box] = value
    return (rng.normal(100, 10, shape) + 60 * labels).astype(np.int16), labels


def write_case(
    folder: Path,
    name: str,
    seed: int,
    shape: Size = (16, 24, 24),
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    labels: npt.NDArray[Any] | None = None,
    image: npt.NDArray[Any] | None = None,
) -> None:
    """One case as NIfTI in the folders images and labels."""
    made, marks = make_image(seed, shape)
    grid = Geometry(np.diag([*spacing_mm, 1.0]), shape)
    for kind, array in (("images", made if image is None else image), ("labels", marks if labels is None else labels)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        write_volume(Volume(array, Geometry(grid.affine, array.shape)), folder / kind / f"{name}.nii.gz")


def write_folders(folder: Path, count: int = 6, **how: Any) -> Path:
    """A folder pair with cases c0, c1, ..."""
    for seed in range(count):
        write_case(folder, f"c{seed}", seed, **how)
    return folder


def write_decathlon(folder: Path, count: int = 6, names: Mapping[str, str] | None = None, **more: Any) -> Path:
    """The same with a dataset.json; ``more`` goes into it."""
    write_folders(folder, count)
    rows = [{"image": f"images/c{n}.nii.gz", "label": f"labels/c{n}.nii.gz"} for n in range(count)]
    document = {
        "name": "boxes",
        "modality": {"0": "MRI"},
        "labels": names or {"0": "background", "1": "head", "2": "tail"},
        "training": rows,
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(document))
    return folder


def examined(folder: Path) -> Examination:
    """What looking at a data set gave."""
    return examine(find_training_set(folder))


def cases_of(groups: Sequence[str], held: Sequence[str] = ()) -> TrainingSet:
    """A data set without files: one case for each group that is named, so that some are named several times."""
    cases = [TrainingCase(f"c{n:03d}", Path("i"), Path("k"), group) for n, group in enumerate(groups)]
    return TrainingSet("made", "folders", tuple(cases), given_split=frozenset(held))
