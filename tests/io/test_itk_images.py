"""Files of ITK programs lie where SimpleITK puts them, and hold what it wrote."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from effvit_med.errors import InputError, RefusedError
from effvit_med.io import write_nifti, write_nrrd
from effvit_med.io.itk_images import (
    as_segmentation,
    is_label_map,
    plain_table,
    read_label_map,
    read_metaimage,
    read_nrrd,
)
from effvit_med.volume import Code, Geometry, Label, LabelTable, Provenance, Segmentation, Volume
from tests.geometries import ORIENTATIONS

TABLE = LabelTable(
    (
        Label(1, "liver", Code("10200004", "Liver"), colour=(221, 130, 101)),
        Label(4, "kidney_left", Code("64033007", "Kidney"), laterality=Code("7771000", "Left"), colour=(185, 102, 83)),
    )
)


def _image(kind: str = "int16") -> SimpleITK.Image:
    """An oblique image with a value of its own in every voxel."""
    values = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(kind)  # z, y, x
    image = SimpleITK.GetImageFromArray(values)
    turn = SimpleITK.Euler3DTransform((0, 0, 0), 0.3, -0.2, 0.5)
    image.SetDirection(turn.GetMatrix())
    image.SetSpacing((1.5, 2.0, 5.0))
    image.SetOrigin((-10.0, 20.0, -30.0))
    return image


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", ["uint8", "int16", "float32", "float64"])
def test_every_voxel_is_where_simpleitk_puts_it(tmp_path: Path, suffix: str, compressed: bool, kind: str) -> None:
    """Value and place in LPS of each voxel agree."""
    image = _image(kind)
    path = tmp_path / f"a{suffix}"
    SimpleITK.WriteImage(image, str(path), compressed)
    volume = (read_metaimage if suffix == ".mha" else read_nrrd)(path)
    for index in np.ndindex(*volume.geometry.shape):
        assert volume.array[index] == image.GetPixel(*index)
        place = image.TransformIndexToPhysicalPoint([int(each) for each in index])
        np.testing.assert_allclose(volume.geometry.index_to_world(index), place, atol=1e-4)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_colours_are_refused(tmp_path: Path, suffix: str) -> None:
    """An image with three channels is no scan."""
    path = tmp_path / f"a{suffix}"
    SimpleITK.WriteImage(SimpleITK.Compose(_image(), _image(), _image()), str(path))
    with pytest.raises(RefusedError, match=r"NOT_GRAYSCALE|MULTI_VOLUME"):
        (read_metaimage if suffix == ".mha" else read_nrrd)(path)


def test_a_cut_metaimage_is_refused(tmp_path: Path) -> None:
    """Missing voxels are not made up."""
    path = tmp_path / "a.mha"
    SimpleITK.WriteImage(_image(), str(path), False)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RefusedError, match="45 of 48 bytes"):
        read_metaimage(path)


@pytest.mark.parametrize("read", [read_metaimage, read_nrrd])
@pytest.mark.parametrize("content", [b"", b"no image\nat all\n", b"NRRD0004\n", b"\0" * 500])
def test_other_files_are_refused_in_words(tmp_path: Path, read, content: bytes) -> None:
    """A file of another kind gives our error, with its name."""
    path = tmp_path / "a.any"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.any"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere gives our error."""
    for read in (read_metaimage, read_nrrd):
        with pytest.raises(InputError, match=r"gone\.mha"):
            read(tmp_path / "gone.mha")


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7])
@pytest.mark.parametrize("name", ["a.seg.nrrd", "a.nii.gz"])
def test_our_label_maps_are_read_back(tmp_path: Path, orientation: str, name: str) -> None:
    """Labels, place and table are those that were written."""
    geometry = Geometry(np.diag([5.0, 2.0, 3.0, 1.0])[[2, 1, 0, 3]], (3, 4, 5)).reoriented(orientation)
    labels = np.zeros(geometry.shape, np.uint8)
    labels[0, 1, 2], labels[1, 1, 2] = 1, 4
    written = Segmentation(labels, geometry, TABLE, Provenance("b", "1", "0", {}, {}, "cpu", ""))
    (write_nrrd if name.endswith(".nrrd") else write_nifti)(written, tmp_path / name)
    assert is_label_map(tmp_path / name)
    read = read_label_map(tmp_path / name)
    np.testing.assert_array_equal(read.labels, labels)
    assert read.geometry.max_distance_mm(geometry) < 1e-4
    assert read.table == TABLE


@pytest.mark.parametrize(("key", "value"), [("LabelValue", "one"), ("LabelValue", "0"), ("Color", "1 0")])
def test_segments_that_make_no_sense_are_refused(tmp_path: Path, key: str, value: str) -> None:
    """A damaged description of a segment gives our error, with the file's name."""
    path, geometry = tmp_path / "a.seg.nrrd", Geometry(np.eye(4), (2, 2, 2))
    write_nrrd(
        Segmentation(np.ones((2, 2, 2), np.uint8), geometry, TABLE, Provenance("", "", "", {}, {}, "", "")), path
    )
    damaged = re.sub(rf"(?m)^(Segment0_{key}:=).*$".encode(), rf"\g<1>{value}".encode(), path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"a\.seg\.nrrd has segments that cannot be understood"):
        read_label_map(path)


def test_values_that_are_no_labels_are_refused() -> None:
    """Fractions and negative values are no label map."""
    geometry = Geometry(np.eye(4), (1, 1, 2))
    for values in ([[[0.5, 1]]], [[[-1, 1]]], [[[0, 70000]]]):
        volume = Volume(np.array(values, np.float32), geometry)
        with pytest.raises(InputError, match="whole numbers"):
            as_segmentation(volume, volume.array)


def test_unknown_values_get_plain_rows() -> None:
    """A label map without a table has a row per value."""
    volume = Volume(np.array([[[0, 7]]], np.int16), Geometry(np.eye(4), (1, 1, 2)))
    assert [label.name for label in as_segmentation(volume, volume.array).table] == ["label 7"]
    assert len(plain_table([0])) == 0
