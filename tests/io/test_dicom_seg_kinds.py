"""Kinds of DICOM segmentation: fractional, chosen by number, and all of them as other programs read them."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from effvit_med.errors import OutputError
from effvit_med.io.dicom_seg import AUTO_BINARY_STRUCTURES, SegOptions, write_dicom_seg
from effvit_med.volume import Code, Label, LabelTable, Segmentation
from tests.io.independent import (
    ORIENTATIONS,
    draw_shapes,
    errors_of,
    make_grid,
    needs_dciodvfy,
    needs_dcmqi,
    read_with_dcmqi,
    sample,
)
from tests.io.source_series import TABLE, axial, random_labels, segment, write_series

pytestmark = pytest.mark.filterwarnings("ignore:The number of bytes of compressed pixel data")  # of tiny frames


def with_confidence(segmentation: Segmentation, seed: int = 0) -> Segmentation:
    """The same labels with a confidence for every voxel."""
    confidence = np.random.default_rng(seed).integers(0, 256, segmentation.labels.shape, np.uint8)
    return Segmentation(
        segmentation.labels, segmentation.geometry, segmentation.table, segmentation.provenance, confidence
    )


@pytest.fixture(name="fractional")
def _fractional(tmp_path: Path) -> Segmentation:
    """Labels with confidence, written as a fractional file."""
    volume = write_series(tmp_path, axial())
    segmentation = with_confidence(segment(volume, random_labels(volume.geometry.shape)))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions("fractional"))
    return segmentation


def test_fraction_is_the_confidence_where_the_label_is(tmp_path: Path, fractional: Segmentation) -> None:
    """Another program reads confidence / 255 at the voxels of a structure, at least 1 / 255 there, 0 elsewhere."""
    seg = hd.seg.segread(tmp_path / "seg.dcm")
    uids = [file.sop_instance_uid for file in fractional.provenance.source.files]
    pixels = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    for column, number in enumerate(seg.segment_numbers):
        value = TABLE.by_name(seg.get_segment_description(number).SegmentLabel).value
        wanted = np.where(fractional.labels == value, np.maximum(fractional.confidence, 1), 0) / 255
        assert np.allclose(pixels[..., column], wanted, atol=1e-6)


def test_fractional_file_says_what_the_fraction_means(tmp_path: Path, fractional: Segmentation) -> None:
    """Type, largest value and meaning stand in the file."""
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (dataset.SegmentationType, dataset.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    assert (dataset.MaximumFractionalValue, dataset.BitsAllocated) == (255, 8)
    assert all("not a calibrated probability" in item.SegmentDescription for item in dataset.SegmentSequence)


@needs_dciodvfy
def test_independent_checker_finds_no_error_in_fractional(tmp_path: Path, fractional: Segmentation) -> None:
    """The checker dciodvfy has nothing to complain about in a fractional file."""
    assert errors_of(tmp_path / "seg.dcm") == []


@needs_dcmqi
def test_another_program_reads_the_fractions(tmp_path: Path, fractional: Segmentation) -> None:
    """The program dcmqi finds something at every labelled voxel, and nothing elsewhere."""
    images = read_with_dcmqi(tmp_path / "seg.dcm", tmp_path / "out")
    found = sum((sample(image, fractional.geometry) > 0).astype(int) for image in images)
    assert np.array_equal(found, (fractional.labels > 0).astype(int))


def test_fractional_without_confidence_is_refused(tmp_path: Path) -> None:
    """Where there is no confidence map there is no fractional file."""
    volume = write_series(tmp_path, axial())
    with pytest.raises(OutputError, match="has no confidence map; choose binary or labelmap"):
        write_dicom_seg(segment(volume, random_labels(axial().shape)), tmp_path / "seg.dcm", SegOptions("fractional"))
    assert not (tmp_path / "seg.dcm").exists()


@needs_dciodvfy
def test_empty_fractional_file_is_valid(tmp_path: Path) -> None:
    """Where nothing was found the file has one segment without a voxel."""
    volume = write_series(tmp_path, axial())
    empty = with_confidence(segment(volume, np.zeros(axial().shape, np.uint8)))
    write_dicom_seg(empty, tmp_path / "seg.dcm", SegOptions("fractional"))
    assert not pydicom.dcmread(tmp_path / "seg.dcm").pixel_array.any()
    assert errors_of(tmp_path / "seg.dcm") == []


def many(count: int) -> LabelTable:
    """A table of that many structures."""
    return LabelTable(tuple(Label(value, f"s{value}", Code("91723000", "Structure")) for value in range(1, count + 1)))


@pytest.mark.parametrize(
    ("found", "kind"), [(AUTO_BINARY_STRUCTURES, "BINARY"), (AUTO_BINARY_STRUCTURES + 1, "LABELMAP"), (0, "BINARY")]
)
def test_auto_counts_the_structures_that_were_found(tmp_path: Path, found: int, kind: str) -> None:
    """Up to 20 structures found give a binary file, more a labelmap, however many the table has; a note says so."""
    volume = write_series(tmp_path, axial((2, 12, 10)))
    labels = np.zeros(volume.geometry.shape, np.uint8)
    labels[1].flat[:found] = np.arange(1, found + 1)
    notes = write_dicom_seg(segment(volume, labels, many(30)), tmp_path / "seg.dcm", SegOptions("auto"))
    assert pydicom.dcmread(tmp_path / "seg.dcm").SegmentationType == kind
    assert f"The kind is {kind.lower()}, since {found} structures were found" in notes[0]


def test_auto_gives_the_same_bytes_as_the_kind_it_chose(tmp_path: Path) -> None:
    """The choice is no part of the identity: asking for the kind by name gives the same object."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, random_labels(axial().shape))
    write_dicom_seg(segmentation, tmp_path / "auto.dcm", SegOptions("auto"))
    write_dicom_seg(segmentation, tmp_path / "binary.dcm", SegOptions("binary"))
    assert (tmp_path / "auto.dcm").read_bytes() == (tmp_path / "binary.dcm").read_bytes()


@needs_dcmqi
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("name", list(ORIENTATIONS))
def test_dcmqi_reads_every_voxel_in_its_place(tmp_path: Path, name: str, kind: str) -> None:
    """In every orientation another program finds each label where it is in the patient."""
    (tmp_path / "series").mkdir()
    volume = write_series(tmp_path / "series", make_grid(name))
    segmentation = segment(volume, draw_shapes(volume.geometry.shape))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm", SegOptions(kind))
    seg = pydicom.dcmread(tmp_path / "seg.dcm", stop_before_pixels=True)
    value_of = {
        int(item.SegmentNumber): TABLE.by_name(item.SegmentLabel).value
        for item in seg.SegmentSequence
        if item.SegmentNumber
    }
    found = np.zeros(volume.geometry.shape, int)
    for image in read_with_dcmqi(tmp_path / "seg.dcm", tmp_path / "out"):
        found += sample(image, volume.geometry)
    relabelled = np.zeros_like(found)
    for number, value in value_of.items():
        relabelled[found == number] = value
    assert np.array_equal(relabelled, segmentation.labels)


@needs_dcmqi
def test_dcmqi_reads_300_labels_of_16_bits(tmp_path: Path) -> None:
    """A labelmap of 300 structures needs two bytes a voxel, and loses none."""
    (tmp_path / "series").mkdir()
    volume = write_series(tmp_path / "series", axial((4, 12, 10)))
    labels = np.arange(480, dtype=np.uint16).reshape(4, 12, 10) % 301
    write_dicom_seg(segment(volume, labels, many(300)), tmp_path / "seg.dcm", SegOptions("labelmap"))
    dataset = pydicom.dcmread(tmp_path / "seg.dcm", stop_before_pixels=True)
    assert (dataset.BitsAllocated, len([s for s in dataset.SegmentSequence if s.SegmentNumber])) == (16, 300)
    (image,) = read_with_dcmqi(tmp_path / "seg.dcm", tmp_path / "out")
    assert np.array_equal(sample(image, volume.geometry), labels)
