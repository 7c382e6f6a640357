"""Facts about `effvit_med.io.dicom_directory`: a DICOMDIR given as input leads to the files that it lists."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from effvit_med.errors import InputError
from effvit_med.io.cases import Found
from effvit_med.io.dicom_elements import quiet_pydicom
from effvit_med.io.find import ReadOptions, find_cases, open_input
from tests.io.dicom_cases import make_series, save


def _write_directory(path: Path, names: list[list[str]]) -> Path:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    records: list[Dataset] = []
    with quiet_pydicom():  # some names are not as they should be
        _add_records(records, names)
    dataset.DirectoryRecordSequence = Items(records)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _add_records(records: list[Dataset], names: list[list[str]]) -> None:
    for parts in [[], *names]:
        record = Dataset()
        record.DirectoryRecordType = "IMAGE" if parts else "PATIENT"
        if parts:
            record.ReferencedFileID = parts
        records.append(record)


def _find(path: Path) -> Found:
    return find_cases(path, ReadOptions())


def _disc(folder: Path) -> Path:
    """Six slices, of which the DICOMDIR lists four."""
    names = [f"I{index}" for index in range(6)]
    save(folder / "DICOM", make_series(6), names)
    return _write_directory(folder / "DICOMDIR", [["DICOM", name] for name in names[:4]])


def test_listed_files_are_read(tmp_path: Path) -> None:
    """A DICOMDIR as input gives the files that it lists, and no others."""
    found = _find(_disc(tmp_path))
    (case,) = found.cases
    assert (case.geometry.shape[0], found.set_aside) == (4, ())


def test_directory_within_a_folder_is_set_aside(tmp_path: Path) -> None:
    """With the folder as input all files count, and the DICOMDIR is set aside."""
    _disc(tmp_path)
    found = _find(tmp_path)
    (case,) = found.cases
    assert (case.geometry.shape[0], [aside.code for aside in found.set_aside]) == (6, ["DICOMDIR"])


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A listed file that is not there is told, and a gap that it leaves is a gap."""
    path = _disc(tmp_path)
    (tmp_path / "DICOM" / "I2").unlink()
    found = _find(path)
    assert [(aside.code, aside.path.name) for aside in found.set_aside] == [("MISSING_FILE", "I2")]
    assert [case.code for case in found.refused] == ["MISSING_SLICES"]


@pytest.mark.parametrize("name", ["i{}", "i{};1", "I{}.;1"])
def test_copied_discs_have_other_names(tmp_path: Path, name: str) -> None:
    """Names in lower case or with a version number, as copies of discs have them, are found."""
    path = _disc(tmp_path)
    for index in range(4):
        (tmp_path / "DICOM" / f"I{index}").rename(tmp_path / "DICOM" / name.format(index))
    (tmp_path / "DICOM").rename(tmp_path / "dicom_")
    (tmp_path / "dicom_").rename(tmp_path / "dicom")
    (case,) = _find(path).cases
    assert case.geometry.shape[0] == 4


@pytest.mark.parametrize("parts", [["..", "secret"], [".", "secret"], ["/etc", "passwd"], ["a/../..", "secret"]])
def test_nothing_outside_is_touched(tmp_path: Path, parts: list[str]) -> None:
    """A record that points out of the folder is not followed."""
    save(tmp_path, make_series(1), ["secret"])
    (tmp_path / "disc").mkdir()
    found = _find(_write_directory(tmp_path / "disc" / "DICOMDIR", [parts]))
    assert (found.cases, [aside.code for aside in found.set_aside]) == ((), ["MISSING_FILE"])


def test_links_outside_are_not_followed(tmp_path: Path) -> None:
    """A listed link that leads out of the folder counts as missing."""
    save(tmp_path, make_series(1), ["secret"])
    (tmp_path / "disc").mkdir()
    (tmp_path / "disc" / "I0").symlink_to(tmp_path / "secret")
    found = _find(_write_directory(tmp_path / "disc" / "DICOMDIR", [["I0"]]))
    assert [aside.code for aside in found.set_aside] == ["MISSING_FILE"]


def test_directory_that_lists_itself_ends(tmp_path: Path) -> None:
    """A DICOMDIR among its own records is not read again."""
    assert _find(_write_directory(tmp_path / "DICOMDIR", [["DICOMDIR"]])) == Found((), (), ())


def test_directory_without_files_is_an_error(tmp_path: Path) -> None:
    """A DICOMDIR whose files are all gone holds no images, and the message says so."""
    path = _disc(tmp_path)
    shutil.rmtree(tmp_path / "DICOM")
    with pytest.raises(InputError, match="4 missing files"), open_input(path):
        pass
