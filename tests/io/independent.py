"""Programs of others that read what we write, and the grids on which they are asked to."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own short name

from effvit_med.volume import Geometry
from tests.io.source_series import FRAME_UID

needs_dciodvfy = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
needs_plastimatch = pytest.mark.skipif(shutil.which("plastimatch") is None, reason="plastimatch is not installed")
needs_dsrdump = pytest.mark.skipif(shutil.which("dsrdump") is None, reason="dsrdump (dcmtk) is not installed")

DCMQI = Path(sys.executable).parent
needs_dcmqi = pytest.mark.skipif(not (DCMQI / "segimage2itkimage").exists(), reason="dcmqi is not installed")

ORIENTATIONS = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "prone": ((-1, 0, 0), (0, -1, 0)),
    "rows flipped": ((-1, 0, 0), (0, 1, 0)),
    "columns flipped": ((1, 0, 0), (0, -1, 0)),
    "transposed": ((0, 1, 0), (1, 0, 0)),
    "decubitus": ((0, 1, 0), (-1, 0, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "coronal upside down": ((1, 0, 0), (0, 0, 1)),
    "coronal left-right": ((-1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "sagittal up": ((0, 1, 0), (0, 0, 1)),
    "sagittal flipped": ((0, -1, 0), (0, 0, -1)),
    "oblique": ((0.8660254, 0.5, 0.0), (-0.4698463, 0.8137977, 0.3420201)),
}
"""Directions of rows and of columns, as Image Orientation (Patient) names them."""


def make_grid(
    name: str, shape: tuple[int, int, int] = (6, 20, 24), spacing_mm: tuple[float, float, float] = (3.0, 0.9, 0.7)
) -> Geometry:
    """A grid in one of `ORIENTATIONS`; its slices go along the normal."""
    along_row, along_column = (np.array(direction, float) for direction in ORIENTATIONS[name])
    affine = np.eye(4)
    affine[:3, :3] = np.stack([np.cross(along_row, along_column), along_column, along_row], axis=1) * spacing_mm
    affine[:3, 3] = (-31.5, 20.25, 47.75)
    return Geometry(affine, shape, FRAME_UID)


def draw_shapes(shape: tuple[int, int, int]) -> np.ndarray:
    """Labels without symmetry: a ring with an island in its hole, single voxels, a line, a thick block."""
    labels = np.zeros(shape, np.uint8)
    labels[1:4, 2:15, 3:18] = 1
    labels[1:4, 4:12, 6:15] = 0
    labels[2, 6:9, 8:12] = 1
    labels[2, 4, 6:15] = 1
    labels[3, 5:8, 9:13] = 7
    labels[4, 1, 1] = labels[4, 2, 2] = labels[0, 0, 0] = 2
    labels[5, 17, 2:22] = 3
    labels[4:6, 8:13, 19:24] = 3
    return labels


def errors_of(path: Path) -> list[str]:
    """The complaints of dciodvfy, or none where it is not installed."""
    if shutil.which("dciodvfy") is None:
        return []
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")]


def read_with_dcmqi(path: Path, folder: Path) -> list[sitk.Image]:
    """What dcmqi makes of a DICOM SEG: an image per group of segments."""
    folder.mkdir()
    command = [DCMQI / "segimage2itkimage", "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return [sitk.ReadImage(str(file)) for file in sorted(folder.glob("*.nrrd"))]


def read_with_plastimatch(path: Path, series: Path, folder: Path) -> dict[str, sitk.Image]:
    """The mask that plastimatch makes of each structure of an RTSTRUCT on the grid of the series."""
    command = ["plastimatch", "convert", "--input", path, "--referenced-ct", series, "--output-prefix", folder,
               "--prefix-format", "nrrd"]  # fmt: skip
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return {file.stem: sitk.ReadImage(str(file)) for file in folder.glob("*.nrrd")}


def sample(image: sitk.Image, geometry: Geometry) -> np.ndarray:
    """The values of an image at the voxel centres of a grid, found by world position; 0 outside."""
    index = np.indices(geometry.shape).reshape(3, -1).T
    world = geometry.index_to_world(index)
    matrix = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    place = (world - image.GetOrigin()) @ np.linalg.inv(matrix).T
    nearest = np.round(place).astype(int)
    assert np.abs(place - nearest).max() < 0.02
    array = sitk.GetArrayFromImage(image)
    inside = ((nearest >= 0) & (nearest < image.GetSize())).all(axis=1)
    values = np.zeros(len(index), array.dtype)
    i, j, k = nearest[inside].T
    values[inside] = array[k, j, i]
    return values.reshape(geometry.shape)
