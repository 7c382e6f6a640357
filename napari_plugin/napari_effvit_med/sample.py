"""The sample study: a CT of a made-up abdomen that comes with effvit-med."""

from __future__ import annotations

from pathlib import Path

import yaml

import effvit_med
from effvit_med.errors import InputError
from effvit_med.volume import LabelTable
from napari_effvit_med.layers import DisplayFrame
from napari_effvit_med.reading import LayerData, as_labels_layer, as_volume_layer


def sample_folder() -> Path:
    """Where the sample data lie: package data of a wheel, or the checkout itself.

    Raises:
        InputError: if they are not there.
    """
    package = Path(effvit_med.__file__).parent
    for folder in (package / "_bundle" / "sample_data", package.parent / "sample_data"):
        if (folder / "ct_axial").is_dir():
            return folder
    raise InputError(f"There are no sample data beside {package}; install effvit-med again.")


def open_phantom() -> list[LayerData]:
    """The CT as an image layer.

    Raises:
        InputError: if the sample data are not there or damaged.
    """
    from effvit_med.io import open_input, read_case

    with open_input(sample_folder() / "ct_axial") as found:
        volume = read_case(found.cases[0])
    return [as_volume_layer(volume, DisplayFrame.of(volume.geometry), "phantom CT")]


def open_phantom_with_truth() -> list[LayerData]:
    """The CT, and the exact label of every voxel as a labels layer.

    Raises:
        InputError: if the sample data are not there or damaged.
    """
    from effvit_med.io import read_nifti
    from effvit_med.io.itk_images import as_segmentation

    truth = read_nifti(sample_folder() / "truth" / "ct_axial.nii.gz")
    segmentation = as_segmentation(truth, truth.array, _read_table())
    return [*open_phantom(), as_labels_layer(segmentation, None, "phantom labels")]


def _read_table() -> LabelTable:
    """The labels of the model that comes with effvit-med, read without loading what runs it."""
    path = sample_folder().parent / "configs" / "model.yaml"
    return LabelTable.from_dicts(yaml.safe_load(path.read_text(encoding="utf-8"))["labels"])
