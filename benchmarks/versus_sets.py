"""The real labelled sets that networks are compared on: how they are split and prepared, the same for every network."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.splits import cut_groups
from effvit_med.io import read_nifti
from effvit_med.io.atomic import atomic_path
from effvit_med.io.label_files import read_labels
from effvit_med.io.photographs import read_photograph
from effvit_med.transforms import Intensity, Preprocess, prepare, prepare_labels
from effvit_med.volume import Geometry, Label, LabelTable, Provenance, Segmentation, Volume
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE

TOLERANCE_MM = 1.0
"""Of the surface Dice; photographs have pixels of 1 mm here, so that it is 1 pixel there."""


@dataclass(frozen=True)
class LabelledSet:
    """A set, its split and what every network trains with on it.

    Attributes:
        name: as in the tables.
        folder: below the data folder.
        structures: names of the label values 1, 2, ...
        spatial_dims: of the networks; 2 sees single slices.
        folds: in how many parts the groups are cut, each in turn for testing.
        run_folds: those that are run unless others are wanted.
        watched: how many groups of the training part are only watched, for the curves; 0 where there are too few, and
            the training cases are watched.
        watched_cases: how many cases of these are looked at each time.
        patch: voxels of a training crop; the first axis is 1 for 2D.
        batch: crops a step.
        divisor: what the size of an image is padded to a multiple of, for every network.
        levels: resolutions of the U-shaped peers.
        flips: axes of a crop along which a mirrored image is as likely.
        rotation: largest angle in radians.
        unit: of the tolerance.
    """

    name: str
    folder: str
    structures: tuple[str, ...]
    spatial_dims: int
    folds: int
    run_folds: tuple[int, ...]
    watched: int
    watched_cases: int
    patch: tuple[int, int, int]
    batch: int
    divisor: int
    levels: int
    flips: tuple[int, ...]
    rotation: float
    unit: str = "mm"

    @property
    def table(self) -> LabelTable:
        """What the label values mean."""
        labels = (Label(value, name, ANATOMICAL_STRUCTURE) for value, name in enumerate(self.structures, 1))
        return LabelTable(tuple(labels))

    @property
    def preprocess(self) -> Preprocess:
        """Every set keeps its own spacing; values are clipped to percentiles and standardised."""
        photograph = self.unit == "px"
        return Preprocess(
            spacing_mm=(None, None, None),
            orientation=None if photograph or self.spatial_dims == 2 else "SPL",
            intensity=Intensity("percentile", 0.5, 99.5),
            spatial_dims=self.spatial_dims,
        )


SETS = {
    each.name: each
    for each in (
        LabelledSet(
            name="hippocampus",
            folder="seg3d/hippocampus_msd04",
            structures=("anterior", "posterior"),
            spatial_dims=3,
            folds=5,
            run_folds=(0,),
            watched=8,
            watched_cases=8,
            patch=(40, 56, 40),
            batch=2,
            divisor=8,
            levels=4,
            flips=(),
            rotation=0.35,
        ),
        LabelledSet(
            name="vessels",
            folder="seg2d/chasedb1",
            structures=("vessel",),
            spatial_dims=2,
            folds=3,
            run_folds=(0,),
            watched=1,
            watched_cases=2,
            patch=(1, 256, 256),
            batch=2,
            divisor=16,
            levels=5,
            flips=(1, 2),
            rotation=3.14,
            unit="px",
        ),
        LabelledSet(
            name="cardiac",
            folder="seg3d/cardiac_sunnybrook",
            structures=("lv_cavity", "myocardium"),
            spatial_dims=2,
            folds=3,
            run_folds=(0, 1, 2),
            watched=0,
            watched_cases=2,
            patch=(1, 192, 192),
            batch=4,
            divisor=16,
            levels=5,
            flips=(1, 2),
            rotation=3.14,
        ),
    )
}


@dataclass(frozen=True)
class Case:
    """One image with its labels.

    Attributes:
        name: unique in its set.
        group: what must not be split: the patient.
        image: path.
        label: path.
        second: path of another observer's labels; None where there is none.
    """

    name: str
    group: str
    image: Path
    label: Path
    second: Path | None = None


@dataclass(frozen=True)
class Split:
    """The cases of one fold; no group is in two parts.

    Attributes:
        train: learnt from.
        watched: looked at on the way; the training cases where the set has too few groups.
        test: scored at the end.
    """

    train: tuple[Case, ...]
    watched: tuple[Case, ...]
    test: tuple[Case, ...]


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case as every network of ours and of MONAI sees it.

    Attributes:
        name: of the case.
        values: (1, g0, g1, g2) float32.
        labels: (g0, g1, g2) uint8 on the same grid.
        grid: where they lie.
        reference: the labels on the image's own grid.
    """

    name: str
    values: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    grid: Geometry
    reference: Segmentation


def list_cases(labelled: LabelledSet, data: Path) -> tuple[Case, ...]:
    """The cases of a set by name; none if the set is not there.

    Args:
        labelled: the set.
        data: the folder with ``seg2d`` and ``seg3d``.
    """
    folder = data / labelled.folder
    if labelled.name == "hippocampus":
        images = sorted(folder.glob("images/*.nii.gz"))
        return tuple(Case(p.name.split(".")[0], p.name.split(".")[0], p, folder / "labels" / p.name) for p in images)
    if labelled.name == "vessels":
        stems = [path.stem for path in sorted(folder.glob("images/*.jpg"))]
        first, second = folder / "labels_1stHO", folder / "labels_2ndHO"
        return tuple(
            Case(stem, stem[:-1], folder / f"images/{stem}.jpg", first / f"{stem}.png", second / f"{stem}.png")
            for stem in stems
        )
    # the frames of end-systole have no myocardium drawn, so only those of end-diastole are used
    patients = sorted(path.parent for path in folder.glob("*/ED_image.nii.gz"))
    return tuple(Case(p.name, p.name, p / "ED_image.nii.gz", p / "ED_label.nii.gz") for p in patients)


def split_cases(labelled: LabelledSet, cases: Sequence[Case], fold: int, few: int | None = None) -> Split:
    """The parts of a fold, by group, cut as in every benchmark.

    Args:
        labelled: the set.
        cases: all of them, in any order.
        fold: which part is tested, from 0.
        few: keep only so many cases of each part, to try the way; None for all.

    Raises:
        ValueError: if there is no such fold.
    """
    learnt, tested = cut_groups((case.group for case in cases), labelled.folds, fold)
    watched = set(learnt[len(learnt) - labelled.watched :])
    ordered = sorted(cases, key=lambda case: case.name)
    train = [case for case in ordered if case.group in set(learnt) - watched][:few]
    look = [case for case in ordered if case.group in watched] or train
    test = [case for case in ordered if case.group in tested]
    return Split(tuple(train), tuple(look[: labelled.watched_cases][:few]), tuple(test[:few]))


def describe_split(split: Split) -> dict[str, object]:
    """Names of the cases of each part and a digest of them, for the results."""
    parts = {part: [case.name for case in getattr(split, part)] for part in ("train", "watched", "test")}
    return {**parts, "digest": hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}


def read_image(labelled: LabelledSet, case: Case) -> Volume:
    """The image; of a photograph its green channel, in which vessels stand out most."""
    if labelled.unit != "px":
        return read_nifti(case.image)
    return read_photograph(case.image, colour_weights=(0.0, 1.0, 0.0))


def as_labels(labelled: LabelledSet, labels: npt.NDArray[np.uint8], geometry: Geometry) -> Segmentation:
    """An array of labels with its place and meaning."""
    made = Provenance("benchmark", "", "", {}, {}, "cpu", "")
    return Segmentation(labels, geometry, labelled.table, made)


def prepare_case(labelled: LabelledSet, case: Case) -> PreparedCase:
    """A case through the engine's own preprocessing.

    Slices of a volume for 2D networks lie along its axis of the coarsest spacing, which becomes the first.

    Args:
        labelled: the set.
        case: one of its cases.
    """
    volume, reference = read_image(labelled, case), read_labels(case.label, labelled.table)
    if labelled.spatial_dims == 2 and labelled.unit != "px":
        thick = int(np.argmax(volume.geometry.spacing_mm))
        letters = volume.geometry.orientation
        order = letters[thick] + letters[:thick] + letters[thick + 1 :]
        volume, reference = volume.reoriented(order), reference.reoriented(order)
    prepared = prepare(volume, labelled.preprocess)
    labels, _ = prepare_labels(
        np.ascontiguousarray(reference.labels, dtype=np.uint8), reference.geometry, labelled.preprocess
    )
    return PreparedCase(case.name, prepared.values.numpy(), labels.numpy(), prepared.grid, reference)


def prepare_cases(labelled: LabelledSet, cases: Sequence[Case], cache: Path) -> list[PreparedCase]:
    """The cases, prepared once and kept in files.

    Args:
        labelled: the set.
        cases: those wanted.
        cache: folder for the files.
    """
    found = []
    for case in cases:
        # a change of file or of settings makes another file; time is not part of any budget
        said = json.dumps([case.name, case.image.stat().st_size, case.label.stat().st_size, repr(labelled.preprocess)])
        path = cache / labelled.name / f"{case.name}_{hashlib.sha256(said.encode()).hexdigest()[:8]}.pickle"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_bytes(pickle.dumps(prepare_case(labelled, case)))
        found.append(pickle.loads(path.read_bytes()))
    return found
