"""Facts about `effvit_med.io.dicom_mosaic`: the tiles of a mosaic lie where the scanner says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from effvit_med.io.cases import DicomSeries, Found
from effvit_med.io.dicom_mosaic import Tiling
from effvit_med.io.find import ReadOptions, find_cases
from effvit_med.io.read import read_case
from effvit_med.volume import Volume
from tests.io.dicom_cases import AXIAL, ORIGIN, SPACING, pixels, save
from tests.io.mosaic_cases import encode_csa, make_mosaic


def _find(folder: Path, *datasets: Dataset) -> Found:
    save(folder, datasets)
    return find_cases(folder, ReadOptions())


def _volume(folder: Path, dataset: Dataset) -> Volume:
    (case,) = _find(folder, dataset).cases
    return read_case(case)


@given(turn=st.tuples(*[st.floats(-80, 80)] * 3), against=st.booleans())
def test_tiles_lie_along_the_private_normal(
    tmp_path_factory: pytest.TempPathFactory, turn: tuple[float, float, float], against: bool
) -> None:
    """Each tile lies its number of steps from the first along the scanner's normal, whichever way it points."""
    axes = Rotation.from_euler("xyz", turn, degrees=True).as_matrix().T.round(8)
    normal = -axes[2] if against else axes[2]
    volume = _volume(tmp_path_factory.mktemp("m"), make_mosaic(ORIGIN, (*axes[0], *axes[1]), normal))
    assert volume.geometry.spacing_mm == pytest.approx((3.0, *SPACING), abs=1e-5)
    for tile in range(5):
        for row, column in ((0, 0), (7, 2)):
            world = np.array(ORIGIN) + 3.0 * tile * normal
            world = world + axes[0] * SPACING[1] * column + axes[1] * SPACING[0] * row
            place = np.rint(volume.geometry.world_to_index(world)).astype(int)
            assert np.allclose(volume.geometry.index_to_world(place), world, atol=1e-3)
            assert volume.array[tuple(place)] == pixels(tile)[row, column]


def test_mosaic_is_a_finding_without_frames(tmp_path: Path) -> None:
    """A mosaic says that it is one; its slices name the file but no frame, as it has none."""
    volume = _volume(tmp_path, make_mosaic(ORIGIN, AXIAL, (0, 0, 1)))
    assert volume.source is not None
    assert [finding.code for finding in volume.source.findings] == ["MOSAIC"]
    assert [file.frame for file in volume.source.files] == [0] * 5


def test_mosaics_over_time_are_split(tmp_path: Path) -> None:
    """Two mosaics of one series are two volumes."""
    datasets = [make_mosaic(ORIGIN, AXIAL, (0, 0, 1)) for _ in range(2)]
    datasets[1].SOPInstanceUID = datasets[1].file_meta.MediaStorageSOPInstanceUID = "1.2.3.9"
    datasets[1].AcquisitionNumber, datasets[0].AcquisitionNumber = 2, 1
    datasets[1].PixelData = bytes(len(datasets[1].PixelData))
    cases = _find(tmp_path, *datasets).cases
    assert [case.geometry.shape[0] for case in cases if isinstance(case, DicomSeries)] == [5, 5]


def _without(*tags: int) -> Callable[[Dataset], None]:
    def remove(dataset: Dataset) -> None:
        for tag in tags:
            del dataset[tag]

    return remove


def _with_header(**values: list[str]) -> Callable[[Dataset], None]:
    def write(dataset: Dataset) -> None:
        dataset[0x00291010].value = encode_csa(values)

    return write


def _garble(dataset: Dataset) -> None:
    dataset[0x00291010].value = b"SV10\4\3\2\1" + bytes(range(200))


@pytest.mark.parametrize("edit", [
    _without(0x00291010), _without(0x00290010), _without(0x00180088), _garble,
    _with_header(NumberOfImagesInMosaic=["5"]),
    _with_header(NumberOfImagesInMosaic=["5"], SliceNormalVector=["1", "0", "0"]),
    _with_header(NumberOfImagesInMosaic=["17"], SliceNormalVector=["0", "0", "1"]),
    _with_header(NumberOfImagesInMosaic=["x"], SliceNormalVector=["0", "0", "1"]),
    _with_header(SliceNormalVector=["0", "0", "1"]),
])  # fmt: skip
def test_doubtful_mosaic_is_refused(tmp_path: Path, edit: Callable[[Dataset], None]) -> None:
    """Where the private header lacks something or contradicts the public one, the mosaic is refused."""
    dataset = make_mosaic(ORIGIN, AXIAL, (0, 0, 1))
    edit(dataset)
    (refused,) = _find(tmp_path, dataset).refused
    assert (refused.code, "dcm2niix" in refused.remedy) == ("MOSAIC", True)


def test_tile_beyond_the_count_is_an_error() -> None:
    """A tile that the mosaic does not have cannot be cut."""
    with pytest.raises(ValueError, match="no tile 6"):
        Tiling(5, 3).cut(np.zeros((24, 30)), 6)
