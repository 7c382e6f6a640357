"""NRRD files: the labels at their place, with what 3D Slicer wants to know of each segment."""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its own short name

from effvit_med.errors import OutputError
from effvit_med.io import read_nifti, write_nrrd, write_volume
from effvit_med.volume import Code, Geometry, Label, LabelTable, Volume
from tests.io.independent import ORIENTATIONS, draw_shapes, make_grid, sample
from tests.io.source_series import FRAME_UID, TABLE, axial, random_labels, segment, write_series


@pytest.mark.parametrize("name", list(ORIENTATIONS))
def test_another_program_reads_every_voxel_in_its_place(tmp_path: Path, name: str) -> None:
    """In every orientation SimpleITK finds each label where it is in the patient."""
    volume = write_series(tmp_path, make_grid(name))
    segmentation = segment(volume, draw_shapes(volume.geometry.shape))
    write_nrrd(segmentation, tmp_path / "a.seg.nrrd")
    found = sample(sitk.ReadImage(str(tmp_path / "a.seg.nrrd")), volume.geometry)
    assert np.array_equal(found, segmentation.labels)


def test_labels_of_nifti_input_keep_their_place(tmp_path: Path) -> None:
    """Where the scan was a NIfTI file its axes are kept, and so is the place of every label."""
    write_volume(
        Volume(np.zeros((4, 5, 6), np.int16), Geometry(axial().affine, (4, 5, 6), slice_axis=2)), tmp_path / "a.nii"
    )
    volume = read_nifti(tmp_path / "a.nii")
    segmentation = segment(volume, random_labels((4, 5, 6)))
    write_nrrd(segmentation, tmp_path / "a.seg.nrrd")
    assert np.array_equal(sample(sitk.ReadImage(str(tmp_path / "a.seg.nrrd")), volume.geometry), segmentation.labels)


def test_segments_have_name_colour_value_and_codes(tmp_path: Path) -> None:
    """The key/value pairs of each segment are those that 3D Slicer reads."""
    volume = write_series(tmp_path, axial())
    write_nrrd(segment(volume, random_labels(axial().shape)), tmp_path / "a.seg.nrrd")
    header = nrrd.read_header(str(tmp_path / "a.seg.nrrd"))
    assert header["space"] == "left-posterior-superior"
    assert header["encoding"] == "gzip"
    assert header["content"] == "Research use only. Not for clinical use."
    for number, label in enumerate(TABLE):
        found = {key.split("_", 1)[1]: text for key, text in header.items() if key.startswith(f"Segment{number}_")}
        category, kind, side = found["Tags"].split("TerminologyEntry:")[1].split("~")[1:4]
        assert (found["Name"], found["LabelValue"], found["Layer"]) == (label.name, str(label.value), "0")
        assert np.allclose(np.array(found["Color"].split(), float) * 255, label.colour, atol=0.01)
        assert found["Extent"] == "0 9 0 11 0 4"
        assert category == "SCT^91723000^Anatomical Structure"
        assert kind == f"SCT^{label.type.value}^{label.type.meaning}"
        assert side == (f"SCT^{label.laterality.value}^{label.laterality.meaning}" if label.laterality else "^^")


def test_same_labels_give_the_same_bytes(tmp_path: Path) -> None:
    """No date of writing stands in the file."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(axial().shape))
    write_nrrd(segmentation, tmp_path / "a.seg.nrrd")
    write_nrrd(segmentation, tmp_path / "b.seg.nrrd")
    assert (tmp_path / "a.seg.nrrd").read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()
    assert b"(GMT)" not in (tmp_path / "a.seg.nrrd").read_bytes()


def test_only_structures_that_were_found_are_segments(tmp_path: Path) -> None:
    """An absent structure has no segment, an empty result has none at all."""
    volume = write_series(tmp_path, axial())
    for labels, names in (
        (random_labels(axial().shape, values=(0, 7)), ["spleen"]),
        (np.zeros(axial().shape, np.uint8), []),
    ):
        write_nrrd(segment(volume, labels), tmp_path / "a.seg.nrrd")
        header = nrrd.read_header(str(tmp_path / "a.seg.nrrd"))
        assert [text for key, text in header.items() if key.endswith("_Name")] == names


def test_more_than_255_labels_and_odd_names_fit(tmp_path: Path) -> None:
    """Two bytes a voxel hold 300 labels; letters that separate fields do not break the header."""
    table = LabelTable((Label(1, "a|b: é", Code("1", "x~y^z", "99T")), Label(300, "rib", Code("113197003", "Rib"))))
    volume = write_series(tmp_path, axial())
    labels = random_labels(axial().shape, values=(0, 1)).astype(np.uint16) * 300
    labels[2, :3] = 1
    write_nrrd(segment(volume, labels, table), tmp_path / "a.seg.nrrd")
    array, header = nrrd.read(str(tmp_path / "a.seg.nrrd"), index_order="C")
    assert np.array_equal(array, labels)
    assert header["Segment0_Name"] == "a b  ?"
    assert "~99T^1^x y z~" in header["Segment0_Tags"]


def test_unequal_slices_are_refused(tmp_path: Path) -> None:
    """NRRD cannot hold unequal slice distances, and nothing is written."""
    grid = Geometry(axial().affine, axial().shape, FRAME_UID, (0.0, 1.0, 2.0, 3.5, 5.0))
    with pytest.raises(OutputError, match="NRRD cannot hold unequal slice distances"):
        write_nrrd(segment(write_series(tmp_path, grid), random_labels(axial().shape)), tmp_path / "a.seg.nrrd")
    assert not (tmp_path / "a.seg.nrrd").exists()


def test_other_name_is_refused(tmp_path: Path) -> None:
    """Without its double ending 3D Slicer takes the file for an image."""
    volume = write_series(tmp_path, axial())
    with pytest.raises(OutputError, match=r"a\.nrrd must end in \.seg\.nrrd"):
        write_nrrd(segment(volume, random_labels(axial().shape)), tmp_path / "a.nrrd")
