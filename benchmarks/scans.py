"""Scans to measure on: a CT of clinical size, and labels that need no network."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import torch

from effvit_med.errors import InputError
from effvit_med.training.phantom import make_case
from effvit_med.transforms import network_grid, resample
from effvit_med.volume import Geometry, LabelTable, Provenance, Segmentation, Volume

COARSE = 4
"""How many voxels of the large scan one rendered voxel becomes along each axis."""

NOISE_HU = 12.0

Labels = npt.NDArray[np.uint8]
Shape = tuple[int, int, int]


def make_large_scan(shape: Shape, spacing_mm: tuple[float, float, float], seed: int) -> tuple[Volume, Labels]:
    """A phantom in CT at the size of a real examination, and its labels.

    It is rendered on a grid that is coarser by 4 along each axis and interpolated, with fresh noise: the anatomy is
    softer than a phantom that is rendered finely, the work for a program is the same.

    Args:
        shape: slices, rows, columns.
        spacing_mm: along each of them.
        seed: of the phantom and of the noise.

    Returns:
        The scan, int16 HU, and uint8 labels of the same shape.
    """
    rough = make_case(
        seed,
        spacing_mm=(COARSE * spacing_mm[0], COARSE * spacing_mm[1], COARSE * spacing_mm[2]),
        shape=(-(-shape[0] // COARSE), -(-shape[1] // COARSE), -(-shape[2] // COARSE)),
    )
    coarse = Geometry(rough.affine_lps, rough.hu.shape)
    covering = network_grid(coarse, None, spacing_mm)
    geometry = Geometry(covering.affine, shape)
    hu = resample(torch.from_numpy(rough.hu), coarse, geometry).numpy()
    array = np.empty(shape, np.int16)
    rng = np.random.default_rng(seed)
    for place, plane in enumerate(hu):  # slice by slice: a scan of 1200 slices would need several GiB at once
        noise = rng.standard_normal(plane.shape, dtype=np.float32) * np.float32(NOISE_HU)
        array[place] = np.rint(plane + noise).clip(-1024, 3071)
    index = np.ix_(*(np.arange(size) // COARSE for size in shape))
    return Volume(array, geometry, "CT"), rough.labels[index]


def crop(volume: Volume, shape: Shape) -> Volume:
    """The middle of a scan.

    Args:
        volume: the scan.
        shape: of the part; at most that of the scan.
    """
    starts = [(have - wanted) // 2 for have, wanted in zip(volume.geometry.shape, shape, strict=True)]
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = volume.geometry.index_to_world(starts)
    box = tuple(slice(start, start + size) for start, size in zip(starts, shape, strict=True))
    return Volume(volume.array[box].copy(), Geometry(affine, shape), volume.modality)


def write_series(volume: Volume, template: Path, folder: Path) -> None:
    """Write a scan as one DICOM file a slice, with all other headers from a file that is there.

    Args:
        volume: int16 HU; axes slice, row, column.
        template: a CT image whose headers are taken over.
        folder: where to; made if it is not there.

    Raises:
        InputError: if the template stores no 16-bit pixels with a slope of 1.
    """
    dataset = pydicom.dcmread(template)
    if (dataset.BitsStored, dataset.PixelRepresentation, float(dataset.RescaleSlope)) != (16, 0, 1.0):
        raise InputError(f"{template.name} must store unsigned 16-bit pixels with a Rescale Slope of 1.")
    folder.mkdir(parents=True, exist_ok=True)
    geometry = volume.geometry
    directions, spacing_mm = geometry.directions, geometry.spacing_mm
    dataset.Rows, dataset.Columns = geometry.shape[1:]
    dataset.PixelSpacing = [f"{size:g}" for size in spacing_mm[1:]]
    dataset.SliceThickness = f"{spacing_mm[0]:g}"
    dataset.ImageOrientationPatient = [f"{cosine:.10f}" for cosine in (*directions[:, 2], *directions[:, 1])]
    root = f"2.25.{int.from_bytes(hashlib.sha256(np.array(geometry.shape).tobytes()).digest()[:12], 'big')}"
    dataset.SeriesInstanceUID = f"{root}.1"
    for index, plane in enumerate(volume.array):
        corner = geometry.index_to_world([index, 0, 0])
        dataset.ImagePositionPatient = [f"{value:.6f}" for value in corner]
        dataset.SliceLocation = f"{corner[2]:.6f}"
        dataset.InstanceNumber = index + 1
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{root}.2.{index + 1}"
        dataset.PixelData = (plane.astype(np.int32) - int(dataset.RescaleIntercept)).astype("<u2").tobytes()
        dataset.save_as(folder / f"slice{index + 1:04d}.dcm", enforce_file_format=True)


def draw_blobs(shape: Shape, values: tuple[int, ...], seed: int = 0) -> Labels:
    """A few ellipsoids that lie nowhere in the middle, so that a mirrored or shifted map is another map.

    Args:
        shape: of the label map.
        values: one ellipsoid each, in this order; later ones cover earlier ones.
        seed: decides places and sizes.

    Examples:
        >>> sorted(set(draw_blobs((6, 40, 40), (1, 2)).ravel().tolist()))
        [0, 1, 2]
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    axes = np.ogrid[tuple(slice(size) for size in shape)]
    for value in values:
        centre = [rng.uniform(0.15, 0.85) * (size - 1) for size in shape]
        radius = [max(0.8, rng.uniform(0.08, 0.25) * size) for size in shape]
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radius, strict=True))
        labels[np.asarray(distance) <= 1] = value
    return labels


def attach_labels(volume: Volume, labels: Labels, table: LabelTable) -> Segmentation:
    """Labels as if a network had made them from the volume."""
    made = Provenance(
        bundle="benchmark",
        bundle_version="0",
        weights_sha256="",
        settings={},
        versions={},
        device="cpu",
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        source=volume.source,
    )
    return Segmentation(labels, volume.geometry, table, made)
