"""Small DICOM series on disk, right ones and broken ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

ROOT_UID = "1.2.826.0.1.3680043.8.498"
ROWS, COLUMNS = 8, 10
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SPACING = (0.9, 0.7)
ORIGIN = (-30.5, -20.25, 100.0)


def orientations() -> list[tuple[float, ...]]:
    """The 24 pairs of row and column directions along the patient axes."""
    units = [sign * np.eye(3)[axis] for axis, sign in itertools.product(range(3), (1.0, -1.0))]
    return [(*row, *column) for row, column in itertools.permutations(units, 2) if row @ column == 0]


def pixels(index: int) -> np.ndarray:
    """Stored values of a slice: no two voxels of a series are alike."""
    return (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) + index * ROWS * COLUMNS).astype(np.int16)


def make_slice(index: int, position: Sequence[float], orientation: Sequence[float] = AXIAL, series: int = 1) -> Dataset:
    """One CT image with everything a reader needs, and a patient name that nothing may show."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{ROOT_UID}.3.{series}.{index + 1}"
    dataset.StudyInstanceUID = f"{ROOT_UID}.1"
    dataset.SeriesInstanceUID = f"{ROOT_UID}.2.{series}"
    dataset.FrameOfReferenceUID = f"{ROOT_UID}.4"
    dataset.PatientName, dataset.PatientID = "Secret^Name", "SECRET-ID"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", series, index + 1
    dataset.SeriesDescription = "small"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.PixelSpacing = list(SPACING)
    dataset.SliceThickness = 2.0
    dataset.ImageOrientationPatient = [float(value) for value in orientation]
    dataset.ImagePositionPatient = [round(float(value), 6) for value in position]
    dataset.PixelData = pixels(index).tobytes()
    return dataset


def make_series(
    count: int = 6,
    step: float = 2.0,
    orientation: Sequence[float] = AXIAL,
    places: Sequence[float] | None = None,
    series: int = 1,
) -> list[Dataset]:
    """A stack of slices along the normal; places are in mm from the origin."""
    normal = np.cross(orientation[:3], orientation[3:])
    along = [index * step for index in range(count)] if places is None else places
    return [
        make_slice(index, np.array(ORIGIN) + place * normal, orientation, series) for index, place in enumerate(along)
    ]


def save(
    folder: Path,
    datasets: Sequence[Dataset],
    names: Sequence[str] | None = None,
    edit: Callable[[int, Dataset], None] | None = None,
) -> list[Path]:
    """Write data sets to files, the i-th after ``edit(i, dataset)``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, dataset in enumerate(datasets):
        if edit is not None:
            edit(index, dataset)
        path = folder / (names[index] if names else f"{index:03d}.dcm")
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
