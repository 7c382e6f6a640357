"""Facts about `effvit_med.io.inspection`: what an input holds is told rightly, and always told."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    EncapsulatedPDFStorage,
    JPEG2000Lossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from effvit_med.io.find import ReadOptions
from effvit_med.io.inspection import inspect_input
from tests.io.dicom_cases import ORIGIN, SPACING, make_series, make_slice, pixels, save
from tests.io.enhanced_cases import make_enhanced, set_macro


def _inspect(path: Path, *allow: str, pixels: bool = False) -> list[dict[str, Any]]:
    options = ReadOptions(frozenset(allow))  # type: ignore[arg-type]
    return [entry.to_dict() for entry in inspect_input(path, options, pixels=pixels)]


def test_plain_series_is_read(tmp_path: Path) -> None:
    """A whole series has the status read, no codes, and its true grid in LPS."""
    save(tmp_path, make_series(6))
    (entry,) = _inspect(tmp_path)
    assert (entry["kind"], entry["status"], entry["codes"], entry["modality"]) == ("series", "read", [], "CT")
    assert (entry["shape"], entry["spacing_mm"]) == ([6, 8, 10], pytest.approx([2.0, *SPACING]))
    assert np.array(entry["affine_lps"]) == pytest.approx(
        np.array([[0, 0, SPACING[1], ORIGIN[0]], [0, SPACING[0], 0, ORIGIN[1]], [2, 0, 0, ORIGIN[2]], [0, 0, 0, 1]])
    )
    assert len(entry["volumes"]) == 1


def test_refused_series_has_no_grid(tmp_path: Path) -> None:
    """A refused series has a code, a remedy and nulls."""
    save(tmp_path, make_series(places=[0, 2, 4, 8]))
    (entry,) = _inspect(tmp_path)
    assert (entry["status"], entry["codes"]) == ("refused", ["MISSING_SLICES"])
    assert (entry["shape"], entry["spacing_mm"], entry["affine_lps"]) == (None, None, None)
    assert "allow gaps" in entry["remedy"]


def test_allowed_series_has_findings(tmp_path: Path) -> None:
    """What is allowed is told as a finding."""
    save(tmp_path, make_series(places=[0, 2, 4, 8]))
    (entry,) = _inspect(tmp_path, "gaps")
    assert (entry["status"], entry["codes"], entry["shape"]) == ("findings", ["MISSING_SLICES"], [4, 8, 10])
    assert entry["volumes"][0]["slice_offsets"] == pytest.approx([0, 1, 2, 4])


def test_several_volumes_are_listed(tmp_path: Path) -> None:
    """A series that makes two volumes has one entry with lists of shapes, spacings and affines."""
    dataset = make_enhanced(
        [0.0, 0, 2, 2, 4, 4],
        edit=lambda index, frame: set_macro(frame, "FrameContentSequence", TemporalPositionIndex=index % 2 + 1),
    )
    save(tmp_path, [dataset])
    (entry,) = _inspect(tmp_path)
    assert (entry["status"], entry["codes"]) == ("findings", ["SPLIT"])
    assert (entry["shape"], len(entry["affine_lps"]), len(entry["volumes"])) == ([[3, 8, 10]] * 2, 2, 2)
    assert entry["files"] == 2  # one file for each of its two volumes


def test_partly_refused_series_has_findings(tmp_path: Path) -> None:
    """Of two volumes of a series the whole one stands alone at the top; the refused one is listed with its code."""
    datasets = [*make_series(4), *make_series(4)[:3]]
    for number, dataset in enumerate(datasets):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
        dataset.EchoTime, dataset.PixelData = 10.0 + number // 4, pixels(number).tobytes()
    save(tmp_path, datasets)
    (entry,) = _inspect(tmp_path)
    assert (entry["status"], entry["shape"]) == ("findings", [4, 8, 10])
    assert set(entry["codes"]) == {"SPLIT", "MISSING_SLICES"}
    assert sorted(volume["status"] for volume in entry["volumes"]) == ["findings", "refused"]


def _localizer(_: int, dataset: Dataset) -> None:
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def _colour(_: int, dataset: Dataset) -> None:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 3, "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelData = 7, bytes(240)


@pytest.mark.parametrize(("edit", "code"), [(_localizer, "LOCALIZER"), (_colour, "NOT_GRAYSCALE")])
def test_stray_image_is_told_with_its_series(tmp_path: Path, edit: Any, code: str) -> None:
    """A localizer or colour image in a series is left out and among the series' codes, not an entry of its own."""
    save(tmp_path, make_series(6), edit=lambda index, dataset: edit(index, dataset) if index == 5 else None)
    (entry,) = _inspect(tmp_path)
    assert (entry["status"], entry["codes"], entry["shape"]) == ("findings", [code], [5, 8, 10])


@pytest.mark.parametrize(("edit", "code"), [(_localizer, "LOCALIZER"), (_colour, "NOT_GRAYSCALE")])
def test_series_of_stray_images_is_refused(tmp_path: Path, edit: Any, code: str) -> None:
    """A series of nothing but localizers or colour images is one refused entry."""
    save(tmp_path, make_series(3), edit=edit)
    (entry,) = _inspect(tmp_path)
    assert (entry["kind"], entry["status"], entry["codes"], entry["files"]) == ("series", "refused", [code], 3)


@pytest.mark.parametrize(("kind", "modality", "code"), [
    (SegmentationStorage, "SEG", "NOT_AN_IMAGE"), (RTStructureSetStorage, "RTSTRUCT", "NOT_AN_IMAGE"),
    (EncapsulatedPDFStorage, "DOC", "NOT_AN_IMAGE"), ("1.2.840.10008.5.1.4.1.1.88.22", "SR", "NOT_AN_IMAGE"),
    (SecondaryCaptureImageStorage, "OT", "SECONDARY_CAPTURE"),
])  # fmt: skip
def test_other_objects_are_refused(tmp_path: Path, kind: str, modality: str, code: str) -> None:
    """A DICOM object that is no scan is refused with a code when it is all there is."""
    dataset = make_slice(0, ORIGIN)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.Modality = modality
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient
    if code == "NOT_AN_IMAGE":
        del dataset.Rows, dataset.Columns, dataset.PixelData
    (path,) = save(tmp_path, [dataset])
    (entry,) = _inspect(path)
    assert (entry["status"], entry["codes"], entry["shape"]) == ("refused", [code], None)


def test_every_junk_file_is_told(tmp_path: Path) -> None:
    """Texts, empty files and other bytes are entries of their own, refused with a code."""
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "bytes.bin").write_bytes(bytes(range(256)))
    found = {entry["name"]: (entry["kind"], entry["status"], entry["codes"]) for entry in _inspect(tmp_path)}
    assert found == {
        "readme.txt": ("file", "refused", ["TEXT"]),
        "empty.dcm": ("file", "refused", ["EMPTY_FILE"]),
        "bytes.bin": ("file", "refused", ["UNKNOWN_FORMAT"]),
    }


def test_zip_is_told_like_a_folder(tmp_path: Path) -> None:
    """A zip archive gives the entries of its content."""
    save(tmp_path / "a", make_series(3))
    path = shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "a")
    assert _inspect(Path(path)) == _inspect(tmp_path / "a")


def test_nifti_is_a_file_with_its_grid(tmp_path: Path) -> None:
    """A NIfTI file keeps its axis order; its RAS affine is told in LPS."""
    affine = np.array([[0.0, 2, 0, 5], [3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), affine), tmp_path / "a.nii.gz")
    (entry,) = _inspect(tmp_path / "a.nii.gz")
    assert (entry["kind"], entry["status"], entry["codes"], entry["shape"]) == ("file", "read", [], [4, 5, 6])
    assert entry["affine_lps"] == (np.diag([-1.0, -1, 1, 1]) @ affine).tolist()


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_cut_off_nifti_is_refused(tmp_path: Path, name: str) -> None:
    """A NIfTI file that lost its last bytes is refused on sight, compressed or not."""
    array = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-50])
    (entry,) = _inspect(tmp_path / name)
    assert (entry["status"], entry["codes"]) == ("refused", ["UNREADABLE_PIXELS"])


def test_damage_within_pixels_shows_when_decoded(tmp_path: Path) -> None:
    """A broken code stream of the right length is found with pixels decoded, and not before."""
    images = np.random.default_rng(0).integers(0, 3000, (3, 64, 48)).astype(np.int16)

    def compress(index: int, dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns = images.shape[1:]
        dataset.PixelData = images[index].tobytes()
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)

    paths = save(tmp_path, make_series(3), edit=compress)
    content = paths[1].read_bytes()
    at = content.index(b"\xff\x4f\xff\x51")
    paths[1].write_bytes(content[:at] + bytes(60) + content[at + 60 :])
    assert _inspect(tmp_path)[0]["status"] == "read"
    (entry,) = _inspect(tmp_path, pixels=True)
    assert (entry["status"], entry["codes"], entry["shape"]) == ("refused", ["UNREADABLE_PIXELS"], None)


def test_findings_of_pixels_show_when_decoded(tmp_path: Path) -> None:
    """Padding is told when the pixels are decoded."""
    save(tmp_path, make_series(3), edit=lambda _, dataset: setattr(dataset, "PixelPaddingValue", 0))
    assert _inspect(tmp_path)[0]["codes"] == []
    assert _inspect(tmp_path, pixels=True)[0]["codes"] == ["PADDING"]


@pytest.mark.parametrize("name", ["AcquisitionDateTime", "SeriesDescription"])
def test_no_date_is_told_of_a_split(tmp_path: Path, name: str) -> None:
    """Volumes told apart by a time or a free text are numbered, not named by it."""
    datasets = [*make_series(4), *make_series(4)]
    for number, dataset in enumerate(datasets):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
        setattr(dataset, name, f"2024060{1 + number // 4}")
        dataset.PixelData = pixels(number).tobytes()
    save(tmp_path, datasets)
    (entry,) = _inspect(tmp_path)
    assert f"told apart by {name}; this is number 1." in " ".join(entry["messages"])
    assert "202406" not in repr(entry)


def test_modality_is_a_word_of_the_standard(tmp_path: Path) -> None:
    """A name in the place of the modality is not repeated."""
    save(tmp_path, make_series(3), edit=lambda _, dataset: setattr(dataset, "Modality", "DOE JOHN"))
    (entry,) = _inspect(tmp_path)
    assert entry["modality"] == ""
    assert "DOE JOHN" not in repr(entry)
