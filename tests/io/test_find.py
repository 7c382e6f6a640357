"""Facts about `effvit_med.io.find`: whatever lies in a folder, each file is a case, refused or set aside."""

from __future__ import annotations

import os
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage

from effvit_med.errors import InputError, RefusedError
from effvit_med.io import archive
from effvit_med.io.find import DicomSeries, NiftiFile, ReadOptions, find_cases, open_input
from effvit_med.io.read import read_case
from tests.io.dicom_cases import make_series, pixels, save


def _codes(folder: Path) -> dict[str, str]:
    return {each.path.name: each.code for each in find_cases(folder, ReadOptions()).set_aside}


def _save_nifti(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), path)


def test_folders_are_searched_to_the_bottom(tmp_path: Path) -> None:
    """A series spread over nested folders is one case, beside a NIfTI file."""
    datasets = make_series(4)
    save(tmp_path / "a", datasets[:2], ["x", "y"])
    save(tmp_path / "a" / "b" / "c", datasets[2:], ["x", "y"])
    _save_nifti(tmp_path / "a" / "scan 1.nii.gz")
    with open_input(tmp_path) as found:
        series, nifti = found.cases
        assert isinstance(series, DicomSeries)
        assert len(series.files) == 4
        assert isinstance(nifti, NiftiFile)
        assert (nifti.case_id, nifti.path) == ("scan_1", tmp_path / "a" / "scan 1.nii.gz")


def test_single_file_is_a_case(tmp_path: Path) -> None:
    """A path to one file gives the case of that file only."""
    paths = save(tmp_path, make_series(4))
    with open_input(paths[1]) as found:
        assert [len(case.files) for case in found.cases if isinstance(case, DicomSeries)] == [1]


def test_every_other_file_is_set_aside_with_a_reason(tmp_path: Path) -> None:
    """Texts, empty files, pointers, damaged files, other objects and colour images are told apart."""
    save(tmp_path, make_series(3))
    (tmp_path / "readme.txt").write_text("words")
    (tmp_path / "page.dcm").write_text("<html>no such study</html>")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "pointer.dcm").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "noise.dcm").write_bytes(np.random.default_rng(0).bytes(4096))
    (tmp_path / "preamble.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "empty.nii.gz").touch()
    save(tmp_path, make_series(1, series=5), ["report"], edit=_make_report)
    save(tmp_path, make_series(1, series=6), ["colour"], edit=_make_colour)
    save(tmp_path, make_series(1, series=7), ["screen"], edit=_make_screenshot)
    save(tmp_path, make_series(1, series=8), ["mask"], edit=lambda _, d: setattr(d, "Modality", "SEG"))
    assert _codes(tmp_path) == {
        "readme.txt": "TEXT",
        "page.dcm": "TEXT",
        "empty.dcm": "EMPTY_FILE",
        "pointer.dcm": "GIT_LFS_POINTER",
        "noise.dcm": "UNKNOWN_FORMAT",
        "preamble.dcm": "UNREADABLE",
        "empty.nii.gz": "UNREADABLE",
        "report": "NOT_AN_IMAGE",
        "colour": "NOT_GRAYSCALE",
        "screen": "SECONDARY_CAPTURE",
        "mask": "NOT_AN_IMAGE",
    }


def _make_report(_: int, dataset: Dataset) -> None:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    dataset.Modality = "DOC"
    for tag in ("PixelData", "Rows", "Columns", "ImagePositionPatient"):
        delattr(dataset, tag)


def _make_colour(_: int, dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"


def _make_screenshot(_: int, dataset: Dataset) -> None:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    del dataset.ImagePositionPatient


@pytest.mark.parametrize("size", [1, 3, 131, 132, 140, 200, 400, 700])
def test_file_cut_off_anywhere_never_raises(tmp_path: Path, size: int) -> None:
    """A file that ends in its header is set aside or refused, and the others still make their case."""
    paths = save(tmp_path, make_series(4))
    paths[3].write_bytes(paths[3].read_bytes()[:size])
    found = find_cases(tmp_path, ReadOptions())
    assert len(found.set_aside) + len(found.refused) == 1


@given(changes=st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_raise_only_our_errors(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    """Whatever bytes of a file are wrong, it is read, refused or set aside."""
    folder = tmp_path_factory.mktemp("changed")
    path = save(folder, make_series(3))[1]
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content)
    for case in find_cases(folder, ReadOptions(frozenset({"gaps", "irregular"}))).cases:
        with suppress(RefusedError):
            read_case(case)


def test_nothing_found_is_one_clear_line(tmp_path: Path) -> None:
    """A folder without images is an error that counts what is there instead."""
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("words")
    save(tmp_path, make_series(1), edit=lambda _, d: setattr(d, "ImageType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    with pytest.raises(InputError, match=r"^no images in .*: 3 text files, 1 localizer$"), open_input(tmp_path):
        pass


def test_empty_folder_is_an_input_error(tmp_path: Path) -> None:
    """An empty folder is an error that says so."""
    with pytest.raises(InputError, match="the folder is empty"), open_input(tmp_path):
        pass


def test_missing_path_is_an_input_error(tmp_path: Path) -> None:
    """A path that does not exist is an error that says so."""
    with pytest.raises(InputError, match=r"nowhere does not exist\."), open_input(tmp_path / "nowhere"):
        pass


def test_only_refused_cases_are_no_error(tmp_path: Path) -> None:
    """An input with refused cases only is a result, so that the caller can report each."""
    save(tmp_path, make_series(places=[0, 2, 4, 8]))
    with open_input(tmp_path) as found:
        assert (len(found.cases), len(found.refused)) == (0, 1)


def test_links_and_pipes_do_not_hang(tmp_path: Path) -> None:
    """A loop of folders, a broken link and a pipe are passed over; a linked folder is followed."""
    save(tmp_path / "real", make_series(3))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "real")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "in" / "pipe")
    found = find_cases(tmp_path / "in", ReadOptions())
    assert [len(case.files) for case in found.cases if isinstance(case, DicomSeries)] == [3]
    assert {each.path.name: each.code for each in found.set_aside} == {"broken": "NOT_A_FILE", "pipe": "NOT_A_FILE"}


def test_unreadable_file_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be opened is set aside with the system's reason."""
    save(tmp_path, make_series(1), ["secret.dcm"])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("effvit_med.io.dicom_headers._BoundedFile", refuse)
    (aside,) = find_cases(tmp_path, ReadOptions()).set_aside
    assert (aside.code, aside.reason) == ("UNREADABLE", "secret.dcm cannot be read: Permission denied.")


def test_zip_is_read_and_removed(tmp_path: Path) -> None:
    """A zip archive is read like a folder; its unpacked files are gone after the block."""
    save(tmp_path / "series", make_series(3))
    path = Path(shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "series"))
    with open_input(path) as found:
        (case,) = found.cases
        assert isinstance(case, DicomSeries)
        assert np.array_equal(read_case(case).array, np.stack([pixels(index) for index in range(3)]))
        assert case.files[0].exists()
    assert not case.files[0].exists()


def test_zip_cannot_write_outside(tmp_path: Path) -> None:
    """Entries with paths that lead out of the archive are read, and nothing is written where they point."""
    (path,) = save(tmp_path / "series", make_series(1))
    inner = tmp_path / "deep" / "er"
    inner.mkdir(parents=True)
    names = ["../../evil.dcm", "/evil2.dcm", "..\\..\\evil3.dcm", "a/../../evil4.dcm", ".."]
    with zipfile.ZipFile(inner / "bad.zip", "w") as bad:
        for name in names:
            bad.writestr(name, path.read_bytes())
    before = sorted(tmp_path.rglob("*"))
    with open_input(inner / "bad.zip") as found:
        assert len(found.cases) == 1
        assert all("effvit-med-" in str(file) for case in found.cases for file in getattr(case, "files", ()))
    assert sorted(tmp_path.rglob("*")) == before


def test_zip_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that says it unpacks to more than the limit is refused before anything is unpacked."""
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("zeros", bytes(1001))
    with (
        pytest.raises(InputError, match=r"bomb\.zip unpacks to .* GiB; the limit is"),
        open_input(tmp_path / "bomb.zip"),
    ):
        pass


def test_damaged_zip_is_an_input_error(tmp_path: Path) -> None:
    """An archive with damaged content is an error that names it."""
    path = tmp_path / "bad.zip"
    with zipfile.ZipFile(path, "w") as bad:
        bad.writestr("words", "x" * 100)
    path.write_bytes(path.read_bytes().replace(b"xxx", b"xyx", 1))
    with pytest.raises(InputError, match=r"bad\.zip cannot be unpacked: Bad CRC"), open_input(path):
        pass


def test_nifti_names_are_unique(tmp_path: Path) -> None:
    """Two NIfTI files of the same name in two folders get two case names."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        _save_nifti(tmp_path / folder / "scan.nii")
    assert [case.case_id for case in find_cases(tmp_path, ReadOptions()).cases] == ["scan", "scan_2"]


def test_own_label_map_is_no_case(tmp_path: Path) -> None:
    """A label map with its table beside it, as we write it, is not segmented again."""
    _save_nifti(tmp_path / "liver.nii.gz")
    (tmp_path / "liver.labels.json").write_text("{}")
    assert _codes(tmp_path) == {"liver.nii.gz": "LABEL_MAP", "liver.labels.json": "TEXT"}


@pytest.mark.parametrize("size", [100, 2**16, 2**17])
def test_headers_longer_than_the_first_look_are_read(tmp_path: Path, size: int) -> None:
    """A private element of any size before the place in the patient changes nothing."""

    def fill(index: int, dataset: Dataset) -> None:
        dataset.add_new(0x00090010, "LO", "long")
        dataset.add_new(0x00091001, "OB", bytes(size))

    save(tmp_path / "long", make_series(4), edit=fill)
    save(tmp_path / "short", make_series(4))
    long, short = (find_cases(tmp_path / name, ReadOptions()).cases[0] for name in ("long", "short"))
    assert isinstance(long, DicomSeries)
    assert isinstance(short, DicomSeries)
    assert (long.geometry, long.sop_instance_uids) == (short.geometry, short.sop_instance_uids)
    assert np.array_equal(read_case(long).array, read_case(short).array)


def test_a_header_that_ends_within_the_first_look_has_no_pixels(tmp_path: Path) -> None:
    """A file cut off right before its pixel data is refused by name, not taken for whole."""
    paths = save(tmp_path, make_series(4))
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[: content.rindex(b"\xe0\x7f\x10\x00")])
    found = find_cases(tmp_path, ReadOptions())
    assert [case.code for case in found.refused] == ["UNREADABLE_PIXELS"]
    assert "002.dcm has no pixel data" in found.refused[0].message


def test_an_archive_with_a_damaged_entry_is_an_error_in_words(tmp_path: Path) -> None:
    """A name that begins with a zero byte is an empty one, which the zip library cannot take."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"x")
    content = path.read_bytes()
    at = content.index(b"PK\x01\x02")
    damaged = bytearray(content)
    damaged[at + 46 : at + 47] = b"\x00"  # a name that begins with a zero byte is an empty name
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match="cannot be unpacked"), open_input(path):
        pass
