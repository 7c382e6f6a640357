"""What is there before a review is shown: folder, reasons and layer; nothing is left open when that fails."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effvit_med.errors import OutputError, SettingsError
from effvit_med.review import ReviewSession
from effvit_med.volume import Finding, Geometry, Segmentation, Source, SourceFile, Volume
from napari_effvit_med import opening
from napari_effvit_med.layers import METADATA_KEY, DisplayFrame
from napari_effvit_med.opening import SettledPlaces, resume_review, start_review
from tests.plugin.parts import AFFINE, LIVER, SHAPE, SPLEEN, make_result, make_review, make_scan

REASONS = ((LIVER, Finding("TWO_PARTS", "The liver has two parts.")),)


def test_the_layer_shares_the_memory_of_the_session(tmp_path: Path) -> None:
    """The labels that are shown are those under review, and the automatic result is a copy."""
    result = make_result()
    opened = start_review(make_scan(), result, tmp_path, DisplayFrame(), "scan")
    data, arguments, kind = opened.layer
    assert kind == "labels"
    assert np.shares_memory(data, opened.session.labels)
    assert not np.shares_memory(data, result.labels)
    assert arguments["name"] == "scan structures"
    opened.session.close()


def test_reasons_are_places_in_doubt_also_when_it_goes_on(tmp_path: Path) -> None:
    """What the rules say stands in the journal, so that no model is needed to continue."""
    opened = make_review(tmp_path, confidence=False, reasons=REASONS)
    assert opened.survey.strips == ()
    (doubt,) = opened.survey.doubts
    assert (doubt.value, REASONS[0][1].message in doubt.message) == (LIVER, True)
    opened.session.close()
    again = resume_review(opened.session.folder, make_scan(), DisplayFrame(), "scan")
    assert again.reasons == REASONS
    assert [each.message for each in again.survey.doubts] == [doubt.message]
    again.session.close()


def test_what_was_corrected_or_agreed_is_settled_when_it_goes_on(tmp_path: Path) -> None:
    """The counts of a review that is continued are those it had; what was undone does not count."""
    opened = make_review(tmp_path)
    session = opened.session
    session.apply(np.arange(5), LIVER, kind="brush", value=LIVER)
    session.agree(LIVER, ((2, 4), (8, 9), (14, 16)))
    session.apply(np.arange(40, 45), LIVER, kind="brush", value=LIVER)
    session.undo()
    session.close()
    again = resume_review(session.folder, make_scan(), DisplayFrame(), "scan")
    expected = np.zeros(SHAPE, bool)
    expected.reshape(-1)[:5] = True
    expected[2:4, 8:9, 14:16] = True
    np.testing.assert_array_equal(again.settled.mask(), expected)
    again.session.set_state(SPLEEN, "rejected")
    np.testing.assert_array_equal(again.settled.mask(), expected | (again.session.labels == SPLEEN))
    again.session.close()


def test_settled_places_count_up_to_their_end(tmp_path: Path) -> None:
    """Three hundred agreements do not begin again at nothing."""
    opened = make_review(tmp_path)
    settled = SettledPlaces(opened.session)
    for _ in range(300):
        settled.agree(((0, 1), (0, 1), (0, 1)))
    settled.note(None)
    assert settled.mask()[0, 0, 0]
    assert settled.mask().sum() == 1
    opened.session.close()


def test_the_predecessor_is_noted_by_its_uids(tmp_path: Path) -> None:
    """The note has no path of it; a review that goes on still names it, also when its file is gone."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

    path, made = tmp_path / "a.seg.dcm", pydicom.Dataset()
    made.SOPClassUID, made.SOPInstanceUID = SegmentationStorage, "1.2.3"
    made.SeriesInstanceUID, made.StudyInstanceUID = "1.2.4", "1.2.5"
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.save_as(path, enforce_file_format=True)
    opened = start_review(make_scan(), make_result(), tmp_path / "r", DisplayFrame(), "scan", (), path)
    opened.session.close()
    path.unlink()
    again = resume_review(opened.session.folder, make_scan(), DisplayFrame(), "scan")
    assert again.predecessor == opened.predecessor
    assert again.predecessor is not None
    assert again.predecessor.sop_instance_uid == "1.2.3"
    assert "a.seg" not in str(again.session.source_note)
    again.session.close()


def test_folders_say_when_and_what_but_not_of_whom(tmp_path: Path) -> None:
    """Neither the name of the layer nor an id of the patient is in the path; two of one second have two folders."""
    source = Source("DOE_JOHN", "DICOM", (SourceFile(Path("DOE_JOHN.dcm"), "ab" * 32, "1.2.3"),), "1.2", "1.3")
    volume = replace(make_scan(), source=source)
    folders = []
    for _ in range(3):
        opened = start_review(volume, make_result(), tmp_path, DisplayFrame(), "DOE^JOHN")
        opened.session.close()
        folders.append(opened.session.folder.name)
    assert len(set(folders)) == 3
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{8}(-\d+)?", name) for name in folders)


def test_a_result_without_a_source_takes_that_of_the_scan(tmp_path: Path) -> None:
    """So its review is found again by the files of the scan."""
    source = Source("CT_1", "DICOM", (SourceFile(Path("a.dcm"), "ab" * 32, "1.2.3"),), "1.2", "1.3")
    opened = start_review(replace(make_scan(), source=source), make_result(), tmp_path, DisplayFrame(), "scan")
    assert opened.session.provenance.source == source
    opened.session.close()


def _tilted() -> tuple[Volume, Segmentation]:
    turn, angle = np.eye(4), np.radians(20)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    geometry = Geometry(turn @ AFFINE, SHAPE)
    return Volume(make_scan().array, geometry, "CT"), replace(make_result(), geometry=geometry)


def test_a_scan_that_is_shown_resampled_is_refused(tmp_path: Path) -> None:
    """Its labels cannot be painted on; the message says what to do, and the folder is let go."""
    with pytest.raises(OutputError, match="viewer of its own"):
        start_review(*_tilted(), tmp_path, DisplayFrame(), "scan")
    (folder,) = tmp_path.iterdir()
    ReviewSession.resume(folder).close()


@pytest.mark.parametrize("part", ["warm_up", "survey_doubts", "as_labels_layer"])
def test_the_session_is_closed_when_showing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """Whatever goes wrong, the review can be opened again at once."""

    def fail(*_: Any) -> None:
        raise MemoryError("full")

    opened = make_review(tmp_path)
    folder = opened.session.folder
    with pytest.raises(SettingsError):  # it is open: this is what would stay
        resume_review(folder, make_scan(), DisplayFrame(), "scan")
    opened.session.close()
    with monkeypatch.context() as patch:
        patch.setattr(opening, part, fail)
        with pytest.raises(MemoryError):
            resume_review(folder, make_scan(), DisplayFrame(), "scan")
    resume_review(folder, make_scan(), DisplayFrame(), "scan").session.close()


def test_an_edited_review_is_not_taken_for_the_automatic_result(tmp_path: Path) -> None:
    """The digest of a layer says that nobody painted on it since it was made; here somebody did before."""
    opened = make_review(tmp_path)
    assert opened.layer[1]["metadata"][METADATA_KEY].digest
    opened.session.apply(np.arange(5), LIVER, kind="brush", value=LIVER)
    opened.session.close()
    again = resume_review(opened.session.folder, make_scan(), DisplayFrame(), "scan")
    assert again.layer[1]["metadata"][METADATA_KEY].digest == ""
    again.session.close()
