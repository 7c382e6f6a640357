"""Facts about `effvit_med.io.nifti`: what is read, what is written, and where voxels lie."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given

from effvit_med.errors import GeometryError, InputError, OutputError, RefusedError
from effvit_med.io.nifti import (
    CONFIDENCE_DESCRIPTION,
    check_nifti,
    read_nifti,
    write_confidence,
    write_nifti,
    write_volume,
)
from effvit_med.volume import NOT_FOR_CLINICAL_USE, Geometry, LabelTable, Provenance, Segmentation, Source, Volume
from tests.geometries import geometries
from tests.io.source_series import TABLE, axial

AFFINE = np.array([[-0.7, 0, 0, 10], [0, 0.9, 0, -20], [0, 0, 3.0, 30], [0, 0, 0, 1]])  # RAS
ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
LPS = np.array([-1, -1, 1])


def _save(path: Path, array: np.ndarray = ARRAY, affine: np.ndarray | None = AFFINE, **codes: int) -> Path:
    """A NIfTI file made by nibabel alone."""
    image = nibabel.Nifti1Image(array, affine, dtype=array.dtype)
    if affine is not None:
        image.set_sform(affine, codes.get("sform", 1))
        image.set_qform(affine, codes.get("qform", 1))
    path.write_bytes(gzip.compress(image.to_bytes()) if path.suffix == ".gz" else image.to_bytes())
    return path


def _patch(path: Path, field: str, value: Any) -> Path:
    """Set one field of the header without any check."""
    content = path.read_bytes()
    header = nibabel.Nifti1Header(content[:348], check=False)
    header[field] = value
    path.write_bytes(header.binaryblock + content[348:])
    return path


def _codes(volume: Volume) -> list[str]:
    assert volume.source is not None
    return [finding.code for finding in volume.source.findings]


def _segmentation(geometry: Geometry, table: LabelTable = TABLE) -> Segmentation:
    values = np.array([0, *(label.value for label in table)], np.uint8)
    labels = values[np.random.default_rng(0).integers(0, len(values), geometry.shape)]
    return Segmentation(labels, geometry, table, Provenance("toy", "1", "", {}, {}, "cpu", "2026-01-01T00:00:00+00:00"))


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_voxels_keep_their_axes_and_places(tmp_path: Path, name: str) -> None:
    """The array is as stored; a voxel's world point is nibabel's with x and y turned round."""
    volume = read_nifti(_save(tmp_path / name))
    assert np.array_equal(volume.array, ARRAY)
    expected = nibabel.affines.apply_affine(AFFINE, [2, 1, 4]) * LPS
    assert volume.geometry.index_to_world([2, 1, 4]) == pytest.approx(expected, abs=1e-5)
    assert volume.geometry.orientation == "LAS"


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_whole_numbers_become_int16(tmp_path: Path, kind: type) -> None:
    """Whole numbers in the range of int16 are int16, whatever type the file has."""
    volume = read_nifti(_save(tmp_path / "a.nii", ARRAY.astype(kind)))
    assert (volume.array.dtype, np.array_equal(volume.array, ARRAY)) == (np.int16, True)


def test_big_endian_is_read(tmp_path: Path) -> None:
    """A file of the other byte order gives the same values and places."""
    header = nibabel.Nifti1Image(ARRAY, AFFINE).header.as_byteswapped(">")
    header["vox_offset"] = 352
    path = tmp_path / "big.nii"
    path.write_bytes(header.binaryblock + bytes(4) + ARRAY.astype(">i2").tobytes(order="F"))
    volume = read_nifti(path)
    assert np.array_equal(volume.array, ARRAY)
    assert volume.geometry.spacing_mm == pytest.approx((0.7, 0.9, 3.0))


def test_scale_is_applied(tmp_path: Path) -> None:
    """scl_slope and scl_inter give fractions as float32, as nibabel reads them."""
    path = _patch(_patch(_save(tmp_path / "a.nii"), "scl_slope", 0.25), "scl_inter", -3)
    volume = read_nifti(path)
    assert volume.array.dtype == np.float32
    assert np.array_equal(volume.array, nibabel.load(path).get_fdata())


def test_nifti2_is_read(tmp_path: Path) -> None:
    """A NIfTI-2 file is read like NIfTI-1."""
    nibabel.save(nibabel.Nifti2Image(ARRAY, AFFINE), tmp_path / "two.nii")
    assert np.array_equal(read_nifti(tmp_path / "two.nii").array, ARRAY)


def test_one_volume_of_four_dimensions_is_read(tmp_path: Path) -> None:
    """A fourth axis of length 1 is dropped."""
    assert read_nifti(_save(tmp_path / "a.nii", ARRAY[..., None])).array.shape == (3, 4, 5)


def test_two_dimensions_are_one_slice(tmp_path: Path) -> None:
    """A 2-D image is a volume of one slice."""
    assert read_nifti(_save(tmp_path / "a.nii", ARRAY[:, :, 0])).array.shape == (3, 4, 1)


def test_several_volumes_are_refused(tmp_path: Path) -> None:
    """A time series is refused with its shape."""
    path = _save(tmp_path / "a.nii", np.zeros((3, 4, 5, 2), np.int16))
    with pytest.raises(RefusedError, match=r"MULTI_VOLUME: a\.nii has the shape \(3, 4, 5, 2\)"):
        check_nifti(path)


def test_complex_values_are_refused(tmp_path: Path) -> None:
    """Complex values are no scan."""
    with pytest.raises(RefusedError, match=r"NOT_GRAYSCALE: .* complex64"):
        check_nifti(_save(tmp_path / "a.nii", ARRAY.astype(np.complex64)))


def test_qform_serves_where_there_is_no_sform(tmp_path: Path) -> None:
    """With sform code 0 the qform places the voxels."""
    volume = read_nifti(_save(tmp_path / "a.nii", sform=0))
    assert volume.geometry.index_to_world([0, 0, 0]) == pytest.approx([-10, 20, 30])
    assert _codes(volume) == ["NO_MODALITY"]


def test_contradicting_forms_are_a_finding(tmp_path: Path) -> None:
    """Where sform and qform differ the sform wins, and the distance is reported."""
    image = nibabel.Nifti1Image(ARRAY, AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] += 5
    image.set_sform(AFFINE, 1)
    image.set_qform(moved, 1)
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.geometry.index_to_world([0, 0, 0])[0] == pytest.approx(-10)
    assert _codes(volume) == ["AFFINES_DIFFER", "NO_MODALITY"]
    assert volume.source is not None
    assert "up to 5 mm apart" in volume.source.findings[0].message


def test_wrong_voxel_sizes_are_a_finding(tmp_path: Path) -> None:
    """Voxel sizes of zero beside a good sform are reported, and the sform is taken."""
    path = _patch(_save(tmp_path / "a.nii", qform=0), "pixdim", np.zeros(8))
    volume = read_nifti(path)
    assert volume.geometry.spacing_mm == pytest.approx((0.7, 0.9, 3.0))
    assert _codes(volume) == ["PIXDIM_DIFFERS", "NO_MODALITY"]


def test_singular_sform_gives_way_to_the_qform(tmp_path: Path) -> None:
    """An sform of zeros is left out, with a finding, if there is a qform."""
    path = _save(tmp_path / "a.nii")
    for row in "xyz":
        _patch(path, f"srow_{row}", np.zeros(4))
    volume = read_nifti(path)
    assert volume.geometry.spacing_mm == pytest.approx((0.7, 0.9, 3.0))
    assert _codes(volume) == ["BAD_AFFINE", "NO_MODALITY"]


def test_no_usable_form_is_refused(tmp_path: Path) -> None:
    """An sform of zeros alone makes no geometry."""
    path = _save(tmp_path / "a.nii", qform=0)
    for row in "xyz":
        _patch(path, f"srow_{row}", np.zeros(4))
    with pytest.raises(RefusedError, match="BAD_GEOMETRY"):
        check_nifti(path)


@pytest.mark.parametrize(("code", "factor"), [(1, 1e3), (3, 1e-3), (2, 1.0), (0, 1.0)])
def test_lengths_in_other_units_become_millimetres(tmp_path: Path, code: int, factor: float) -> None:
    """A header in metres or micrometres is converted with a finding; millimetres, or no word of it, stay."""
    volume = read_nifti(_patch(_save(tmp_path / "a.nii"), "xyzt_units", code))
    np.testing.assert_allclose(volume.geometry.spacing_mm, np.array([0.7, 0.9, 3.0]) * factor, rtol=1e-6)
    np.testing.assert_allclose(volume.geometry.affine[:3, 3] * LPS, AFFINE[:3, 3] * factor, rtol=1e-6)
    assert ("UNITS" in _codes(volume)) == (factor != 1)


def test_places_beyond_the_earth_are_refused(tmp_path: Path) -> None:
    """Positions of 1e30 mm, as damage makes them, are refused in words and without an overflow."""
    affine = AFFINE.copy()
    affine[0, 3] = 1e30
    with pytest.raises(RefusedError, match="BAD_GEOMETRY"):
        read_nifti(_save(tmp_path / "a.nii", affine=affine))


def test_no_form_at_all_is_a_finding(tmp_path: Path) -> None:
    """Without sform and qform the voxel sizes are kept and the guess at left and right is reported."""
    path = _patch(_patch(_save(tmp_path / "a.nii"), "sform_code", 0), "qform_code", 0)
    volume = read_nifti(path)
    assert volume.geometry.spacing_mm == pytest.approx((0.7, 0.9, 3.0))
    assert volume.geometry.orientation == "RAS"
    assert _codes(volume) == ["NO_GEOMETRY", "NO_MODALITY"]


def test_not_finite_values_are_replaced_and_counted(tmp_path: Path) -> None:
    """NaN and infinities become the ends of the finite range, with their number."""
    array = ARRAY.astype(np.float32) + 0.5
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    volume = read_nifti(_save(tmp_path / "a.nii", array))
    assert volume.array[0, 0, :3].tolist() == [3.5, 59.5, 3.5]
    assert volume.source is not None
    assert volume.source.findings[0].message.startswith("3 of 60 voxels are not finite")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_short_data_is_refused(tmp_path: Path, name: str) -> None:
    """A file that lost its end is refused by name."""
    path = _save(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(RefusedError, match=r"UNREADABLE_PIXELS: a\.nii"):
        read_nifti(path)


def test_wrong_checksum_is_refused(tmp_path: Path) -> None:
    """A compressed file whose checksum does not fit is refused."""
    path = _save(tmp_path / "a.nii.gz")
    content = bytearray(path.read_bytes())
    content[-5] ^= 255
    content[-8] ^= 255
    path.write_bytes(content)
    with pytest.raises(RefusedError, match="CRC"):
        read_nifti(path)


def test_false_size_costs_no_memory(tmp_path: Path) -> None:
    """A header that claims 2 GiB of voxels is found out while reading."""
    path = _patch(_save(tmp_path / "a.nii"), "dim", [3, 1024, 1024, 1024, 1, 1, 1, 1])
    with pytest.raises(RefusedError, match="has 120 of 2147483648 bytes"):
        read_nifti(path)


def test_huge_size_is_refused(tmp_path: Path) -> None:
    """A header that claims more than any scan is refused at once."""
    path = _patch(_save(tmp_path / "a.nii"), "dim", [3, 32767, 32767, 32767, 1, 1, 1, 1])
    with pytest.raises(RefusedError, match="TOO_LARGE"):
        check_nifti(path)


@pytest.mark.parametrize("dim", [[0, 3, 4, 5], [3, -3, 4, 5], [9, 3, 4, 5]])
def test_nonsense_sizes_are_refused(tmp_path: Path, dim: list[int]) -> None:
    """No axes, negative sizes or too many axes are refused with the values."""
    path = _patch(_save(tmp_path / "a.nii"), "dim", [*dim, 1, 1, 1, 1])
    with pytest.raises(RefusedError, match="UNREADABLE_PIXELS"):
        check_nifti(path)


def test_other_content_is_an_input_error(tmp_path: Path) -> None:
    """A text called .nii is no NIfTI file."""
    (tmp_path / "a.nii").write_text("words " * 100)
    with pytest.raises(InputError, match=r"a\.nii is no NIfTI file"):
        check_nifti(tmp_path / "a.nii")


def test_wrong_suffix_is_a_finding(tmp_path: Path) -> None:
    """A file that is not compressed but called .gz is read, with a finding."""
    path = _save(tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    volume = read_nifti(path)
    assert (np.array_equal(volume.array, ARRAY), _codes(volume)) == (True, ["WRONG_SUFFIX", "NO_MODALITY"])


def test_source_has_the_digest_of_the_file(tmp_path: Path) -> None:
    """The source holds the SHA-256 of the file as it lies on the disk, and the case's name."""
    path = _save(tmp_path / "liver 1.nii.gz")
    source = read_nifti(path).source
    assert source is not None
    assert (source.case_id, source.kind) == ("liver_1", "NIfTI")
    assert source.files[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@given(geometry=geometries(irregular=False))
def test_labels_come_back_where_they_were(tmp_path_factory: pytest.TempPathFactory, geometry: Geometry) -> None:
    """Any regular grid, also sheared, is found again after writing, and nibabel agrees on every corner.

    A shear below a twentieth of a voxel is taken for rounding and undone; any other grid is kept to a micrometre.
    """
    path = tmp_path_factory.mktemp("labels") / "case.nii.gz"
    segmentation = _segmentation(geometry)
    write_nifti(segmentation, path)
    back = read_nifti(path)
    assert np.array_equal(back.array, segmentation.labels)
    unseen_mm = 0.05 * min(geometry.spacing_mm)
    squared_mm = geometry.without_shear().max_distance_mm(geometry)
    allowed_mm = 1e-3 + (squared_mm if squared_mm < unseen_mm else 0.0)
    assert back.geometry.max_distance_mm(geometry) < allowed_mm
    corner = [size - 1 for size in geometry.shape]
    ras = nibabel.affines.apply_affine(nibabel.load(path).affine, corner)
    assert ras * LPS == pytest.approx(geometry.index_to_world(corner), abs=allowed_mm)


def test_labels_are_marked_in_the_header(tmp_path: Path) -> None:
    """A label map has the type of its labels, the label intent, mm, and both forms."""
    write_nifti(_segmentation(axial()), tmp_path / "a.nii.gz")
    header = nibabel.load(tmp_path / "a.nii.gz").header
    assert header.get_data_dtype() == np.uint8
    assert header.get_intent()[0] == "label"
    assert header.get_xyzt_units()[0] == "mm"
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header["descrip"].tobytes().rstrip(b"\0").decode() == NOT_FOR_CLINICAL_USE


def test_sheared_grid_has_no_qform(tmp_path: Path) -> None:
    """A qform cannot hold shear, so a tilted grid is written with the sform only."""
    affine = axial().affine.copy()
    affine[1, 0] += 0.8
    write_nifti(_segmentation(replace(axial(), affine=affine)), tmp_path / "a.nii")
    header = nibabel.load(tmp_path / "a.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)


def test_table_lies_beside_the_labels(tmp_path: Path) -> None:
    """The JSON file beside a label map gives the table back and carries the notice."""
    write_nifti(_segmentation(axial()), tmp_path / "a.b.nii.gz")
    sidecar = json.loads((tmp_path / "a.b.labels.json").read_text())
    assert LabelTable.from_dicts(sidecar["labels"]) == TABLE
    assert sidecar["notice"] == NOT_FOR_CLINICAL_USE


def test_same_labels_give_the_same_bytes(tmp_path: Path) -> None:
    """Nothing of time or place gets into the file."""
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(_segmentation(axial()), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_irregular_grid_cannot_be_written(tmp_path: Path) -> None:
    """Unequal slice distances are refused rather than written at wrong places."""
    geometry = replace(axial((3, 4, 5)), slice_offsets=(0.0, 1.0, 3.0))
    with pytest.raises(OutputError, match="cannot hold unequal slice distances"):
        write_nifti(_segmentation(geometry), tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []


def test_other_suffix_cannot_be_written(tmp_path: Path) -> None:
    """A name that does not end as NIfTI files do is an error."""
    with pytest.raises(OutputError, match=r"a\.img must end in \.nii or \.nii\.gz"):
        write_nifti(_segmentation(axial()), tmp_path / "a.img")


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_volume_comes_back(tmp_path: Path, kind: type) -> None:
    """A written scan has its values, type and place when it is read again."""
    array = (np.random.default_rng(0).normal(0, 500, axial().shape)).astype(kind)
    write_volume(Volume(array, axial()), tmp_path / "a.nii.gz")
    back = read_nifti(tmp_path / "a.nii.gz")
    assert (back.array.dtype, np.array_equal(back.array, array)) == (kind, True)
    assert back.geometry.max_distance_mm(axial()) < 1e-4


def test_a_shear_of_rounding_is_written_square(tmp_path: Path) -> None:
    """A shear that moves no corner by a twentieth of a voxel is undone, so that every program opens the file."""
    affine = np.array([[0, 0, 0.8, 0], [0, 0.8, 0, 0], [7.0, 0, 0, 0], [0.0, 0, 0, 1]])
    affine[1, 0] = 0.004  # over twelve slices 0.044 mm, 0.022 mm from the middle out
    geometry = Geometry(affine, (12, 64, 64))
    write_nifti(_segmentation(geometry), tmp_path / "labels.nii.gz")
    written = nibabel.load(tmp_path / "labels.nii.gz")
    assert written.header["qform_code"] > 0
    directions = written.affine[:3, :3] / np.linalg.norm(written.affine[:3, :3], axis=0)
    assert np.allclose(directions.T @ directions, np.eye(3), atol=1e-6)
    assert read_nifti(tmp_path / "labels.nii.gz").geometry.max_distance_mm(geometry) < 0.04


@pytest.mark.parametrize("kind", ["DICOM", "NIfTI"])
def test_confidence_lies_where_the_labels_lie(tmp_path: Path, kind: str) -> None:
    """The confidence has the axes, the place and the shape of the label map beside it, and says what it is."""
    segmentation = _segmentation(axial((4, 5, 6)))
    made = replace(segmentation.provenance, source=Source("case", kind, ()))
    segmentation = segmentation.with_provenance(made)
    confidence = np.random.default_rng(0).integers(0, 256, (4, 5, 6)).astype(np.uint8)
    write_nifti(segmentation, tmp_path / "labels.nii.gz")
    write_confidence(confidence, segmentation, tmp_path / "confidence.nii.gz")
    labels, certain = (nibabel.load(tmp_path / f"{name}.nii.gz") for name in ("labels", "confidence"))
    assert np.array_equal(labels.affine, certain.affine)
    stored = np.asarray(certain.dataobj)
    assert (stored.dtype, stored.shape) == (np.uint8, labels.shape)
    axes = (2, 1, 0) if kind == "DICOM" else (0, 1, 2)
    assert np.array_equal(stored, confidence.transpose(axes))
    assert np.array_equal(np.asarray(labels.dataobj), segmentation.labels.transpose(axes))
    description = certain.header["descrip"].tobytes().rstrip(b"\0").decode()
    assert description == CONFIDENCE_DESCRIPTION
    assert "not clinical" in description
    assert certain.header.get_intent()[0] == "none"


def test_confidence_of_another_shape_is_not_written(tmp_path: Path) -> None:
    """A map that does not belong to the labels is refused with both shapes."""
    with pytest.raises(GeometryError, match=r"confidence has shape \(2, 2, 2\).* \(5, 12, 10\)"):
        write_confidence(np.zeros((2, 2, 2), np.uint8), _segmentation(axial()), tmp_path / "c.nii.gz")
    assert list(tmp_path.iterdir()) == []
