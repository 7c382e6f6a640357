"""Facts about `effvit_med.engine.concealment`: names, UIDs and dates do not get through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effvit_med.engine.concealment import Concealment, conceal_case, name_parts
from effvit_med.io import NiftiFile
from effvit_med.volume import Geometry

HIDDEN = Concealment(name_parts([Path("/arch/DOE_JANE 1970-01-31/IM 0001.dcm"), Path("/arch/b/20240131.dcm")]))


@pytest.mark.parametrize(
    "text",
    [
        "IM 0001.dcm cannot be read.",
        "2 files: IM 0001.dcm, 20240131.dcm and 3 more.",
        "A file (IM 0001.dcm) lies in /arch/DOE_JANE 1970-01-31.",
        "'/arch/DOE_JANE 1970-01-31/IM 0001.dcm' is gone.",
        "acquired 20240131 or 2024-01-31 or 20240131093000.000000 or 2024-01-31T09:30:00",
        "The UID 1.2.840.113619.2.55.3.20240131093000.17 is there twice.",
        "told apart by AcquisitionTime; this is the one of 093000.123456.",
        "told apart by ContrastBolusAgent; this is the one of given to Jane Doe.",
    ],
)
def test_nothing_of_a_patient_gets_through(text: str) -> None:
    """File and folder names, dates in the common spellings, UIDs, and values that tell volumes apart."""
    hidden = HIDDEN.text(text)
    assert not any(part in hidden for part in ("DOE", "0001", "2024", "1970", "0930", "113619", "Jane", "0131"))


@pytest.mark.parametrize(
    "text",
    [
        "1 slice is missing: 1 between 15.00 mm and 35.00 mm.",
        "The values lie from -1024 to 3071; model looks from -160 to 320.",
        "told apart by TemporalPositionIdentifier; this is the one of 2.",
        "told apart by DiffusionBValue; this is the one of 1000.",
        "made with effvit-med 0.1.0 and torch 2.13.0",
    ],
)
def test_what_helps_stays(text: str) -> None:
    """Counts, places in millimetres, small numbers and versions."""
    assert HIDDEN.text(text) == text


def test_a_name_is_hidden_the_same_way_everywhere() -> None:
    """The same digest in every text, so that messages about one file can be brought together."""
    one, two = HIDDEN.text("IM 0001.dcm is cut off."), HIDDEN.text("See IM 0001.dcm")
    assert one.split()[0] == two.split()[1]


def test_uids_in_plain_values_are_hidden_however_short() -> None:
    """A UID under its own name is hashed; our own times stay."""
    plain = HIDDEN.plain({"series_instance_uid": "1.2", "started": "2026-01-31T00:00:00+00:00", "n": [1, "a"]})
    assert plain["series_instance_uid"].startswith("uid_")
    assert plain["started"] == "2026-01-31T00:00:00+00:00"
    assert plain["n"] == [1, "a"]


def test_a_name_of_many_words_is_hidden() -> None:
    """However long it is."""
    name = "Doe, Jane - CT Thorax Abdomen with contrast 3 mm soft tissue kernel B30f recon 2 of 3 - a copy (4).dcm"
    hidden = Concealment(name_parts([Path(name)])).text(f"2 files cannot be read ({name}, other.dcm).")
    assert "Doe" not in hidden
    assert "other.dcm" in hidden


@pytest.mark.parametrize("name", ["mueller", "7", "CT", "mueller.dcm", " mueller", "mueller "])
def test_a_path_is_hidden_however_plain(name: str) -> None:
    """In a record, even where the name was not known."""
    assert Concealment().plain({"files": [{"path": name}]})["files"][0]["path"].startswith("file_")


@pytest.mark.parametrize("name", ["mueller", " mueller", "mueller "])
def test_a_file_called_by_one_plain_word_is_hidden_in_texts(name: str) -> None:
    """It has no ending by which to know it."""
    hidden = Concealment(name_parts([Path("/arch") / name]))
    assert "mueller" not in hidden.text(f"2 files cannot be read: {name}, other.")


def test_a_folder_called_by_one_plain_word_stays() -> None:
    """Our messages use such words, too."""
    text = "The scan has one slice."
    assert Concealment(name_parts([Path("scan/slice.dcm")])).text(text) == text


def test_the_names_in_a_text_are_those_that_it_hides() -> None:
    """No more and no less, so that few need to be known to hide a text."""
    text = "2 files: IM 0001.dcm, 20240131.dcm and 3 more."
    few = Concealment(HIDDEN.names_in([text]))
    assert few.names == {"IM 0001.dcm", "20240131.dcm"}
    assert few.text(text) == HIDDEN.text(text)


def test_names_beside_a_case_are_hidden_with_its_own() -> None:
    """Findings mention both."""
    nifti = NiftiFile("x", Path("/a/Doe_Jane.nii.gz"), Geometry(np.eye(4), (2, 2, 2)))
    hidden = conceal_case(nifti, frozenset({"ROE 1.nii"})).text("Doe_Jane.nii.gz and ROE 1.nii")
    assert not any(name in hidden for name in ("Doe", "ROE"))


def test_the_name_of_a_nifti_file_is_hidden() -> None:
    """With its ending and without."""
    hidden = conceal_case(NiftiFile("x", Path("/a/Doe_Jane.nii.gz"), Geometry(np.eye(4), (2, 2, 2))))
    assert "Doe" not in hidden.text("Doe_Jane.nii.gz and Doe_Jane")
