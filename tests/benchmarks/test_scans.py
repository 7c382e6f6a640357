"""The scans and labels that benchmarks measure on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scans import attach_labels, crop, draw_blobs, make_large_scan, write_series
from effvit_med.engine import read_model
from effvit_med.io import open_input, read_case

SHAPE = (10, 24, 30)
SPACING_MM = (6.0, 9.0, 8.0)


def test_written_series_is_read_back_as_it_was(tmp_path: Path, sample_data: Path) -> None:
    """Values and places of the large scan survive the way through DICOM files."""
    volume, labels = make_large_scan(SHAPE, SPACING_MM, seed=3)
    write_series(volume, sample_data / "ct_axial" / "IM0001.dcm", tmp_path / "ct")
    with open_input(tmp_path / "ct") as found:
        read = read_case(found.cases[0])
    assert labels.shape == volume.array.shape == SHAPE
    assert np.array_equal(read.array, volume.array)
    assert read.geometry.max_distance_mm(volume.geometry) < 1e-3
    assert read.modality == "CT"


def test_labels_of_the_large_scan_lie_on_its_image() -> None:
    """The voxels inside the body's organs are much denser than the scan as a whole, so image and labels agree."""
    volume, labels = make_large_scan((40, 64, 64), (6.0, 6.5, 6.5), seed=3)
    assert np.median(volume.array[labels > 0]) > 20
    assert np.median(volume.array[labels == 0]) < -50


def test_size_need_not_be_a_multiple_of_four() -> None:
    """Any size is made, with the spacing that was asked for."""
    volume, labels = make_large_scan((5, 10, 7), SPACING_MM, seed=0)
    assert labels.shape == (5, 10, 7)
    assert volume.geometry.spacing_mm == pytest.approx(SPACING_MM)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_blobs_differ_from_their_mirror_image(axis: int) -> None:
    """A mirrored map of blobs is another map, so that a mirrored SEG cannot pass."""
    labels = draw_blobs((12, 40, 50), (1, 2, 3, 4, 5, 6))
    assert set(np.unique(labels).tolist()) == {0, 1, 2, 3, 4, 5, 6}
    assert not np.array_equal(labels, np.flip(labels, axis))


def test_attached_labels_keep_the_source() -> None:
    """Labels that no network made can be written as if one had."""
    volume, labels = make_large_scan((5, 10, 7), SPACING_MM, seed=0)
    segmentation = attach_labels(volume, labels, read_model().labels)
    assert segmentation.provenance.source is volume.source
    assert np.array_equal(segmentation.labels, labels)


def test_crop_keeps_the_place_of_its_voxels() -> None:
    """A voxel of the middle part has the value and the place that it has in the whole scan."""
    volume, _ = make_large_scan((6, 12, 10), SPACING_MM, seed=0)
    part = crop(volume, (2, 6, 4))
    assert part.array.shape == (2, 6, 4)
    assert np.array_equal(part.array, volume.array[2:4, 3:9, 3:7])
    assert part.geometry.index_to_world([0, 0, 0]) == pytest.approx(volume.geometry.index_to_world([2, 3, 3]))
