"""The real labelled sets that promptable networks are tried on, none of which they learn from: objects, one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effvit_med.io.label_files import read_labels
from effvit_med.io.read import read_scan
from effvit_med.volume import Geometry, Volume

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Target:
    """One object of one image.

    Attributes:
        set_name: as in the tables.
        name: of the image and the object.
        volume: the image; of a 2D set it has a single slice.
        mask: the object.
    """

    set_name: str
    name: str
    volume: Volume
    mask: Mask

    @property
    def is_flat(self) -> bool:
        """Whether it has a single slice."""
        return 1 in self.volume.geometry.shape


@dataclass(frozen=True)
class ClickSet:
    """A set.

    Attributes:
        name: as in the tables.
        images: pattern of the images below the data folder.
        label: the label map's path, with ``{stem}`` of the image and ``{folder}`` of its folder.
        spatial_dims: 2 for pictures; 3 for volumes.
        pieces: whether each connected piece (of a label) is an object, as cells are.
        cut: whether a volume is taken slice by slice: the one in which the object is largest.
        least: fewest voxels of an object.
        patient: what of an image's path names the patient, as a regular expression; all of it where left out.
    """

    name: str
    images: str
    label: str
    spatial_dims: int
    pieces: bool = False
    cut: bool = False
    least: int = 30
    patient: str = ".*"


#: What is found is used; a set that is not there is skipped. Other models' labels and made-up images are left out.
CLICK_SETS = (
    ClickSet(
        "fetal head (ultrasound)",
        "seg2d/fetal_head_hc18/images/*.png",
        "{folder}/../labels/{stem}.png",
        2,
        patient=r".*/\d+",
    ),
    ClickSet("nuclei", "seg2d/nuclei_dsb2018/images/*.png", "{folder}/../labels_instance16/{stem}.png", 2),
    ClickSet("axons (SEM)", "seg2d/axon_sem/images/*.png", "{folder}/../labels/{stem}_seg-axon-manual.png", 2, True),
    ClickSet(
        "retinal vessels",
        "seg2d/chasedb1/images/*.jpg",
        "{folder}/../labels_1stHO/{stem}.png",
        2,
        patient=r".*/Image_\d+",
    ),
    ClickSet(
        "heart slices (MR)",
        "seg3d/cardiac_sunnybrook/*/E*_image.nii.gz",
        "{folder}/{label}",
        3,
        cut=True,
        patient=r".*/",
    ),
    ClickSet("hippocampus (MR)", "seg3d/hippocampus_msd04/images/*.nii.gz", "{folder}/../labels/{stem}.nii.gz", 3),
    ClickSet("heart (MR)", "seg3d/cardiac_sunnybrook/*/E*_image.nii.gz", "{folder}/{label}", 3, patient=r".*/"),
    ClickSet("spleen (CT)", "seg3d/spleen_msd09_crop/*_ct.nii.gz", "{folder}/{stem}_seg-manual.nii.gz", 3),
    ClickSet("spinal cord (MR)", "seg3d/spinal_cord_sct/t*/t?.nii.gz", "{folder}/{stem}_seg-manual.nii.gz", 3),
    ClickSet("brain tumour (MR)", "seg3d/pyradiomics_nrrd/brain1_image.nrrd", "{folder}/brain1_label.nrrd", 3),
)


def list_targets(chosen: ClickSet, data: Path, images: int, objects: int, seed: int = 0) -> Iterator[Target]:
    """Objects of a set: of so many images, evenly spread over the set, so many each.

    Args:
        chosen: the set.
        data: the folder with ``seg2d`` and ``seg3d``.
        images: at most.
        objects: of an image at most, drawn by the seed.
        seed: what is drawn from.
    """
    found = list_images(chosen, data)
    for place in spread(len(found), images):
        path = found[place]
        volume, reference = read_scan(path), read_labels(label_path(chosen, path))
        thick = int(np.argmax(volume.geometry.spacing_mm))
        if chosen.spatial_dims == 3 and thick:  # slices first, as readers look at them
            letters = volume.geometry.orientation
            order = letters[thick] + letters[:thick] + letters[thick + 1 :]
            volume, reference = volume.reoriented(order), reference.reoriented(order)
        labels = reference.labels.astype(np.int64)
        rng = np.random.default_rng([seed, int(place)])
        for number, mask in enumerate(_objects(chosen, labels, objects, rng)):
            name = f"{path.parent.name}/{path.name.split('.')[0]} {number}"
            yield _cut(chosen, name, volume, mask) if chosen.cut else Target(chosen.name, name, volume, mask)


def list_images(chosen: ClickSet, data: Path) -> list[Path]:
    """The images of a set that have labels, by name."""
    return sorted(path for path in data.glob(chosen.images) if label_path(chosen, path).is_file())


def spread(count: int, most: int) -> list[int]:
    """Numbers of at most so many of some images, evenly over them.

    Examples:
        >>> spread(10, 4), spread(2, 4), spread(0, 4)
        ([0, 3, 6, 9], [0, 1], [])
    """
    return sorted(set(np.linspace(0, count - 1, min(most, count)).astype(int).tolist())) if count else []


def list_learnt(chosen: ClickSet, data: Path, images: int) -> list[Path]:
    """The images of a set that fine-tuning may learn from: those of no patient of whom one is tried.

    Args:
        chosen: the set.
        data: the folder with ``seg2d`` and ``seg3d``.
        images: how many are tried, as `list_targets` takes them.
    """
    found = list_images(chosen, data)
    tried = {name_patient(chosen, found[place]) for place in spread(len(found), images)}
    return [path for path in found if name_patient(chosen, path) not in tried]


def name_patient(chosen: ClickSet, image: Path) -> str:
    """The part of an image's path that all images of a patient share."""
    match = re.match(chosen.patient, image.as_posix())
    return match[0] if match else image.as_posix()


def label_path(chosen: ClickSet, image: Path) -> Path:
    """The label map that belongs to an image."""
    stem = image.name.split(".")[0]
    label = image.name.replace("_image", "_label")
    return Path(chosen.label.format(folder=image.parent, stem=stem, label=label))


def _objects(chosen: ClickSet, labels: npt.NDArray[np.int64], most: int, rng: np.random.Generator) -> list[Mask]:
    from scipy import ndimage

    values = [int(value) for value in np.unique(labels) if value]
    if chosen.pieces:
        parts, count = ndimage.label(labels > 0)
        labels = parts.astype(np.int64)
        values = list(range(1, count + 1))
    sizes = np.bincount(labels.ravel())
    values = [value for value in values if sizes[value] >= chosen.least]
    picked: Sequence[int] = values if len(values) <= most else sorted(rng.choice(values, most, replace=False).tolist())
    return [labels == value for value in picked]


def _cut(chosen: ClickSet, name: str, volume: Volume, mask: Mask) -> Target:
    """The slice in which an object is largest."""
    number = int(mask.sum(axis=(1, 2)).argmax())
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = volume.geometry.index_to_world([[number, 0, 0]])[0]
    part = slice(number, number + 1)
    geometry = Geometry(affine, (1, *mask.shape[1:]))
    return Target(
        chosen.name, name, Volume(np.ascontiguousarray(volume.array[part]), geometry, volume.modality), mask[part]
    )
