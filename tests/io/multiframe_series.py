"""One enhanced file that holds all slices of a series, with frames in any order."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage

from effvit_med.volume import Geometry, Source, SourceFile, Volume
from tests.io.source_series import write_series


def write_multiframe(folder: Path, geometry: Geometry, order: Sequence[int], *, shared: bool = True) -> Volume:
    """Write an Enhanced CT file and return the volume that a reader makes of it.

    Args:
        folder: where to.
        geometry: of the slices.
        order: the slice of each frame.
        shared: whether direction and pixel size stand in the shared groups; else each frame says them.
    """
    singles = write_series(folder, geometry)
    slices = [pydicom.dcmread(file.path) for file in singles.source.files]
    dataset = pydicom.dcmread(singles.source.files[0].path)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, name)
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedCTImageStorage, "1.2.826.0.1.3680043.8.498.2.9"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.NumberOfFrames = len(order)
    common, frames = Dataset(), [Dataset() for _ in order]
    for frame, k in zip(frames, order, strict=True):
        place = Dataset()
        place.ImagePositionPatient = slices[k].ImagePositionPatient
        frame.PlanePositionSequence = [place]
    for group in [common] if shared else frames:
        direction, size = Dataset(), Dataset()
        direction.ImageOrientationPatient = slices[0].ImageOrientationPatient
        size.PixelSpacing, size.SliceThickness = slices[0].PixelSpacing, slices[0].SliceThickness
        group.PlaneOrientationSequence, group.PixelMeasuresSequence = [direction], [size]
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [common], frames
    dataset.PixelData = b"".join(slices[k].PixelData for k in order)
    for file in singles.source.files:
        file.path.unlink()
    path = folder / "enhanced.dcm"
    dataset.save_as(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    numbers = [list(order).index(k) + 1 for k in range(geometry.shape[0])]
    files = tuple(SourceFile(path, digest, str(dataset.SOPInstanceUID), number) for number in numbers)
    source = Source("case", "DICOM", files, str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID))
    return Volume(singles.array, geometry, "CT", source)
