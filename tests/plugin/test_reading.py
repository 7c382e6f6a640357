"""Files become layers at their place; what is none of ours is left to others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given

from effvit_med.errors import InputError
from effvit_med.io import open_input, read_case
from effvit_med.volume import Geometry, Volume
from napari_effvit_med import reading
from napari_effvit_med.layers import METADATA_KEY, DisplayFrame, DisplayGrid
from napari_effvit_med.resampling import resample_into, straight_geometry
from napari_effvit_med.sample import open_phantom, open_phantom_with_truth
from tests.geometries import geometries


@pytest.fixture(autouse=True)
def _no_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No viewer is open."""
    monkeypatch.setattr(reading, "current_frame", lambda: None)


def _turned(degrees: float) -> Geometry:
    turn = np.radians(degrees)
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    affine[:3, 3] = [-30, 10, 100]
    return Geometry(affine, (20, 24, 28))


def test_a_dicom_folder_is_one_layer_in_its_place(sample_data: Path) -> None:
    """The phantom's layer has its spacing, its HU and a window for the abdomen."""
    read = reading.get_reader(str(sample_data / "ct_axial"))
    assert read is not None
    ((array, arguments, kind),) = read(str(sample_data / "ct_axial"))
    assert kind == "image"
    assert array.shape == (40, 192, 192)
    assert arguments["scale"] == pytest.approx((5, 2, 2))
    assert arguments["contrast_limits"] == (-160, 240)
    with open_input(sample_data / "ct_axial") as found:
        volume = read_case(found.cases[0])
    np.testing.assert_array_equal(array, volume.reoriented("IPL").array)
    first = volume.reoriented("IPL").geometry.index_to_world([0, 0, 0])
    np.testing.assert_allclose(arguments["translate"], [-first[2], first[1], first[0]], atol=1e-6)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii.gz"])
def test_files_of_one_scan_lie_alike(tmp_path: Path, suffix: str) -> None:
    """A scan written by SimpleITK in three formats is shown at one place, with the same values."""
    image = SimpleITK.GetImageFromArray(np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    image.SetDirection((0, 0, 1, -1, 0, 0, 0, 1, 0))
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetOrigin((-7.0, 8.0, 90.0))
    path = tmp_path / f"a{suffix}"
    SimpleITK.WriteImage(image, str(path))
    read = reading.get_reader(str(path))
    assert read is not None
    ((array, arguments, _),) = read(str(path))
    for index in np.ndindex(*array.shape):
        drawn = np.array(arguments["translate"]) + np.array(index) * arguments["scale"]
        there = image.TransformPhysicalPointToIndex((float(drawn[2]), float(drawn[1]), float(-drawn[0])))
        assert image.GetPixel(*there) == array[index]


def test_other_paths_are_left_to_other_plugins(tmp_path: Path) -> None:
    """A picture, an empty folder, a list of files and a file that only claims to be DICOM are not ours."""
    (tmp_path / "fake.dcm").write_bytes(b"x" * 200)
    (tmp_path / "a.tif").write_bytes(b"x")
    for path in (tmp_path, tmp_path / "fake.dcm", tmp_path / "a.tif", tmp_path / "gone.nii"):
        assert reading.get_reader(str(path)) is None
    assert reading.get_reader(["a.nii", "b.nii"]) is None


def test_a_refused_scan_says_why(sample_data: Path) -> None:
    """The message of the reader with its remedy is what the user sees."""
    with pytest.raises(InputError, match="missing"):
        reading.read_layers(str(sample_data / "ct_missing_slice"))


def test_a_folder_of_many_scans_is_left_to_the_panel(sample_data: Path, tmp_path: Path) -> None:
    """More than six scans are not loaded without asking."""
    for number in range(7):
        shutil.copy(sample_data / "nifti" / "ct.nii.gz", tmp_path / f"{number}.nii.gz")
    with pytest.raises(InputError, match="7 scans"):
        reading.read_layers(str(tmp_path))


def test_a_second_scan_of_other_directions_is_resampled_to_its_place() -> None:
    """A bright voxel of an oblique scan is shown where the straight frame has that point of the patient."""
    geometry = _turned(12)
    array = np.zeros(geometry.shape, np.float32)
    array[9:12, 9:12, 14:17] = 100
    shown, arguments, _ = reading.as_volume_layer(Volume(array, geometry), DisplayFrame())
    assert arguments["metadata"][METADATA_KEY].is_resampled
    place = np.average(np.argwhere(shown > 1), axis=0, weights=shown[shown > 1])
    drawn = np.array(arguments["translate"]) + place * arguments["scale"]
    world = geometry.index_to_world([10, 10, 15])
    np.testing.assert_allclose(drawn, [-world[2], world[1], world[0]], atol=0.3)


def test_a_scan_alone_is_never_resampled() -> None:
    """An oblique scan that is opened first keeps its voxels."""
    geometry = _turned(12)
    volume = Volume(np.zeros(geometry.shape, np.int16), geometry)
    shown, arguments, _ = reading.as_volume_layer(volume, None)
    assert np.shares_memory(shown, volume.array)
    assert not arguments["metadata"][METADATA_KEY].is_resampled


def test_labels_of_an_oblique_scan_overlay_it_without_resampling() -> None:
    """Labels on the scan's own grid, shown in its frame, share the memory and lie on its voxels."""
    geometry = _turned(12)
    frame = DisplayFrame.of(geometry)
    _, image, _ = reading.as_volume_layer(Volume(np.zeros(geometry.shape, np.int16), geometry), frame)
    labels = Volume(np.zeros(geometry.shape, np.uint8), geometry)
    segmentation = reading_labels(labels)
    shown, arguments, kind = reading.as_labels_layer(segmentation, frame)
    assert kind == "labels"
    assert np.shares_memory(shown, segmentation.labels)
    assert (arguments["scale"], arguments["translate"]) == (image["scale"], image["translate"])


def reading_labels(volume: Volume):
    """Empty labels on the grid of a volume."""
    from effvit_med.io.itk_images import as_segmentation

    return as_segmentation(volume, volume.array)


@given(geometries(irregular=False))
def test_the_straight_grid_holds_the_scan(geometry: Geometry) -> None:
    """No corner of a scan lies outside of the grid made for it, and that grid is straight."""
    frame = DisplayFrame()
    target = straight_geometry(geometry, frame)
    assert DisplayGrid.of(target, frame).error_mm < 1e-6
    index = target.world_to_index(geometry.corners_world())
    assert (index > -0.5 - 1e-4).all()
    assert (index < np.array(target.shape) - 0.5 + 1e-4).all()


def test_nearest_resampling_makes_no_new_labels() -> None:
    """Only values that were there come out."""
    geometry = _turned(30)
    array = np.zeros(geometry.shape, np.uint8)
    array[5:15, 5:15, 5:15] = 7
    result, _ = resample_into(array, geometry, DisplayFrame(), nearest=True)
    assert set(np.unique(result)) == {0, 7}
    assert np.count_nonzero(result) == pytest.approx(1000, rel=0.1)


def test_the_sample_study_opens_with_its_truth() -> None:
    """The CT and its labels lie on one grid, and the labels have their names."""
    (image, placed, _), (labels, overlaid, kind) = open_phantom_with_truth()
    assert kind == "labels"
    assert image.shape == labels.shape
    assert placed["scale"] == pytest.approx(overlaid["scale"])
    assert placed["translate"] == pytest.approx(overlaid["translate"])
    assert "liver" in overlaid["features"]["structure"]
    spine = image[labels == overlaid["features"]["structure"].index("spine")]
    assert spine.mean() > 120
    assert len(open_phantom()) == 1
