"""Small DICOM series on disk, with the volume that a reader would make of them."""

from __future__ import annotations

import datetime as dt
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat, format_number_as_ds

from effvit_med.volume import (
    Code,
    Geometry,
    Label,
    LabelTable,
    Provenance,
    Segmentation,
    Source,
    SourceFile,
    Volume,
)
from effvit_med.volume.labels import LATERALITIES

FRAME_UID = "1.2.826.0.1.3680043.8.498.1"
LIVER = Label(1, "liver", Code("10200004", "Liver"), colour=(180, 90, 60))
LEFT = Label(2, "kidney_left", Code("64033007", "Kidney"), laterality=LATERALITIES["left"], colour=(60, 160, 90))
RIGHT = Label(3, "kidney_right", Code("64033007", "Kidney"), laterality=LATERALITIES["right"], colour=(60, 120, 200))
SPLEEN = Label(7, "spleen", Code("78961009", "Spleen"), colour=(200, 60, 160))
TABLE = LabelTable((LIVER, LEFT, RIGHT, SPLEEN))


def axial(
    shape: tuple[int, int, int] = (5, 12, 10), spacing_mm: tuple[float, float, float] = (3.0, 0.9, 0.7)
) -> Geometry:
    """A supine axial grid with the slices going up."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * spacing_mm
    affine[:3, 3] = (-100.5, -80.25, 30.0)
    return Geometry(affine, shape, FRAME_UID)


def text(number: float, digits: int | None = None) -> DSfloat:
    """A decimal string of at most 16 characters, or of a number of decimals as some scanners write."""
    return DSfloat(format_number_as_ds(float(number)) if digits is None else f"{number:.{digits}f}")


def write_series(
    folder: Path,
    geometry: Geometry,
    change: Callable[[int, Dataset], None] = lambda k, dataset: None,
    digits: int | None = None,
) -> Volume:
    """Write one CT file per slice along array axis 0 and return the volume that they hold.

    ``change`` may spoil the header of slice k before it is written.
    """
    array = np.random.default_rng(0).integers(-100, 200, geometry.shape, dtype=np.int16)
    files = []
    for k in range(geometry.shape[0]):
        dataset = _slice(geometry, k, array[k], digits)
        change(k, dataset)
        path = folder / f"slice{k:03}.dcm"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a spoilt header is what some tests want
            dataset.save_as(path, enforce_file_format=True)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        files.append(SourceFile(path, digest, str(dataset.SOPInstanceUID)))
    source = Source("case", "DICOM", tuple(files), str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
    return Volume(array, geometry, "CT", source)


def segment(volume: Volume, labels: np.ndarray, table: LabelTable = TABLE) -> Segmentation:
    """A segmentation of the volume with a fixed history."""
    provenance = Provenance(
        bundle="ct_organs",
        bundle_version="1.2.0",
        weights_sha256="a" * 64,
        settings={"preset": "l1", "tta": False},
        versions={"torch": "2.13.0", "effvit-med": "0.1.0"},
        device="cpu",
        started=dt.datetime(2024, 5, 1, 12, 30, tzinfo=dt.UTC).isoformat(),
        source=volume.source,
    )
    return Segmentation(labels, volume.geometry, table, provenance)


def random_labels(shape: tuple[int, int, int], seed: int = 0, values: tuple[int, ...] = (0, 1, 2, 3, 7)) -> np.ndarray:
    """Labels without any symmetry; the first slice is left empty when there are several."""
    labels = np.random.default_rng(seed).choice(values, shape).astype(np.uint8)
    if shape[0] > 1:
        labels[0] = 0
    return labels


def _slice(geometry: Geometry, k: int, pixels: np.ndarray, digits: int | None) -> Dataset:
    uid = "1.2.826.0.1.3680043.8.498.2"
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"{uid}.1.{k + 1}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = f"{uid}.2", f"{uid}.3"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = geometry.frame_of_reference_uid, ""
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate = "P1", "Doe^Jane", "19700101"
    dataset.PatientSex, dataset.AccessionNumber, dataset.StudyID = "F", "A1", "S1"
    dataset.StudyDate, dataset.StudyTime, dataset.ReferringPhysicianName = "20240501", "100000", ""
    dataset.SpecificCharacterSet, dataset.Modality, dataset.Manufacturer = "ISO_IR 192", "CT", "Scanner works"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.ImageType = 1, k + 1, ["ORIGINAL", "PRIMARY", "AXIAL"]
    directions, spacing_mm = geometry.directions, geometry.spacing_mm
    dataset.ImagePositionPatient = [text(number, digits) for number in geometry.index_to_world([k, 0, 0])]
    dataset.ImageOrientationPatient = [text(cosine, digits) for cosine in (*directions[:, 2], *directions[:, 1])]
    dataset.PixelSpacing = [text(spacing_mm[1]), text(spacing_mm[2])]
    dataset.SliceThickness = text(spacing_mm[0])
    dataset.Rows, dataset.Columns = geometry.shape[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope = 0, 1
    dataset.PixelData = pixels.astype("<i2").tobytes()
    return dataset


def change_file(path: Path, **values: object) -> None:
    """Rewrite attributes of a file on disk."""
    dataset = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
