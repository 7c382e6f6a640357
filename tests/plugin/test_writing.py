"""Labels painted in napari are saved on the grid of their scan, voxel for voxel."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given

from effvit_med.errors import OutputError
from effvit_med.io import open_input, read_case
from effvit_med.io.dicom_seg_reading import read_dicom_seg
from effvit_med.volume import Code, Geometry, Label, LabelTable, Provenance, Segmentation, Volume
from napari_effvit_med import reading, writing
from napari_effvit_med.layers import METADATA_KEY, DisplayGrid, LayerRecord
from tests.geometries import geometries

TABLE = LabelTable((Label(1, "liver", Code("10200004", "Liver"), colour=(221, 130, 101)),))
AXIAL = Geometry(np.diag([5.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]], (4, 6, 8))


@pytest.fixture(autouse=True)
def _no_viewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No viewer is open."""
    monkeypatch.setattr(reading, "current_frame", lambda: None)
    monkeypatch.setattr(writing, "_open_layers", list)


@pytest.fixture(name="volume", scope="module")
def _volume(sample_data: Path) -> Volume:
    with open_input(sample_data / "ct_nonsquare") as found:
        return read_case(found.cases[0])


def _layer(arguments: dict) -> SimpleNamespace:
    return SimpleNamespace(metadata=arguments["metadata"])


@given(geometries())
def test_a_painted_voxel_is_saved_on_the_source_grid(geometry: Geometry) -> None:
    """Whatever the grid, labels come back in the array order of the scan."""
    made = Segmentation(np.zeros(geometry.shape, np.uint8), geometry, TABLE, Provenance("b", "1", "", {}, {}, "", ""))
    shown, arguments, _ = reading.as_labels_layer(made, None)
    wanted = np.arange(shown.size).reshape(geometry.shape) % 2
    painted = DisplayGrid.of(geometry).view(wanted).astype(np.int32)
    saved = writing.segmentation_of(painted, arguments)
    np.testing.assert_array_equal(saved.labels, wanted)
    assert saved.geometry == geometry
    assert saved.labels.dtype == np.uint8


def test_labels_that_nobody_touched_keep_their_identity() -> None:
    """Saved again, they are the result that was made, not an edited one; one voxel painted makes another identity."""
    labels = np.zeros(AXIAL.shape, np.uint8)
    labels[1, 2, 3] = 1
    made = Segmentation(labels, AXIAL, TABLE, Provenance("b", "1", "", {}, {}, "", ""))
    shown, arguments, _ = reading.as_labels_layer(made, None)
    assert writing.segmentation_of(shown, arguments).provenance.identity() == made.provenance.identity()
    shown[0, 0, 0] = 1
    painted = writing.segmentation_of(shown, arguments).provenance
    assert painted.identity() != made.provenance.identity()
    assert painted.settings["edited_values"] == [1]


def test_a_new_layer_of_napari_finds_its_scan(volume: Volume, tmp_path: Path) -> None:
    """Labels painted on a plain layer over a DICOM scan are saved as DICOM SEG on its slices, as SEMIAUTOMATIC."""
    _, scan, _ = reading.as_volume_layer(volume, None)
    data = np.zeros(scan["metadata"][METADATA_KEY].grid.shape, np.int64)
    data[2:5, 10:20, 30:40] = 3
    meta = {"name": "Labels", "metadata": {}, "scale": scan["scale"], "translate": scan["translate"]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_open_layers", lambda: [_layer(scan)])
        assert writing.write_dicom_seg_layer(str(tmp_path / "a.dcm"), data, meta) == [str(tmp_path / "a.dcm")]
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    assert [item.SegmentAlgorithmType for item in dataset.SegmentSequence] == ["SEMIAUTOMATIC"]
    read = read_dicom_seg(tmp_path / "a.dcm")
    index = np.argwhere(data)
    world = scan["metadata"][METADATA_KEY].grid.to_world(np.array(scan["translate"]) + index * scan["scale"])
    found = np.rint(read.geometry.world_to_index(world)).astype(int)
    assert np.count_nonzero(read.labels) == len(index)
    assert (read.labels[tuple(found.T)] > 0).all()


def test_an_edited_seg_is_saved_on_the_slices_of_the_open_scan(volume: Volume, tmp_path: Path) -> None:
    """A SEG holds a part of the slices; painted on and saved again, it refers to the scan that is open beside it."""
    _, scan, _ = reading.as_volume_layer(volume, None)
    labels = np.zeros(volume.geometry.shape, np.uint8)
    labels[5:8, 20:30, 40:50] = 1
    made = Segmentation(
        labels, volume.geometry, TABLE, Provenance("b", "1", "", {}, {}, "", "2026-01-01T00:00:00+00:00", volume.source)
    )
    shown, arguments, _ = reading.as_labels_layer(made, None)
    writing.write_dicom_seg_layer(str(tmp_path / "a.dcm"), shown, arguments)
    again, arguments, _ = reading.as_labels_layer(read_dicom_seg(tmp_path / "a.dcm"), None)
    again[again > 0] = 1
    again[0, 0, 0] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "_open_layers", lambda: [_layer(scan)])
        writing.write_dicom_seg_layer(str(tmp_path / "b.dcm"), again, arguments)
    first, second = (pydicom.dcmread(tmp_path / name) for name in ("a.dcm", "b.dcm"))
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert np.count_nonzero(read_dicom_seg(tmp_path / "b.dcm").labels) == np.count_nonzero(labels) + 1
    assert [item.SegmentLabel for item in second.SegmentSequence] == ["liver"]


def test_nifti_lies_where_it_was_drawn(tmp_path: Path) -> None:
    """A layer that is not ours is saved at napari's world taken as (-z, y, x), in RAS as NIfTI has it."""
    data = np.zeros((3, 4, 5), np.int32)
    data[1, 2, 3] = 9
    meta = {"name": "x", "metadata": {}, "scale": (5.0, 2.0, 1.0), "translate": (-100.0, 7.0, 8.0)}
    writing.write_nifti_layer(str(tmp_path / "a.nii.gz"), data, meta)
    image = nibabel.load(tmp_path / "a.nii.gz")
    (index,) = np.argwhere(np.asarray(image.dataobj) == 9)
    place = image.affine @ [*index, 1]
    np.testing.assert_allclose(place[:3], [-(8 + 3 * 1), -(7 + 2 * 2), 100 - 5])


def test_what_cannot_be_saved_is_refused_in_words() -> None:
    """Resampled layers, values out of range, flat layers and other shapes each say what is wrong."""
    record = LayerRecord(DisplayGrid.of(AXIAL), is_resampled=True)
    empty = np.zeros(record.grid.shape, np.int32)
    with pytest.raises(OutputError, match="resampled"):
        writing.segmentation_of(empty, {"name": "a", "metadata": {METADATA_KEY: record}})
    good = {"name": "a", "metadata": {METADATA_KEY: LayerRecord(DisplayGrid.of(AXIAL))}}
    with pytest.raises(OutputError, match="from -1 to 0"):
        writing.segmentation_of(empty - (empty == 0) * (np.indices(empty.shape).sum(0) == 0), good)
    with pytest.raises(OutputError, match="shape"):
        writing.segmentation_of(empty[1:], good)
    with pytest.raises(OutputError, match="2 axes"):
        writing.segmentation_of(empty[0], {"name": "a", "metadata": {}})


def test_a_scan_that_is_no_dicom_gives_no_seg(tmp_path: Path) -> None:
    """The refusal names what is needed, and no file is left."""
    made = Segmentation(np.zeros(AXIAL.shape, np.uint8), AXIAL, TABLE, Provenance("b", "1", "", {}, {}, "", ""))
    shown, arguments, _ = reading.as_labels_layer(made, None)
    with pytest.raises(OutputError, match="write NIfTI"):
        writing.write_dicom_seg_layer(str(tmp_path / "a.dcm"), shown, arguments)
    assert list(tmp_path.iterdir()) == []
