"""Enhanced multi-frame images of the phantom: all planes in one file, in any order of frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage

from tests.acceptance.series import Ids, Stack, new_dataset, store, value_at


def group(**values: object) -> DicomSequence:
    """A functional group: a sequence of one item."""
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return DicomSequence([item])


def make_enhanced(
    stack: Stack,
    order: Sequence[int],
    rescale: Sequence[tuple[float, float]] | None = None,
    modality: str = "CT",
    ids: Ids | None = None,
) -> Dataset:
    """One file that holds planes of a stack.

    Args:
        stack: the planes.
        order: which plane each frame holds.
        rescale: slope and intercept of each plane; 1 and -2048 if None. Values must come out whole.
        modality: CT or MR.
        ids: what the series is called.
    """
    ids = ids or Ids()
    kind = EnhancedMRImageStorage if modality == "MR" else EnhancedCTImageStorage
    dataset = new_dataset(kind, f"{ids.series_uid}.9{modality == 'MR':d}", ids)
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = modality, ids.series, 1
    dataset.SeriesDescription = "phantom enhanced"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.Rows, dataset.Columns = stack.size
    dataset.NumberOfFrames = len(order)
    shared = Dataset()
    shared.PixelMeasuresSequence = group(PixelSpacing=list(stack.spacing_mm), SliceThickness=2.0)
    cosines = [f"{value:.9f}"[:16] for value in stack.orientation]
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=cosines)
    dataset.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames, stored = [], []
    for number, index in enumerate(order):
        place = stack.places_mm[index]
        slope, intercept = rescale[index] if rescale else (1.0, -2048.0)
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[f"{value:.6f}" for value in stack.position(place)])
        frame.PixelValueTransformationSequence = group(
            RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU" if modality == "CT" else "US"
        )
        frame.FrameContentSequence = group(
            FrameAcquisitionNumber=number + 1,
            StackID="1",
            InStackPositionNumber=index + 1,
            DimensionIndexValues=[index + 1],
        )
        frames.append(frame)
        stored.append(np.rint((np.rint(value_at(stack.plane_world(place))) - intercept) / slope))
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    store(dataset, np.stack(stored), np.uint16)
    return dataset


def add_to_frames(dataset: Dataset, sequence: str, **values: Sequence[object]) -> None:
    """Give each frame a functional group with a value of its own for each keyword."""
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        setattr(frame, sequence, group(**{keyword: each[index] for keyword, each in values.items()}))
