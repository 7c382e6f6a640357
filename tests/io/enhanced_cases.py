"""Small multi-frame images with functional groups, as the enhanced storage classes have them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import EnhancedCTImageStorage

from tests.io.dicom_cases import AXIAL, ORIGIN, SPACING, make_slice, pixels

Edit = Callable[[int, Dataset], None]


def make_enhanced(
    places: Sequence[float], orientation: Sequence[float] = AXIAL, edit: Edit | None = None, uid: str = "1.2.3.7"
) -> Dataset:
    """One file with a frame at each place in mm along the normal; frame i holds ``pixels(i)``.

    Args:
        places: in the order of the frames.
        orientation: shared by all frames.
        edit: called as edit(i, functional groups of frame i).
        uid: SOP Instance UID.
    """
    dataset = make_slice(0, ORIGIN)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, name)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.NumberOfFrames = len(places)
    measures, directions, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING), 2.0
    directions.ImageOrientationPatient = [float(value) for value in orientation]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Items([measures]), Items([directions])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    normal = np.cross(orientation[:3], orientation[3:])
    frames = []
    for index, place in enumerate(places):
        plane, frame = Dataset(), Dataset()
        plane.ImagePositionPatient = [round(float(value), 6) for value in np.array(ORIGIN) + place * normal]
        frame.PlanePositionSequence = Items([plane])
        frame.FrameContentSequence = Items([Dataset()])
        if edit:
            edit(index, frame)
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    dataset.PixelData = b"".join(pixels(index).tobytes() for index in range(len(places)))
    return dataset


def set_macro(frame: Dataset, macro: str, **values: object) -> None:
    """Give a frame a functional group with these attributes."""
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    setattr(frame, macro, Items([item]))


def set_dimensions(dataset: Dataset, names: Sequence[str]) -> None:
    """Say what the Dimension Index Values of each frame run over."""
    items = []
    for name in names:
        item = Dataset()
        item.DimensionIndexPointer = Tag(name)
        items.append(item)
    dataset.DimensionIndexSequence = Items(items)
