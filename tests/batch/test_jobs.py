"""Facts about `effvit_med.batch.jobs`: keys, names and refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from effvit_med.batch import BatchOptions, Shard
from effvit_med.batch.jobs import make_key, plan_jobs
from effvit_med.engine import Job, Settings
from effvit_med.io import DicomSeries, Found, NiftiFile, PhotographFile, ReadOptions, RefusedCase, open_input
from effvit_med.volume import Geometry
from tests.io.dicom_cases import make_series, save

GRID = Geometry(np.eye(4), (2, 2, 2))
MODEL = {"bundle": "b", "bundle_version": "1", "weights_sha256": "aa"}


def _find(folder: Path, edit: Callable[[int, Dataset], None] | None = None) -> Found:
    save(folder, make_series(3), edit=edit)
    with open_input(folder) as found:
        return found


@pytest.mark.parametrize(
    ("options", "model"),
    [
        (BatchOptions(settings=Settings(mirror=True)), MODEL),
        (BatchOptions(job=Job(output_types=("nifti",))), MODEL),
        (BatchOptions(job=Job(read=ReadOptions(allow=frozenset({"gaps"})))), MODEL),
        (BatchOptions(keep_ids=True), MODEL),
        (BatchOptions(), {**MODEL, "weights_sha256": "bb"}),
    ],
)
def test_what_changes_the_result_changes_the_key(tmp_path: Path, options: BatchOptions, model: dict[str, str]) -> None:
    """Settings, outputs, allowances, names in the record, weights."""
    (case,) = _find(tmp_path).cases
    assert make_key(case, options, model) != make_key(case, BatchOptions(), MODEL)


def test_what_changes_nothing_leaves_the_key(tmp_path: Path) -> None:
    """Threads, memory, retries, shards."""
    (case,) = _find(tmp_path).cases
    other = BatchOptions(
        settings=Settings(threads=3, memory_gb=4.0),
        job=Job(read=ReadOptions(spill_mb=1, settle_s=3.0)),
        shard=Shard(1, 2),
        retry=5,
        resume=False,
    )
    assert make_key(case, other, MODEL) == make_key(case, BatchOptions(), MODEL)


def test_a_series_with_another_slice_has_another_key(tmp_path: Path) -> None:
    """What is still being copied is done again when it is whole."""
    (case,) = _find(tmp_path).cases
    assert isinstance(case, DicomSeries)
    shorter = replace(case, files=case.files[:-1], sop_instance_uids=case.sop_instance_uids[:-1])
    assert make_key(shorter, BatchOptions(), MODEL) != make_key(case, BatchOptions(), MODEL)


@pytest.mark.parametrize(("value", "codes"), [(None, ["NOT_DEIDENTIFIED"]), ("NO", ["NOT_DEIDENTIFIED"]), ("YES", [])])
def test_identified_series_are_refused_when_asked(tmp_path: Path, value: str | None, codes: list[str]) -> None:
    """Patient Identity Removed has to be YES in every file."""

    def edit(index: int, dataset: Dataset) -> None:
        dataset.PatientIdentityRemoved = value if index == 1 else "YES"

    plan = plan_jobs(_find(tmp_path, edit), tmp_path, tmp_path, BatchOptions(require_deidentified=True), MODEL)
    assert [refused.code for refused in plan.refused] == codes
    assert len(plan.jobs) == 1 - len(codes)


def test_a_nifti_file_loses_its_name(tmp_path: Path) -> None:
    """Files of one name in two folders have two names, and no name is readable."""
    cases = tuple(NiftiFile("Doe_Jane", tmp_path / folder / "Doe_Jane.nii", GRID) for folder in ("Doe", "Roe"))
    plan = plan_jobs(Found(cases, (), ()), tmp_path, tmp_path, BatchOptions(), MODEL)
    names = {job.task.case_id for job in plan.jobs}
    assert len(names) == 2
    assert all(name.startswith("NIFTI_") for name in names)
    assert not any("oe" in job.task.input for job in plan.jobs)


def test_a_photograph_loses_its_name(tmp_path: Path) -> None:
    """As a NIfTI file does, and its folder says what it is."""
    case = PhotographFile("DOE_JANE", tmp_path / "DOE_JANE.jpg", GRID)
    job = plan_jobs(Found((case,), (), ()), tmp_path, tmp_path / "out", BatchOptions(), MODEL).jobs[0]
    assert job.task.case_id.startswith("PHOTOGRAPH_")
    assert "DOE" not in f"{job.task.case_id} {job.task.input}"
    assert job.task.concealment is not None
    assert "DOE" not in job.task.concealment.text("DOE_JANE.jpg has more pages.")


def test_a_nifti_file_keeps_its_name_when_asked(tmp_path: Path) -> None:
    """With keep_ids."""
    found = Found((NiftiFile("Doe_Jane", tmp_path / "Doe_Jane.nii", GRID),), (), ())
    (job,) = plan_jobs(found, tmp_path, tmp_path, BatchOptions(keep_ids=True), MODEL).jobs
    assert (job.task.case_id, job.task.input) == ("Doe_Jane", "Doe_Jane.nii")


def test_the_files_of_an_archive_have_names_of_their_own(tmp_path: Path) -> None:
    """An archive is unpacked into numbered folders."""
    archive = tmp_path / "a.zip"
    archive.touch()
    cases = tuple(NiftiFile("x", tmp_path / "scratch" / number / "x.nii", GRID) for number in ("000000", "000001"))
    assert len(plan_jobs(Found(cases, (), ()), archive, tmp_path, BatchOptions(), MODEL).jobs) == 2


def test_refused_cases_lose_the_names_of_their_files(tmp_path: Path) -> None:
    """In the message, and as the name of a NIfTI case."""
    path = tmp_path / "Doe_Jane.nii"
    refused = RefusedCase("Doe_Jane", "NOT_3D", "Doe_Jane.nii has 5 axes.", "Split it.", (path,))
    (found,) = plan_jobs(Found((), (refused,), ()), tmp_path, tmp_path, BatchOptions(), MODEL).refused
    assert found.case_id.startswith("NIFTI_")
    assert "Doe" not in found.message


def test_two_series_of_one_name_do_not_share_a_folder(tmp_path: Path) -> None:
    """Where two digests agree by chance, the second is refused."""
    (case,) = _find(tmp_path).cases
    plan = plan_jobs(Found((case, case), (), ()), tmp_path, tmp_path, BatchOptions(), MODEL)
    assert (len(plan.jobs), [refused.code for refused in plan.refused]) == (1, ["SAME_NAME"])
