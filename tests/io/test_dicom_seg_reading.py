"""A DICOM segmentation is read back as it was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effvit_med.errors import InputError, RefusedError
from effvit_med.io import SegOptions, open_input, read_case, write_dicom_seg
from effvit_med.io.dicom_seg_reading import is_dicom_seg, read_dicom_seg
from effvit_med.volume import Code, Label, LabelTable, Provenance, Segmentation

TABLE = LabelTable(
    (
        Label(1, "liver", Code("10200004", "Liver"), colour=(221, 130, 101)),
        Label(2, "kidney", Code("64033007", "Kidney"), laterality=Code("7771000", "Left"), colour=(185, 102, 83)),
    )
)


@pytest.fixture(name="segmentation", scope="module")
def _segmentation(sample_data: Path) -> Segmentation:
    with open_input(sample_data / "ct_nonsquare") as found:
        volume = read_case(found.cases[0])
    labels = np.zeros(volume.geometry.shape, np.uint8)
    labels[3:9, 20:40, 30:70] = 1
    labels[7:12, 60:70, 30:35] = 2
    return Segmentation(
        labels,
        volume.geometry,
        TABLE,
        Provenance("b", "1", "0", {}, {}, "cpu", "2026-01-01T00:00:00+00:00", volume.source),
    )


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_ours_comes_back_voxel_for_voxel(segmentation: Segmentation, tmp_path: Path, kind: str) -> None:
    """Labels, their place in the patient, names, codes, sides and colours are those written."""
    path = tmp_path / "a.dcm"
    write_dicom_seg(segmentation, path, SegOptions(segmentation_type=kind))
    assert is_dicom_seg(path)
    read = read_dicom_seg(path)
    index = np.argwhere(read.labels)
    world = read.geometry.index_to_world(index)
    there = segmentation.geometry.world_to_index(world)
    np.testing.assert_allclose(there, np.rint(there), atol=1e-3)
    places = tuple(np.rint(there).astype(int).T)
    np.testing.assert_array_equal(segmentation.labels[places], read.labels[tuple(index.T)])
    assert len(index) == np.count_nonzero(segmentation.labels)
    assert [(each.value, each.name, each.type, each.laterality) for each in read.table] == [
        (each.value, each.name, each.type, each.laterality) for each in TABLE
    ]
    for mine, theirs in zip(TABLE, read.table, strict=True):
        np.testing.assert_allclose(mine.colour, theirs.colour, atol=3)


def test_fractions_are_no_labels(segmentation: Segmentation, tmp_path: Path) -> None:
    """A fractional file is refused with its own code."""
    path = tmp_path / "a.dcm"
    sure = Segmentation(
        segmentation.labels,
        segmentation.geometry,
        TABLE,
        segmentation.provenance,
        np.full(segmentation.labels.shape, 200, np.uint8),
    )
    write_dicom_seg(sure, path, SegOptions(segmentation_type="fractional"))
    with pytest.raises(RefusedError, match="FRACTIONAL_SEG"):
        read_dicom_seg(path)


def test_other_files_are_no_segmentation(sample_data: Path, tmp_path: Path) -> None:
    """An image, a text and nothing at all are told apart from a segmentation, and refused in words."""
    image = next((sample_data / "ct_nonsquare").iterdir())
    text = tmp_path / "text.dcm"
    text.write_text("no DICOM")
    for path in (image, text, tmp_path / "gone.dcm"):
        assert not is_dicom_seg(path)
        with pytest.raises(InputError, match="cannot be read as a DICOM segmentation"):
            read_dicom_seg(path)
