"""The committed sample data: made by make.py, and geometrically what the README says."""

import gzip
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

FOLDER = Path(__file__).resolve().parents[2] / "sample_data"
SERIES = ("ct_axial", "ct_tilted", "ct_nonsquare", "ct_missing_slice")


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("sample_data_make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def read(name: str) -> list[Dataset]:
    """A series in the order of its file names."""
    return [pydicom.dcmread(path) for path in sorted((FOLDER / name).glob("*.dcm"))]


def heights(name: str) -> list[float]:
    """The z of each slice in the order of the file names."""
    return [float(dataset.ImagePositionPatient[2]) for dataset in read(name)]


def test_check_reproduces_every_file(make: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """`make.py --check` finds the committed files to be what it makes, bit for bit."""
    assert make.main(["--check"]) == 0, capsys.readouterr().err


def test_check_names_what_differs(
    make: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--check` names a file that was changed, one that is missing and one that is too many."""
    monkeypatch.setattr(make, "SCANS", tuple(scan for scan in make.SCANS if scan.name == "ct_missing_slice"))
    make.make_all(tmp_path)
    series = tmp_path / "ct_missing_slice"
    changed = series / "IM0002.dcm"
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x01")
    (series / "IM0003.dcm").unlink()
    (series / "extra.dcm").write_bytes(b"")
    assert make.main(["--check", "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "IM0002.dcm: differs (file)" in said
    assert "IM0003.dcm: missing (file)" in said
    assert "extra.dcm: not made by make.py (file)" in said


def test_sums_list_every_file(make: ModuleType) -> None:
    """SHA256SUMS lists every file of the sample data and no other."""
    files = {p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*") if p.suffix in {".dcm", ".gz"}}
    assert set(make.read_sums(FOLDER)) == files


def test_sample_data_are_small() -> None:
    """All sample data together are under 6 MB."""
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 6_000_000


def test_axial_names_and_numbers_do_not_follow_position() -> None:
    """In ct_axial neither file names nor instance numbers rise with the position."""
    by_name = heights("ct_axial")
    by_number = [float(d.ImagePositionPatient[2]) for d in sorted(read("ct_axial"), key=lambda d: d.InstanceNumber)]
    assert by_name != sorted(by_name)
    assert by_name != sorted(by_name, reverse=True)
    assert by_number != sorted(by_number)
    assert by_number != sorted(by_number, reverse=True)
    assert len({d.InstanceNumber for d in read("ct_axial")}) == 40


def test_tilted_series_is_sheared() -> None:
    """In ct_tilted the slices lean by 15 degrees while the table steps along z alone."""
    datasets = sorted(read("ct_tilted"), key=lambda d: float(d.ImagePositionPatient[2]))
    step = np.diff([np.array(d.ImagePositionPatient, dtype=float) for d in datasets], axis=0)
    np.testing.assert_allclose(step, np.tile([0.0, 0.0, 10.0], (15, 1)), atol=1e-6)
    orientation = np.array(datasets[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    assert np.rad2deg(np.arccos(abs(normal[2]))) == pytest.approx(15.0, abs=1e-6)
    assert float(datasets[0].GantryDetectorTilt) == 15.0


def test_nonsquare_spacing_is_rows_first() -> None:
    """In ct_nonsquare rows are 3.0 mm apart and columns 2.4 mm, in the image as in the truth."""
    dataset = read("ct_nonsquare")[0]
    assert list(dataset.PixelSpacing) == [3.0, 2.4]
    assert (dataset.Rows, dataset.Columns) == (112, 144)
    truth = nib.load(FOLDER / "truth" / "ct_nonsquare.nii.gz")
    assert truth.header.get_zooms()[:3] == pytest.approx((2.4, 3.0, 8.0))


def test_one_inner_slice_is_missing() -> None:
    """In ct_missing_slice one gap is twice as wide as the others."""
    assert np.diff(sorted(heights("ct_missing_slice"))).tolist().count(20.0) == 1
    assert len(heights("ct_missing_slice")) == 15


@pytest.mark.parametrize("name", SERIES)
def test_truth_lies_where_the_image_lies(name: str) -> None:
    """The labels' RAS affine puts each slice where its DICOM header puts it, and bone there is bright."""
    truth = nib.load(FOLDER / "truth" / f"{name}.nii.gz")
    labels, affine = np.asarray(truth.dataobj), np.diag([-1.0, -1.0, 1.0, 1.0]) @ truth.affine
    bone = []
    for dataset in read(name):
        row_step, column_step = (float(v) for v in dataset.PixelSpacing)
        corner = np.array(dataset.ImagePositionPatient, dtype=float)
        index = np.linalg.solve(affine, np.append(corner, 1.0))[:3]
        np.testing.assert_allclose(index, [0.0, 0.0, np.round(index[2])], atol=1e-4)
        along_row, along_column = np.array(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
        np.testing.assert_allclose(affine[:3, 0], along_row * column_step, atol=1e-5)
        np.testing.assert_allclose(affine[:3, 1], along_column * row_step, atol=1e-5)
        stored = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
        hu = stored.astype(int) + int(dataset.RescaleIntercept)
        bone.append(hu[labels[:, :, round(index[2])].T == 5])
    assert np.median(np.concatenate(bone)) > 100.0


@pytest.mark.parametrize("name", [*SERIES, "ct"])
def test_truth_has_every_structure(name: str) -> None:
    """Every scan shows all six structures, and the liver lies on the patient's right (RAS x above 0)."""
    truth = nib.load(FOLDER / "truth" / f"{name}.nii.gz")
    labels = np.asarray(truth.dataobj)
    assert np.unique(labels).tolist() == list(range(7))
    liver = truth.affine @ np.append(np.argwhere(labels == 1).mean(axis=0), 1.0)
    assert liver[0] > 20.0


def test_headers_name_no_machine() -> None:
    """The file meta holds our own implementation, UIDs are under 2.25 and the gzip header has no time or name."""
    for name in SERIES:
        for dataset in read(name):
            assert dataset.file_meta.ImplementationVersionName == "EFFVITMED_SAMPLE"
            assert dataset.SOPInstanceUID.startswith("2.25.")
            assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
    for path in FOLDER.rglob("*.nii.gz"):
        head = path.read_bytes()[:8]
        assert head[3] == 0
        assert head[4:8] == b"\0\0\0\0"
        assert gzip.decompress(path.read_bytes())[344:348] == b"n+1\0"
