"""Facts about reading real and hostile scans, which are not part of the repository."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pytest

from effvit_med.errors import InputError, RefusedError
from effvit_med.io.cases import DicomSeries, Found, NiftiFile
from effvit_med.io.find import ReadOptions, find_cases, open_input
from effvit_med.io.read import read_case
from effvit_med.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

# Folder: shapes of its DICOM cases (slice, row, column), sorted; codes of what is refused, sorted.
OUTCOMES: dict[str, tuple[list[tuple[int, int, int]], list[str]]] = {
    "charsets": ([], ["NO_GEOMETRY", "NO_GEOMETRY"]),
    "cr_fuji_2d": ([], ["NO_GEOMETRY"]),
    "ct_ge_endianness": ([(1, 512, 512)], []),
    "ct_ge_missing_slice": ([], ["MISSING_SLICES"]),
    "ct_philips_tilt_mixed_noext": ([(8, 512, 512)], []),
    "ct_siemens_gantry_tilt": ([(4, 512, 512)], []),
    "ct_siemens_j2k_with_seg": ([(20, 512, 512)], []),
    "ct_siemens_same_position": ([], ["CONFLICTING_DUPLICATES"]),
    "ct_toshiba_4d": ([(4, 2, 3)] * 19, []),
    "ct_toshiba_intercept": ([(2, 2, 3)], []),
    "ct_toshiba_slope": ([(2, 2, 3)], []),
    "deflated": ([], []),
    "mr_canon_axial": ([(40, 80, 80)], []),
    "mr_compressed_set/jpeg2000": ([(4, 256, 256)], []),
    "mr_compressed_set/jpeg_lossless": ([(4, 256, 256)], []),
    "mr_compressed_set/jpegls": ([(4, 256, 256)], []),
    "mr_compressed_set/rle": ([(4, 256, 256)], []),
    "mr_compressed_set/uncompressed": ([(4, 256, 256)], []),
    "mr_ge_dwi_2vol": ([(4, 128, 128)] * 2, []),
    "mr_ge_sag_explicit": ([(4, 256, 256)], []),
    "mr_ge_sag_implicit": ([(4, 256, 256)], []),
    "mr_ge_uneven_spacing": ([(12, 256, 256)], []),
    "mr_hitachi_oblique_iso2022": ([(4, 64, 64)], []),
    "mr_philips_cor_implicit": ([(4, 240, 240)], []),
    "mr_philips_enhanced": ([(8, 256, 256)], []),
    "mr_prostatex_mixed_series": ([*[(19, 128, 84)] * 4, (19, 320, 320)], []),
    "mr_siemens_3plane_localizer": ([(3, 256, 256), (5, 256, 256), (5, 256, 256)], []),
    "mr_siemens_mosaic_9_transfer_syntaxes": ([(35, 64, 64)], []),
    "mr_siemens_position_hfp": ([(5, 256, 256)], []),
    "mr_siemens_position_hfs": ([(5, 256, 256)], []),
    "mr_siemens_sag": ([(4, 256, 256)], []),
    "mr_uih_sag": ([(6, 512, 460)], []),
    "rtstruct_rtutils_2slice": ([(2, 512, 512)], []),
    "rtstruct_rtutils_oblique": ([(3, 50, 100)], []),
    "seg_dcmqi_24x38x3": ([(3, 38, 24), (3, 38, 24)], []),
}
# Where the three reference readers agree on one volume; the folder's expected affine is checked against ours.
AGREED = [
    "ct_siemens_j2k_with_seg/dicom", "mr_canon_axial", "mr_compressed_set/jpeg2000",
    "mr_compressed_set/jpeg_lossless", "mr_compressed_set/rle", "mr_compressed_set/uncompressed",
    "mr_ge_sag_explicit", "mr_ge_sag_implicit", "mr_hitachi_oblique_iso2022", "mr_philips_cor_implicit",
    "mr_philips_enhanced", "mr_siemens_position_hfp", "mr_siemens_position_hfs", "mr_siemens_sag", "mr_uih_sag",
    "seg_dcmqi_24x38x3/image", "seg_dcmqi_24x38x3/multiframe", "rtstruct_rtutils_oblique",
]  # fmt: skip


def _find(folder: Path) -> Found:
    if not folder.exists():
        pytest.skip(f"{folder.name} is not among the real scans here")
    return find_cases(folder, ReadOptions())


def _read_only(folder: Path) -> Volume:
    (case,) = (case for case in _find(folder).cases if isinstance(case, DicomSeries))
    return read_case(case)


@pytest.mark.parametrize("name", OUTCOMES)
def test_real_folder_gives_its_cases(shared_data: Path, name: str) -> None:
    """Each folder of real DICOM files gives these volumes, refuses these series, and all that is found can be read."""
    found = _find(shared_data / "dicom" / name)
    shapes = [read_case(case).array.shape for case in found.cases if isinstance(case, DicomSeries)]
    assert (sorted(shapes), sorted(each.code for each in found.refused)) == OUTCOMES[name]


def test_every_real_folder_is_known(shared_data: Path) -> None:
    """No folder of real DICOM files is left out of the table above."""
    assert {path.name for path in (shared_data / "dicom").iterdir()} == {name.split("/")[0] for name in OUTCOMES}


@pytest.mark.parametrize("name", AGREED)
def test_corners_agree_with_another_reader(shared_data: Path, name: str) -> None:
    """The corner voxels lie where the reference reader's affine puts them, whatever its axis order."""
    volume = _read_only(shared_data / "dicom" / name)
    expected = json.loads((shared_data / "EXPECTED_GEOMETRY.json").read_text())[f"open/dicom/{name}"]
    (reference,) = expected["sitk_gdcm"] if len(expected["sitk_gdcm"]) == 1 else expected["dcm2niix"]
    assert reference["shape"] == list(volume.array.shape[::-1])
    theirs = nibabel.affines.apply_affine(LPS @ np.array(reference["affine"]), _corners(reference["shape"]))
    ours = volume.geometry.index_to_world(_corners(volume.geometry.shape))
    distances = np.linalg.norm(ours[:, None] - theirs, axis=-1)
    assert sorted(distances.argmin(axis=0)) == list(range(8))
    assert distances.min(axis=0).max() < 0.05  # the table rounds directions to 4 digits: 0.026 mm at 512 pixels
    if "PADDING" not in [finding.code for finding in volume.source.findings]:  # type: ignore[union-attr]
        assert (float(volume.array.min()), float(volume.array.max())) == pytest.approx(
            (reference["min"], reference["max"]), abs=1e-3
        )


def _corners(shape: Sequence[int]) -> np.ndarray:
    return np.stack(np.meshgrid(*[[0, size - 1] for size in shape]), -1).reshape(-1, 3)


@pytest.mark.parametrize(("name", "degrees"), [("ct_philips_tilt_mixed_noext", 18.5), ("ct_siemens_gantry_tilt", 14.0)])
def test_real_gantry_tilt_is_sheared(shared_data: Path, name: str, degrees: float) -> None:
    """Tilted scans keep their shear, also where the tilt tag is empty."""
    volume = _read_only(shared_data / "dicom" / name)
    assert volume.geometry.shear_degrees == pytest.approx(degrees, abs=0.05)
    assert volume.source is not None
    assert "SHEARED" in [finding.code for finding in volume.source.findings]


def test_real_uneven_positions_are_regular(shared_data: Path) -> None:
    """Positions rounded to 0.1 mm make a regular grid of 7 mm, with a finding."""
    volume = _read_only(shared_data / "dicom" / "mr_ge_uneven_spacing")
    assert volume.geometry.is_regular
    assert volume.geometry.spacing_mm[0] == pytest.approx(6.9993, abs=1e-3)
    assert volume.source is not None
    assert "SPACING_JITTER" in [finding.code for finding in volume.source.findings]


def test_real_missing_slice_can_be_allowed(shared_data: Path) -> None:
    """With gaps allowed the four slices at 0, 5, 10 and 20 mm keep their places."""
    folder = shared_data / "dicom" / "ct_ge_missing_slice"
    (case,) = find_cases(folder, ReadOptions(frozenset({"gaps"}))).cases
    assert read_case(case).geometry.slice_offsets == pytest.approx((0, 1, 2, 4), abs=1e-5)


@pytest.mark.parametrize("name", ["jpeg_lossless", "jpegls", "rle"])
def test_real_compressions_are_equal(shared_data: Path, name: str) -> None:
    """One real series gives the same voxels from every compression."""
    folder = shared_data / "dicom" / "mr_compressed_set"
    assert np.array_equal(_read_only(folder / name).array, _read_only(folder / "jpeg2000").array)


@pytest.mark.parametrize("name", ["explicit_big_endian", "explicit_little_endian", "implicit_little_endian"])
def test_real_encodings_are_equal(shared_data: Path, name: str) -> None:
    """One real image gives the same voxels from every byte order and VR encoding."""
    folder = shared_data / "dicom" / "ct_ge_endianness"
    one = _read_only(folder / f"CT1_UNC.{name}.dcm")
    assert np.array_equal(one.array, _read_only(folder / "CT1_UNC.explicit_little_endian.dcm").array)


def test_real_mask_lies_on_its_scan(shared_data: Path) -> None:
    """A real NIfTI mask and the DICOM series it was made from agree on where the corners are."""
    folder = shared_data / "dicom" / "ct_siemens_j2k_with_seg"
    cases = _find(folder).cases
    (scan,) = (read_case(case) for case in cases if isinstance(case, DicomSeries))
    (mask,) = (read_case(case) for case in cases if isinstance(case, NiftiFile))
    ours, theirs = (np.sort(volume.geometry.corners_world(), axis=0) for volume in (scan, mask))
    assert np.allclose(ours, theirs, atol=0.01)


@pytest.mark.parametrize("number", range(1, 10))
def test_real_mosaic_is_that_of_dcm2niix(shared_data: Path, number: int) -> None:
    """A real mosaic has, from each of nine encodings, the voxels of dcm2niix at the same places."""
    folder = shared_data / "dicom" / "mr_siemens_mosaic_9_transfer_syntaxes"
    volume = _read_only(folder / f"{number}.dcm")
    reference = nibabel.load(folder / "reference_dcm2niix.nii")
    world = volume.geometry.index_to_world(np.moveaxis(np.indices(volume.array.shape), 0, -1).reshape(-1, 3))
    places = nibabel.affines.apply_affine(np.linalg.inv(LPS @ reference.affine), world)
    assert np.abs(places - np.rint(places)).max() < 1e-3
    theirs = np.asarray(reference.dataobj)[tuple(np.rint(places).astype(int).T)]
    assert np.array_equal(theirs, volume.array.ravel())


def _hostile_rows(folder: Path) -> list[dict[str, str]]:
    if not (folder / "hostile" / "EXPECTED.csv").exists():
        pytest.skip("the hostile files are not among the real scans here")
    with (folder / "hostile" / "EXPECTED.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _outcome(path: Path) -> str:
    """How a single file ends: accept, warn or reject; anything but our own errors goes through."""
    try:
        with open_input(path) as found:
            if not found.cases:
                return "reject"
            source = read_case(found.cases[0]).source
    except (InputError, RefusedError):
        return "reject"
    assert source is not None
    known = {"SINGLE_SLICE", "NO_MODALITY", "NO_THICKNESS", "NO_FRAME_OF_REFERENCE"}
    return "warn" if {finding.code for finding in source.findings} - known else "accept"


def test_hostile_files_end_as_expected(shared_data: Path) -> None:
    """Each broken file is accepted, warned of or rejected as its table says, and none raises anything else."""
    wrong = {}
    for row in _hostile_rows(shared_data):
        outcome, expected = _outcome(shared_data / "hostile" / row["file"]), row["expected behaviour"]
        if "folder_" in row["file"] or (outcome == "reject" and row["file"] in _MAY_REJECT):
            continue
        if outcome not in expected and not (outcome == "warn" and expected.startswith("accept")):
            wrong[row["file"]] = (outcome, expected)
    assert wrong == {}


_MAY_REJECT = (
    "dicom/missing_pixel_spacing.dcm",  # the table would warn: we refuse to guess sizes,
    "dicom/missing_position_orientation.dcm",  # places,
    "nifti/four_d.nii.gz",  # and which volume is meant
)


@pytest.mark.parametrize("name", ["dicom", "nifti"])
def test_one_hostile_file_does_not_stop_the_others(shared_data: Path, name: str) -> None:
    """Whole folders of broken files are searched without an error, and each file is accounted for."""
    folder = shared_data / "hostile" / name
    found = _find(folder)
    for case in found.cases:
        try:
            read_case(case)
        except RefusedError as error:
            assert error.code == "UNREADABLE_PIXELS"  # noqa: PT017  several cases, each may end either way


@pytest.mark.parametrize("name", ["dcm4che", "fodicom", "git_lfs_pointers"])
def test_broken_files_found_in_the_wild(shared_data: Path, name: str) -> None:
    """Real broken files give no case, and no error but ours."""
    found = _find(shared_data / "hostile_real" / name)
    assert found.cases == ()
    assert len(found.refused) + len(found.set_aside) == 1
