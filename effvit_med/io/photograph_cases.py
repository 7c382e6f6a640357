"""Which pictures of an input are cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from effvit_med.errors import InputError, RefusedError
from effvit_med.io.cases import Found, PhotographFile, Photographs, RefusedCase, SetAside
from effvit_med.io.photograph_labels import photograph_labels_path
from effvit_med.io.photographs import check_photograph, has_one_bit, name_photograph

_RESULTS = ("overlay.png", "segmentation.png", "segmentation.confidence.png")
_RECORD = "record.json"


def sort_photographs(
    pictures: Sequence[SetAside], wanted: Photographs, taken: set[str], *, beside_scans: bool
) -> Found:
    """The pictures that are cases, those to refuse, and those to set aside.

    Masks and results are no cases: pictures of one bit per pixel, with a label table beside them, or of a name that
    results have where their record lies beside them.

    Args:
        pictures: each as it would be set aside: its name is that of a picture, and it is neither DICOM nor NIfTI.
        wanted: as of `effvit_med.io.cases.ReadOptions`.
        taken: names of cases in use; the new ones are added.
        beside_scans: whether the input holds DICOM or NIfTI, too.
    """
    if wanted == "never":
        return Found((), (), tuple(pictures))
    if wanted == "alone" and beside_scans:
        return Found((), (), tuple(_set_beside(each) for each in pictures))
    cases: list[PhotographFile] = []
    refused: list[RefusedCase] = []
    set_aside: list[SetAside] = []
    for each in pictures:
        aside = each if each.code == "STILL_COPIED" else _why_no_case(each.path)
        if aside:
            set_aside.append(aside)
            continue
        case_id = name_photograph(each.path, taken)
        try:
            geometry, findings = check_photograph(each.path)
        except RefusedError as error:
            reason = RefusedCase(case_id, error.code, error.message, error.remedy, (each.path,), is_dicom=False)
            refused.append(reason)
        except InputError as error:
            set_aside.append(SetAside(each.path, "UNREADABLE", str(error)))
            continue
        else:
            cases.append(PhotographFile(case_id, each.path, geometry, findings))
        taken.add(case_id)
    return Found(tuple(cases), tuple(refused), tuple(set_aside))


def _set_beside(picture: SetAside) -> SetAside:
    if picture.code == "STILL_COPIED":
        return picture
    reason = f"{picture.path.name} is a picture beside scans; to segment it, choose a bundle for photographs."
    return replace(picture, code="PHOTOGRAPH", reason=reason)


def _why_no_case(path: Path) -> SetAside | None:
    if path.name in _RESULTS and path.with_name(_RECORD).is_file():
        return SetAside(path, "OWN_RESULT", f"{path.name} is a picture of results, beside their record.")
    if photograph_labels_path(path).is_file():
        return SetAside(path, "LABEL_MAP", f"{path.name} is a label map with a table beside it.")
    if has_one_bit(path):
        return SetAside(path, "LABEL_MAP", f"{path.name} has one bit per pixel: a mask, no photograph.")
    return None
