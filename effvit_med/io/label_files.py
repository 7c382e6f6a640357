"""Label maps in whatever file format they come, with or without the meaning of their values."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effvit_med.errors import InputError, NoImagesError
from effvit_med.io.dicom_seg_reading import is_dicom_seg, read_dicom_seg
from effvit_med.io.itk_images import (
    as_segmentation,
    is_label_map,
    read_json_table,
    read_label_map,
    read_metaimage,
    read_nrrd,
)
from effvit_med.io.nifti import is_nifti_name, read_nifti
from effvit_med.io.photograph_labels import photograph_labels_path, read_picture_values
from effvit_med.io.photographs import is_photograph_name
from effvit_med.volume import LabelTable, Segmentation, Volume

_SUFFIX = re.compile(r"(\.seg)?\.(nii\.gz|nii|nrrd|mha|mhd|dcm|png|tiff?)$", re.IGNORECASE)
_IMAGE_SUFFIX = re.compile(r"(\.seg)?\.(nii\.gz|nii|nrrd|mha|mhd|png|jpe?g|tiff?)$", re.IGNORECASE)
_MASK = (0, 255)  # how programs that draw on photographs write no and yes


def is_label_file(path: Path) -> bool:
    """Whether the name of a file is one that `read_labels` knows.

    Examples:
        >>> is_label_file(Path("case_1.nii.gz")), is_label_file(Path("a.seg.nrrd")), is_label_file(Path("a.csv"))
        (True, True, False)
    """
    return _SUFFIX.search(path.name) is not None


def is_image_file(path: Path) -> bool:
    """Whether the name of a file is that of an image or a label map to train on: a volume, or a photograph.

    Examples:
        >>> is_image_file(Path("eye.JPG")), is_image_file(Path("a.nii.gz")), is_image_file(Path("a.json"))
        (True, True, False)
    """
    return _IMAGE_SUFFIX.search(path.name) is not None


def image_stem(path: Path) -> str:
    """The name of an image or a label map to train on without what tells its format.

    Examples:
        >>> image_stem(Path("eye.01.JPG")), image_stem(Path("case_1.nii.gz"))
        ('eye.01', 'case_1')
    """
    return _IMAGE_SUFFIX.sub("", path.name)


def label_stem(path: Path) -> str:
    """The file name without what tells its format.

    Examples:
        >>> label_stem(Path("case.1.seg.nrrd")), label_stem(Path("case_1.nii.gz"))
        ('case.1', 'case_1')
    """
    return _SUFFIX.sub("", path.name)


def has_table(path: Path) -> bool:
    """Whether a label file tells what its values mean.

    Args:
        path: any file.
    """
    if _is_picture(path):
        return photograph_labels_path(path).is_file()
    return is_label_map(path) or (path.name.lower().endswith(".dcm") and is_dicom_seg(path))


def read_labels(path: Path, table: LabelTable | None = None) -> Segmentation:
    """Read a label map: NIfTI, NRRD, MetaImage, DICOM SEG, or the PNG or TIFF of a photograph.

    The values of a picture are labels as they stand, but for masks: where only 0 and 255 occur and the table has no
    255, 255 stands for 1. See `effvit_med.io.photographs.read_picture_values`.

    Args:
        path: the file.
        table: what its values mean; None for its own, or plain names where it has none. A DICOM SEG numbers its
            segments anew, so its structures get the values that the table has for their names.

    Returns:
        The labels in the axis order of the file.

    Raises:
        InputError: if the file cannot be read, is of no known format, or holds values that are no labels or not in
            the table.
        RefusedError: as of the reader of its format.
    """
    if _is_picture(path) and path.is_file():
        return _read_picture(path, table)
    if has_table(path):
        is_dicom = path.name.lower().endswith(".dcm")
        read = read_dicom_seg(path) if is_dicom else read_label_map(path)
        if table is None:
            return read
        labels = _renumber(read, table, path) if is_dicom else read.labels
        return as_segmentation(Volume(labels, read.geometry, source=read.provenance.source), labels, table)
    if not path.is_file():
        raise NoImagesError(f"{path} is no file; give a label map.")
    name = path.name.lower()
    if is_nifti_name(path):
        volume = read_nifti(path)
    elif name.endswith(".nrrd"):
        volume = read_nrrd(path)
    elif name.endswith((".mha", ".mhd")):
        volume = read_metaimage(path)
    else:
        known = "NIfTI, NRRD, MetaImage, DICOM SEG or PNG"
        raise InputError(f"{path.name} is no label map that can be read; give {known}.")
    return as_segmentation(volume, volume.array, table)


def _is_picture(path: Path) -> bool:
    return is_photograph_name(path) and is_label_file(path)


def _read_picture(path: Path, table: LabelTable | None) -> Segmentation:
    """The labels of a photograph."""
    values, geometry, source = read_picture_values(path)
    if table is None and has_table(path):
        table = read_json_table(photograph_labels_path(path))
    found = np.unique(values)
    is_known = table is not None and any(label.value == _MASK[1] for label in table)
    if found[-1] == _MASK[1] and np.isin(found, _MASK).all() and not is_known:
        values = (values > 0).astype(np.uint8)
    return as_segmentation(Volume(values, geometry, source=source), values, table)


def _renumber(segmentation: Segmentation, table: LabelTable, path: Path) -> npt.NDArray[np.unsignedinteger]:
    """The labels with the values that a table has for their names."""
    values = {label.name: label.value for label in table}
    unknown = [label.name for label in segmentation.table if label.name not in values]
    if unknown:
        raise InputError(f"{path.name} has the segments {unknown}; the structures are {list(values)}.")
    lookup = np.zeros(int(segmentation.labels.max()) + 1, np.uint16)
    for label in segmentation.table:
        if label.value < len(lookup):
            lookup[label.value] = values[label.name]
    return lookup[segmentation.labels]
