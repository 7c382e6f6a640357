"""Label maps in whatever file format they come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effvit_med.errors import InputError
from effvit_med.evaluation.alignment import place_on
from effvit_med.io import (
    read_photograph,
    write_dicom_seg,
    write_nifti,
    write_nrrd,
    write_photograph_labels,
    write_volume,
)
from effvit_med.io.label_files import has_table, read_labels
from effvit_med.volume import Label, LabelTable, Volume
from tests.io.source_series import LIVER, TABLE, axial, segment, write_series
from tests.photographs import colours, save


def test_every_format_gives_the_same_labels(tmp_path: Path) -> None:
    """NIfTI, NRRD and DICOM SEG of one segmentation, each with the names of its structures."""
    (tmp_path / "ct").mkdir()
    volume = write_series(tmp_path / "ct", axial())
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[1:4, 2:6, 3:7], labels[2, 8:11, 2:5] = 1, 7
    written = segment(volume, labels)
    write_nifti(written, tmp_path / "a.nii.gz")
    write_nrrd(written, tmp_path / "a.seg.nrrd")
    write_dicom_seg(written, tmp_path / "a.seg.dcm")
    for name in ("a.nii.gz", "a.seg.nrrd", "a.seg.dcm"):
        read = read_labels(tmp_path / name, TABLE)
        assert has_table(tmp_path / name)
        placed = place_on(read, written.geometry, sparse=name.endswith(".dcm"))
        assert np.array_equal(placed.labels, written.labels), name
        assert {label.name for label in read_labels(tmp_path / name).table} <= {label.name for label in TABLE}


def test_a_segment_that_is_no_structure_of_the_table_is_refused(tmp_path: Path) -> None:
    """By name: its number says nothing."""
    (tmp_path / "ct").mkdir()
    volume = write_series(tmp_path / "ct", axial())
    write_dicom_seg(segment(volume, np.full(volume.array.shape, 7, np.uint8)), tmp_path / "a.seg.dcm")
    with pytest.raises(InputError, match=r"\['spleen'\]; the structures are \['liver'\]"):
        read_labels(tmp_path / "a.seg.dcm", LabelTable((LIVER,)))


def test_a_plain_file_gets_plain_names_or_those_given(tmp_path: Path) -> None:
    """A NIfTI of another program says nothing of its values."""
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1:3] = 1
    write_volume(Volume(labels, axial((4, 4, 4))), tmp_path / "a.nii.gz")
    assert not has_table(tmp_path / "a.nii.gz")
    assert [label.name for label in read_labels(tmp_path / "a.nii.gz").table] == ["label 1"]
    assert [label.name for label in read_labels(tmp_path / "a.nii.gz", LabelTable((LIVER,))).table] == ["liver"]


def test_a_scan_is_no_label_map(tmp_path: Path) -> None:
    """Values that are no whole numbers are refused, with the range."""
    write_volume(Volume(np.full((4, 4, 4), 0.5, np.float32), axial((4, 4, 4))), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match=r"0\.5 to 0\.5"):
        read_labels(tmp_path / "a.nii.gz")


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    """And one of no known format, too."""
    with pytest.raises(InputError, match="is no file"):
        read_labels(tmp_path / "a.nii.gz")
    (tmp_path / "a.txt").write_text("1", encoding="utf-8")
    with pytest.raises(InputError, match="give NIfTI"):
        read_labels(tmp_path / "a.txt")


@pytest.mark.parametrize("yes", [1, 255])
def test_a_mask_of_two_values_is_zero_and_one(tmp_path: Path, yes: int) -> None:
    """0 and 255 is how most programs write no and yes."""
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9, 5:20] = yes
    save(mask, tmp_path / "a.png")
    read = read_labels(tmp_path / "a.png")
    assert read.labels.shape == (1, 20, 30)
    assert np.array_equal(read.labels[0], mask > 0)
    assert [label.value for label in read.table] == [1]


def test_255_stays_where_the_table_has_it(tmp_path: Path) -> None:
    """Axons are 255 where myelin is 127, and alone, too."""
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9] = 255
    table = LabelTable((Label(127, "myelin", LIVER.type), Label(255, "axon", LIVER.type)))
    read = read_labels(save(mask, tmp_path / "a.png"), table)
    assert set(np.unique(read.labels).tolist()) == {0, 255}


def test_other_values_are_labels_as_they_stand(tmp_path: Path) -> None:
    """127 and 255 are two structures, and stray values are told, not rounded."""
    mask = np.zeros((20, 30), np.uint8)
    mask[4:9], mask[9:12] = 127, 255
    assert [label.value for label in read_labels(save(mask, tmp_path / "a.png")).table] == [127, 255]
    with pytest.raises(InputError, match=r"\[127, 255\]"):
        read_labels(tmp_path / "a.png", LabelTable((LIVER,)))


def test_label_maps_of_photographs_always_lie_on_one_another(tmp_path: Path) -> None:
    """A result knows its table; sizes in the file and Exif do not move it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph = read_photograph(save(colours(), tmp_path / "a.jpg", exif=exif))
    result = segment(photograph, (photograph.array > 128).astype(np.uint8))
    write_photograph_labels(result, tmp_path / "segmentation.png")
    drawn = save((result.labels[0] * 255).astype(np.uint8), tmp_path / "drawn.tif", tiffinfo={282: 10.0, 283: 10.0})
    assert has_table(tmp_path / "segmentation.png")
    ours, truth = read_labels(tmp_path / "segmentation.png"), read_labels(drawn)
    assert truth.geometry.max_distance_mm(ours.geometry) == 0
    assert np.array_equal(ours.labels, truth.labels)
    assert {label.name for label in ours.table} == {label.name for label in TABLE}
