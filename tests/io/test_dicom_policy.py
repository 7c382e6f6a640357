"""What of the source's header passes into DICOM results, and that poor headers are no obstacle to any of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset

from effvit_med.io import SegOptions, write_dicom_seg, write_dicom_sr, write_rtstruct
from effvit_med.volume.measurements import measure
from tests.io.independent import errors_of
from tests.io.source_series import axial, random_labels, segment, write_series

FILES = ("seg.dcm", "rt.dcm", "sr.dcm")
FREE_TEXT = {
    "PatientComments": "lives next door", "StudyDescription": "for Doctor Who", "SeriesDescription": "neck of Jane",
    "InstitutionName": "Village hospital", "InstitutionAddress": "High street", "StationName": "room 5",
    "AdditionalPatientHistory": "fell off a horse", "ImageComments": "see letter", "ProtocolName": "the usual",
    "OperatorsName": "Op^Erator", "PerformingPhysicianName": "Who^Doctor",
    "RequestedProcedureDescription": "CT of Jane",
    "OtherPatientNames": "Roe^Jane", "Occupation": "spy", "EthnicGroup": "none of it", "MedicalAlerts": "allergic",
    "AdmittingDiagnosesDescription": "cough", "PhysiciansOfRecord": "Rec^Ord", "PatientAddress": "Low street",
}  # fmt: skip
KEPT = {"PatientName": "Doe^Jane", "PatientID": "P1", "AccessionNumber": "A1", "StudyDate": "20240501"}


def write_all(folder: Path, change: Callable[[int, Dataset], None], *, strip: bool = True) -> list[Dataset]:
    """SEG, RTSTRUCT and SR of a series whose headers were changed."""
    (folder / "series").mkdir()
    volume = write_series(folder / "series", axial(), change)
    segmentation = segment(volume, random_labels(axial().shape))
    write_dicom_seg(segmentation, folder / "seg.dcm", SegOptions(strip_free_text=strip))
    write_rtstruct(segmentation, folder / "rt.dcm", strip_free_text=strip)
    rows = measure(volume, segmentation)
    write_dicom_sr(segmentation, rows, folder / "seg.dcm", folder / "sr.dcm", strip_free_text=strip)
    return [pydicom.dcmread(folder / name) for name in FILES]


def talk(k: int, dataset: Dataset) -> None:
    """Fill every attribute in which people write about patients."""
    for name, text in FREE_TEXT.items():
        setattr(dataset, name, text)
    private = dataset.private_block(0x0019, "SOMEBODY", create=True)
    private.add_new(1, "LO", "private word")


def test_free_text_stays_behind_unless_asked_for(tmp_path: Path) -> None:
    """No result holds what somebody typed about the patient; names, ids and dates that identify the study pass."""
    for dataset in write_all(tmp_path, talk):
        content = dataset.to_json()
        assert [text for text in (*FREE_TEXT.values(), "private word") if text in content] == []
        assert {name: str(dataset.get(name)) for name in KEPT} == KEPT


def test_free_text_of_patient_and_study_passes_on_request(tmp_path: Path) -> None:
    """What describes patient and study is kept on request; the source series' own words and private ones never."""
    for dataset in write_all(tmp_path, talk, strip=False):
        assert (dataset.PatientComments, dataset.StudyDescription) == ("lives next door", "for Doctor Who")
        content = dataset.to_json()
        assert [text for text in ("neck of Jane", "see letter", "private word") if text in content] == []


def test_other_choice_is_another_instance(tmp_path: Path) -> None:
    """A file with free text never replaces one without it."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with_it = write_all(tmp_path / "one", talk, strip=False)
    without = write_all(tmp_path / "two", talk)
    assert not {each.SOPInstanceUID for each in with_it} & {each.SOPInstanceUID for each in without}


MISSING = (
    "PatientBirthDate", "AccessionNumber", "SliceThickness", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "SpecificCharacterSet", "Manufacturer", "PositionReferenceIndicator",
)  # fmt: skip


def test_poor_header_is_no_obstacle(tmp_path: Path) -> None:
    """Without birth date, accession number, slice thickness and more, all three are valid files."""

    def strip(k: int, dataset: Dataset) -> None:
        for name in MISSING:
            delattr(dataset, name)

    write_all(tmp_path, strip)
    assert [errors_of(tmp_path / name) for name in FILES] == [[]] * 3


def test_invalid_values_and_foreign_names_are_no_obstacle(tmp_path: Path) -> None:
    """A date that does not exist and an unknown sex are left out, a name in Japanese passes."""

    def spoil(k: int, dataset: Dataset) -> None:
        for name, kind, value in (("PatientBirthDate", "DA", b"20260230"), ("PatientSex", "CS", b"X ")):
            tag = pydicom.tag.Tag(name)
            dataset[tag] = pydicom.dataelem.RawDataElement(tag, kind, len(value), value, 0, False, True)
        dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        dataset.PatientName = "Yamada^Tarou=山田^太郎"

    for name, dataset in zip(FILES, write_all(tmp_path, spoil), strict=True):
        assert (dataset.get("PatientBirthDate"), dataset.get("PatientSex")) == ("", "")
        assert str(dataset.PatientName) == "Yamada^Tarou=山田^太郎"
        assert errors_of(tmp_path / name) == []


def test_deidentification_is_still_said(tmp_path: Path) -> None:
    """A result of a de-identified scan says that it is de-identified, and how."""

    def say(k: int, dataset: Dataset) -> None:
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "basic profile"

    for dataset in write_all(tmp_path, say):
        assert (dataset.PatientIdentityRemoved, dataset.DeidentificationMethod) == ("YES", "basic profile")


def test_all_uids_follow_from_the_run(tmp_path: Path) -> None:
    """Series, instance and tracking UIDs are of the root 2.25, and the three results are three series."""
    datasets = write_all(tmp_path, lambda k, dataset: None)
    uids = [uid for each in datasets for uid in (each.SOPInstanceUID, each.SeriesInstanceUID)]
    assert len(set(uids)) == 6
    assert all(uid.startswith("2.25.") for uid in uids)
    assert {each.StudyInstanceUID for each in datasets} == {datasets[0].StudyInstanceUID}


@pytest.mark.parametrize("name", FILES)
def test_time_zone_of_the_study_is_kept(tmp_path: Path, name: str) -> None:
    """Times stand on the clock of the study."""

    def shift(k: int, dataset: Dataset) -> None:
        dataset.TimezoneOffsetFromUTC = "+0200"

    write_all(tmp_path, shift)
    dataset = pydicom.dcmread(tmp_path / name)
    assert (dataset.TimezoneOffsetFromUTC, dataset.SeriesTime) == ("+0200", "143000")
