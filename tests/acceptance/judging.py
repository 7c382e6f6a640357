"""Whether a volume, or a file with labels, says the truth about every place: by independent readers."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK

from effvit_med.volume import Volume
from tests.acceptance.series import SLOPE_PER_MM, Floats, Stack, edge_distance_is_safe, label_at, value_at

Labels = npt.NDArray[np.unsignedinteger]


def claimed_world(volume: Volume) -> Floats:
    """Where a volume says that its voxels lie, worked out here from its affine and slice offsets."""
    geometry = volume.geometry
    index = np.stack(np.meshgrid(*[np.arange(float(size)) for size in geometry.shape], indexing="ij"), axis=-1)
    if geometry.slice_offsets is not None:
        index[..., geometry.slice_axis] = np.array(geometry.slice_offsets)[index[..., geometry.slice_axis].astype(int)]
    return index @ np.asarray(geometry.affine)[:3, :3].T + np.asarray(geometry.affine)[:3, 3]


def assert_true(volume: Volume, stack: Stack, off_mm: float = 0.001) -> None:
    """Fail unless the volume has every plane of a stack, and each voxel the value of the place that it claims.

    Args:
        volume: what was read.
        stack: what the files were made from.
        off_mm: how far headers may be off by rounding.
    """
    world = claimed_world(volume)
    planes = len(stack.places_mm)
    assert sorted(volume.geometry.shape) == sorted((planes, *stack.size))
    first = np.array([stack.position(place) for place in stack.places_mm])
    distance = np.linalg.norm(first[:, None] - world.reshape(1, -1, 3), axis=-1).min(axis=1)
    assert distance.max() <= off_mm, f"a plane lies {distance.max():.3f} mm from where it was made"
    wrong = np.abs(volume.array - value_at(world)) > 0.5 + float(np.abs(SLOPE_PER_MM).sum()) * off_mm
    safe = edge_distance_is_safe(world, 2 * off_mm)
    assert not (wrong & safe).any(), f"{np.count_nonzero(wrong & safe)} of {wrong.size} voxels have wrong values"
    assert safe.mean() > 0.8


def dice(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Dice coefficient of two masks; 1 where both are empty."""
    first, second = np.asarray(one, bool), np.asarray(other, bool)
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else 1.0


@dataclass(frozen=True, eq=False)
class Image:
    """Labels as another program gave them.

    Attributes:
        array: (z, y, x) labels in SimpleITK's order.
        affine: (4, 4) from (x, y, z) index to LPS mm.
    """

    array: Labels
    affine: Floats

    def at(self, world: Floats) -> Labels:
        """The label of the voxel in which each (..., 3) world point lies; 0 outside."""
        inverse = np.linalg.inv(self.affine)
        index = np.rint(world @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
        size = np.array(self.array.shape[::-1])
        inside = ((index >= 0) & (index < size)).all(axis=-1)
        x, y, z = np.moveaxis(np.where(inside[..., None], index, 0), -1, 0)
        return np.where(inside, self.array[z, y, x], 0).astype(self.array.dtype)


def open_image(path: Path) -> Image:
    """A NIfTI, NRRD or MetaImage file as SimpleITK reads it."""
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Image(SimpleITK.GetArrayFromImage(image).astype(np.uint16), affine)


def assert_labels_true(image: Image, stack: Stack, values: tuple[int, ...] = (1, 2)) -> None:
    """Fail unless Dice is 1.000 for each structure and no voxel is labelled beside the planes."""
    world = stack.world()
    truth, found = label_at(world), image.at(world)
    for value in values:
        assert dice(found == value, truth == value) == 1.0, f"structure {value}"
        assert np.count_nonzero(image.array == value) == np.count_nonzero(truth == value), "labels beside the planes"


def need_program(name: str) -> str:
    """The path of a program of the environment or the machine; the test is skipped where it is missing."""
    own = Path(sysconfig.get_path("scripts"), name)
    found = str(own) if own.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def run_program(*arguments: str | Path) -> str:
    """What a program prints; it must end well."""
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def read_with_dcmqi(seg: Path, folder: Path) -> Image:
    """A DICOM SEG as dcmqi reads it: label i is segment number i."""
    program = need_program("segimage2itkimage")
    folder.mkdir()
    run_program(program, "--inputDICOM", seg, "--outputDirectory", folder, "-t", "nrrd", "--mergeSegments")
    (path,) = sorted(folder.glob("*.nrrd"))
    return open_image(path)


def read_with_plastimatch(rtstruct: Path, stack_folder: Path, folder: Path) -> dict[str, Image]:
    """An RTSTRUCT as plastimatch rasters it on the grid of its series: one mask for each structure by name."""
    program = need_program("plastimatch")
    folder.mkdir()
    run_program(
        program, "convert", "--input", rtstruct, "--referenced-ct", stack_folder, "--output-prefix", folder / "masks",
        "--prefix-format", "nrrd",
    )  # fmt: skip
    return {path.stem: open_image(path) for path in sorted((folder / "masks").glob("*.nrrd"))}
