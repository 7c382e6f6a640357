"""DICOM series whose pixel values follow from where the voxel lies in the patient, whatever the grid.

A phantom is defined in world millimetres (LPS): a slanted background in which no two places near each other look
alike, a large structure with a hole and a small one on the left. A `Stack` is a set of planes through it. What a reader
makes of the files is right if, and only if, every voxel that it gives has the value of the place that it claims. No
index of any array has to be known for that, and none of the geometry of the package is used here.

Source:
    DICOM PS3.3 section C.7.6.2.1.1 (equation C.7.6.2.1-1): a pixel centre lies at Image Position + column index x
    column spacing x row direction + row index x row spacing x column direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

Floats = npt.NDArray[np.float64]

CENTRE_MM = np.array([12.0, -31.0, 140.0])
"""The middle of the phantom, away from the origin of the patient system and not symmetric to it."""

SLOPE_PER_MM = np.array([3.0, 2.0, 4.0])
"""How steep the background is: a place that is wrong by 0.3 mm shows in the value."""

STRUCTURES = ((1, 1500.0), (2, -1500.0))
"""Label value and what is added to the background under it: one is brighter, one darker than all the rest."""

LIVER_FROM, KIDNEY_TO = 750.0, -750.0
"""What tells the structures by their value: midway, so that a voxel across a border goes to the larger part."""

ROOT = "1.2.826.0.1.3680043.8.498.77"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def label_at(world: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """The structure at (..., 3) world points: 0 background, 1 liver with a hole, 2 left kidney."""
    points = np.asarray(world, np.float64) - CENTRE_MM

    def inside(middle: Sequence[float], radii: Sequence[float]) -> npt.NDArray[np.bool_]:
        return np.asarray((((points - middle) / radii) ** 2).sum(axis=-1) < 1)

    liver = (inside((-8.3, 3.1, 2.2), (11.0, 8.5, 9.5)) & ~inside((-9.1, 3.6, 1.7), (4.1, 3.3, 5.2))) | inside(
        (-12.4, -14.7, 8.9), (3.6, 3.9, 3.4)
    )
    kidney = inside((13.7, -6.2, -5.4), (4.7, 6.1, 7.3))
    return np.where(kidney, 2, np.where(liver, 1, 0)).astype(np.uint8)


def value_at(world: npt.ArrayLike) -> Floats:
    """What lies at (..., 3) world points, not rounded; a scanner rounds it."""
    points = np.asarray(world, np.float64)
    labels = label_at(points)
    added = sum(np.where(labels == value, more, 0.0) for value, more in STRUCTURES)
    return np.asarray((points - CENTRE_MM) @ SLOPE_PER_MM + added)


def edge_distance_is_safe(world: Floats, within_mm: float) -> npt.NDArray[np.bool_]:
    """Whether no border of a structure lies within some distance along any axis: where rounding cannot change it."""
    labels = label_at(world)
    safe = np.ones(labels.shape, bool)
    for step in (*np.eye(3), *-np.eye(3)):
        safe &= label_at(world + within_mm * step) == labels
    return safe


@dataclass(frozen=True)
class Stack:
    """Parallel planes through the phantom.

    Args:
        orientation: direction along a row, then down a column (Image Orientation).
        spacing_mm: between rows, between columns (Pixel Spacing).
        size: rows, columns.
        places_mm: where the planes lie along the normal, from the middle of the phantom.
        tilt_degrees: how far the line through the slices leans from their normal towards the columns.
        centre_mm: the world point in the middle of the planes at place 0.
    """

    orientation: tuple[float, ...] = AXIAL
    spacing_mm: tuple[float, float] = (1.5, 1.5)
    size: tuple[int, int] = (36, 40)
    places_mm: tuple[float, ...] = tuple(2.0 * index - 15 for index in range(16))
    tilt_degrees: float = 0.0
    centre_mm: tuple[float, ...] = tuple(CENTRE_MM)

    @property
    def along_row(self) -> Floats:
        """Unit vector in which the column index grows."""
        return np.array(self.orientation[:3], np.float64)

    @property
    def down_column(self) -> Floats:
        """Unit vector in which the row index grows."""
        return np.array(self.orientation[3:], np.float64)

    def position(self, place_mm: float) -> Floats:
        """The centre of the first pixel of the plane at a place (Image Position)."""
        (rows, columns), (between_rows, between_columns) = self.size, self.spacing_mm
        normal = np.cross(self.along_row, self.down_column)
        lean = np.tan(np.radians(self.tilt_degrees)) * place_mm
        middle = np.array(self.centre_mm) + place_mm * normal + lean * self.down_column
        return (
            middle
            - (columns - 1) / 2 * between_columns * self.along_row
            - (rows - 1) / 2 * between_rows * self.down_column
        )

    def plane_world(self, place_mm: float) -> Floats:
        """(rows, columns, 3) world points of the pixel centres of the plane at a place."""
        (rows, columns), (between_rows, between_columns) = self.size, self.spacing_mm
        down = np.arange(rows)[:, None, None] * between_rows * self.down_column
        along = np.arange(columns)[None, :, None] * between_columns * self.along_row
        return self.position(place_mm) + down + along

    def world(self) -> Floats:
        """(slices, rows, columns, 3) world points of all voxels, slices in the order of the places."""
        return np.stack([self.plane_world(place) for place in self.places_mm])

    def volume_ml(self, value: int) -> float:
        """The volume of a structure as the planes show it: pixels times the thickness that each plane stands for."""
        labels = label_at(self.world()) == value
        places = np.array(self.places_mm)
        middles = (places[1:] + places[:-1]) / 2
        edges = np.concatenate([[2 * places[0] - middles[0]], middles, [2 * places[-1] - middles[-1]]])
        area = self.spacing_mm[0] * self.spacing_mm[1]
        return float((labels.sum(axis=(1, 2)) * np.abs(np.diff(edges))).sum() * area / 1000)

    def without(self, *indices: int) -> Stack:
        """The stack with some of its planes missing."""
        return replace(self, places_mm=tuple(p for i, p in enumerate(self.places_mm) if i not in indices))


@dataclass(frozen=True)
class Ids:
    """What a series is called.

    Args:
        patient: number of the patient.
        study: number of the study.
        series: number of the series.
        frame: number of the frame of reference.
    """

    patient: int = 1
    study: int = 1
    series: int = 1
    frame: int = 1

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return f"{ROOT}.2.{self.patient}.{self.study}.{self.series}"


Edit = Callable[[int, Dataset], None]


def make_slice(stack: Stack, index: int, ids: Ids | None = None, values: npt.ArrayLike | None = None) -> Dataset:
    """One CT image of a plane, valid in all that a SEG repeats.

    Args:
        stack: the planes.
        index: which one; also the instance number, from 1.
        ids: what the series is called.
        values: other stored values than those of the place.
    """
    ids = ids or Ids()
    place = stack.places_mm[index]
    dataset = new_dataset(CTImageStorage, f"{ids.series_uid}.{index + 1}", ids)
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", ids.series, index + 1
    dataset.SeriesDescription = "phantom"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows, dataset.Columns = stack.size
    dataset.PixelSpacing = list(stack.spacing_mm)
    dataset.SliceThickness = 2.0
    dataset.ImageOrientationPatient = [f"{value:.9f}"[:16] for value in stack.orientation]
    dataset.ImagePositionPatient = [f"{value:.6f}" for value in stack.position(place)]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    store(dataset, np.rint(value_at(stack.plane_world(place))) if values is None else np.asarray(values), np.int16)
    return dataset


def new_dataset(sop_class: str, sop_uid: str, ids: Ids) -> Dataset:
    """A data set with file meta information, patient and study."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = sop_uid
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = f"Secret{ids.patient}^Name", f"SECRET-ID-{ids.patient}"
    dataset.PatientBirthDate, dataset.PatientSex = "19610203", "O"
    dataset.StudyInstanceUID = f"{ROOT}.1.{ids.patient}.{ids.study}"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20220304", "101112", "S1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "SECRET-ACC", "Secret^Doctor"
    dataset.SeriesInstanceUID = ids.series_uid
    dataset.FrameOfReferenceUID = f"{ROOT}.4.{ids.patient}.{ids.study}.{ids.frame}"
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "Phantom Works", "Plane Maker"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "1", "1"
    return dataset


def store(dataset: Dataset, values: npt.NDArray[np.generic], kind: npt.DTypeLike, bits: int | None = None) -> None:
    """Put stored values into a data set.

    Args:
        dataset: changed.
        values: (rows, columns) or (frames, rows, columns) whole numbers.
        kind: int16, uint16, int8 or uint8.
        bits: Bits Stored; all of the type if None.
    """
    dtype = np.dtype(kind)
    whole = np.rint(values).astype(dtype)
    assert np.array_equal(whole, np.rint(values)), "the stored values do not fit into the type"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dtype.itemsize * 8
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(dtype.kind == "i")
    dataset.PixelData = whole.astype(dtype.newbyteorder("<")).tobytes()


def make_series(stack: Stack, ids: Ids | None = None, edit: Edit | None = None) -> list[Dataset]:
    """All images of a stack, each after ``edit(index, dataset)``."""
    datasets = [make_slice(stack, index, ids) for index in range(len(stack.places_mm))]
    for index, dataset in enumerate(datasets):
        if edit is not None:
            edit(index, dataset)
    return datasets


def save(folder: Path, datasets: Sequence[Dataset], names: Sequence[str] | None = None) -> list[Path]:
    """Write data sets to files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / (names[index] if names else f"{index:04d}.dcm") for index in range(len(datasets))]
    for path, dataset in zip(paths, datasets, strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return paths


def save_stack(folder: Path, stack: Stack, ids: Ids | None = None, edit: Edit | None = None) -> Path:
    """Write a stack and give back its folder."""
    save(folder, make_series(stack, ids, edit))
    return folder


def turned(degrees: Sequence[float], orientation: Sequence[float] = AXIAL) -> tuple[float, ...]:
    """An orientation turned about x, then y, then z of the patient.

    Args:
        degrees: about each axis.
        orientation: what is turned.
    """
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return (*(matrix @ orientation[:3]), *(matrix @ orientation[3:]))
