"""The record of a run and the picture of its result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effvit_med.errors import GeometryError, OutputError
from effvit_med.io.overlay_panels import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    draw_plane,
    find_box,
    find_centre,
    find_touched,
    make_stack,
    size_mm,
)
from effvit_med.io.report import write_overlay, write_record
from effvit_med.volume import Geometry, Segmentation, Volume
from effvit_med.volume.measurements import measure
from tests.geometries import ORIENTATIONS
from tests.io.source_series import FRAME_UID, LEFT, LIVER, axial, segment, write_series


def scan(modality: str = "CT") -> tuple[Volume, Segmentation]:
    """A scan of 12 x 40 x 50 voxels: liver on the right and in front, left kidney on the left, behind and lower."""
    geometry = axial((12, 40, 50), (5.0, 2.0, 1.5))
    labels = np.zeros(geometry.shape, np.uint8)
    labels[7:11, 5:15, 5:20] = LIVER.value
    labels[1:5, 25:35, 35:45] = LEFT.value
    array = np.random.default_rng(0).normal(40, 20, geometry.shape).astype(np.float32)
    volume = Volume(array, geometry, modality)
    return volume, segment(volume, labels)


def turned(volume: Volume, segmentation: Segmentation, orientation: str) -> tuple[Volume, Segmentation]:
    """The same scan stored in another orientation."""
    axes, flips = volume.geometry.reorienting(orientation)
    geometry = volume.geometry.reoriented(orientation)
    array, labels = (
        np.flip(each.transpose(axes), np.flatnonzero(flips)) for each in (volume.array, segmentation.labels)
    )
    moved = Volume(array, geometry, volume.modality)
    return moved, segment(moved, labels)


def test_record_lists_outputs_with_hash_and_size(tmp_path: Path) -> None:
    """Each output stands with name, bytes and SHA-256, beside the provenance and the notice."""
    volume, segmentation = scan()
    output = tmp_path / "labels.nii.gz"
    output.write_bytes(b"12345")
    rows = measure(volume, segmentation)
    write_record(tmp_path / "record.json", segmentation.provenance, {"nifti": output}, rows)
    content = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(b"12345").hexdigest()
    assert content["outputs"] == {"nifti": {"file": "labels.nii.gz", "bytes": 5, "sha256": digest}}
    assert content["notice"] == "Research use only. Not for clinical use."
    assert content["identity"] == segmentation.provenance.identity()
    assert [row["structure"] for row in content["measurements"]] == [row.structure for row in rows]


def test_record_names_no_folder(tmp_path: Path) -> None:
    """A folder named after a patient does not appear in the record."""
    folder = tmp_path / "Doe_Jane"
    folder.mkdir()
    volume = write_series(folder, axial((2, 8, 8)))
    segmentation = segment(volume, np.zeros((2, 8, 8), np.uint8))
    write_record(folder / "record.json", segmentation.provenance, {"source": volume.source.files[0].path})
    assert "Doe_Jane" not in (folder / "record.json").read_text(encoding="utf-8")


def test_record_of_a_missing_output_is_refused(tmp_path: Path) -> None:
    """An output that is not there is named."""
    with pytest.raises(OutputError, match=r"The nifti .*gone\.nii cannot be put on record"):
        write_record(tmp_path / "record.json", scan()[1].provenance, {"nifti": tmp_path / "gone.nii"})


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_stored_orientation_gives_the_same_planes(orientation: str) -> None:
    """However the scan is stored, the pictures of the three planes are the same."""
    reference = make_stack(*scan())
    stack = make_stack(*turned(*scan(), orientation))
    for axis in (AXIAL, CORONAL, SAGITTAL):
        index = find_centre(reference)[axis]
        one, two = (draw_plane(each, find_box(each), axis, index, (60, 80)) for each in (reference, stack))
        assert np.array_equal(np.asarray(one), np.asarray(two))


def centre_of(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The mean row and column, from 0 to 1, of the pixels whose hue is near a colour."""
    tint = picture.astype(float) - picture.mean(axis=2, keepdims=True)
    wanted = np.array(colour, float) - np.mean(colour)
    similar = (tint @ wanted) / (np.linalg.norm(tint, axis=2) * np.linalg.norm(wanted) + 1e-9)
    found = np.argwhere((similar > 0.97) & (np.linalg.norm(tint, axis=2) > 15))
    assert len(found) > 20
    return found.mean(axis=0) / picture.shape[:2]


@pytest.mark.parametrize("axis", [AXIAL, CORONAL, SAGITTAL])
def test_planes_are_shown_as_radiologists_look_at_them(axis: int) -> None:
    """Patient right is on the left, front is up or left, head is up."""
    volume, segmentation = scan()
    labels = segmentation.labels.copy()
    labels[1:11, 5:35, 5:45] = LEFT.value
    labels[7:11, 5:15, 5:20] = LIVER.value  # right, in front, towards the head
    stack = make_stack(volume, segment(volume, labels))
    picture = np.asarray(draw_plane(stack, find_box(stack), axis, (8, 8, 8)[axis], (200, 200)))
    row, column = centre_of(picture, LIVER.colour)
    assert row < 0.5
    assert column < 0.5


def test_planes_have_true_aspect() -> None:
    """Height and width of a plane are its millimetres, also over unequal slices."""
    geometry = Geometry(axial((4, 10, 20), (2.0, 3.0, 1.0)).affine, (4, 10, 20), FRAME_UID, (0.0, 1.0, 2.0, 5.0))
    volume = Volume(np.zeros(geometry.shape), geometry)
    stack = make_stack(volume, segment(volume, np.zeros(geometry.shape, np.uint8)))
    sizes = [size_mm(stack, find_box(stack), axis) for axis in (AXIAL, CORONAL, SAGITTAL)]
    # the slices own 2, 2, 4 and 6 mm
    assert np.allclose(sizes, [(30.0, 20.0), (14.0, 20.0), (14.0, 30.0)])


def test_unequal_slices_are_shown_at_their_place() -> None:
    """A label on the thick last slice fills the top of a coronal plane as far as the slice is thick."""
    geometry = Geometry(axial((4, 10, 20), (2.0, 3.0, 1.0)).affine, (4, 10, 20), FRAME_UID, (0.0, 1.0, 2.0, 5.0))
    labels = np.zeros(geometry.shape, np.uint8)
    labels[3] = LIVER.value
    array = np.zeros(geometry.shape)
    array[3] = 1000.0
    volume = Volume(array, geometry, "CT")
    for shown in (labels, np.zeros_like(labels)):
        stack = make_stack(volume, segment(volume, shown))
        picture = np.asarray(draw_plane(stack, find_box(stack), CORONAL, 5, (140, 200))).astype(int)
        bright = np.flatnonzero(picture[:, 100].max(axis=1) > 178)
        assert abs(int(bright[-1]) - 60) <= 2
        assert bright[0] == 0


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_overlay_is_a_picture_of_the_promised_width(tmp_path: Path, modality: str) -> None:
    """The PNG opens, is 1400 pixels wide, and shows the colours of the structures."""
    write_overlay(*scan(modality), tmp_path / "overlay.png")
    with Image.open(tmp_path / "overlay.png") as picture:
        assert (picture.format, picture.width) == ("PNG", 1400)
        pixels = np.asarray(picture.convert("RGB"))
    for label in (LIVER, LEFT):
        assert (pixels == label.colour).all(axis=2).sum() > 100
    assert [file.name for file in tmp_path.iterdir()] == ["overlay.png"]


@pytest.mark.parametrize("shape", [(1, 30, 30), (3, 8, 200), (40, 40, 3)])
def test_overlay_of_odd_shapes_and_no_labels(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """One slice, narrow images and an empty result are no obstacle."""
    volume = Volume(np.zeros(shape, np.int16), axial(shape))
    write_overlay(volume, segment(volume, np.zeros(shape, np.uint8)), tmp_path / "overlay.png")
    assert (tmp_path / "overlay.png").stat().st_size > 1000


def test_overlay_of_labels_on_another_grid_is_refused(tmp_path: Path) -> None:
    """Labels of another shape are never drawn."""
    volume, _ = scan()
    other = Volume(np.zeros((2, 4, 4)), axial((2, 4, 4)))
    with pytest.raises(GeometryError, match="must be the same to be drawn over each other"):
        write_overlay(volume, segment(other, np.zeros((2, 4, 4), np.uint8)), tmp_path / "overlay.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("orientation", ORIENTATIONS[:8])
def test_planes_with_labels_are_found_in_every_orientation(orientation: str) -> None:
    """The planes that hold labels are the same however the scan is stored, across every axis."""
    volume, _ = scan()
    labels = np.zeros(volume.geometry.shape, np.uint8)
    labels[3, 5, 7] = labels[9, 6, 20] = LIVER.value
    stack = make_stack(*turned(volume, segment(volume, labels), orientation))
    for axis in range(3):
        others = tuple({0, 1, 2} - {axis})
        assert np.array_equal(find_touched(stack, axis), np.flatnonzero(stack.labels.any(axis=others)))


def test_a_scan_in_a_file_gives_the_same_picture(tmp_path: Path) -> None:
    """An overlay of a mapped scan is that of one in memory."""
    volume, segmentation = scan()
    volume.array.tofile(tmp_path / "scan")
    mapped = np.memmap(tmp_path / "scan", volume.array.dtype, "r", shape=volume.array.shape)
    write_overlay(volume, segmentation, tmp_path / "one.png")
    write_overlay(replace(volume, array=mapped), segmentation, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_the_centre_of_a_large_scan_is_near_the_true_one() -> None:
    """Looking at every second voxel moves the panel by no more than a voxel; one tiny structure is still found."""
    geometry = axial((6, 300, 280))
    volume = Volume(np.zeros(geometry.shape, np.int16), geometry, "CT")
    for box in ((slice(1, 4), slice(31, 200), slice(101, 150)), (slice(3, 4), slice(33, 34), slice(77, 78))):
        labels = np.zeros(geometry.shape, np.uint8)
        labels[box] = LIVER.value
        stack = make_stack(volume, segment(volume, labels))
        true = [np.average(np.arange(n), weights=np.count_nonzero(stack.labels, axis=tuple({0, 1, 2} - {a})))
                for a, n in enumerate(stack.labels.shape)]  # fmt: skip
        assert np.abs(np.subtract(find_centre(stack), true)).max() <= 1.5
