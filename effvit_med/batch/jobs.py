"""From what an input holds to the jobs of a batch: each with a name without a patient in it, and a key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effvit_med import __version__
from effvit_med.batch.options import BatchOptions
from effvit_med.engine.batch import look_beside, name_input, name_place
from effvit_med.engine.concealment import Concealment, digest, name_parts
from effvit_med.engine.stages import Task
from effvit_med.io import DicomSeries, Found, PhotographFile, RefusedCase
from effvit_med.io.cases import Case
from effvit_med.io.nifti import is_nifti_name
from effvit_med.io.photographs import is_photograph_name

NOT_DEIDENTIFIED = "NOT_DEIDENTIFIED"

_TELLS_OF_COPIES = frozenset({"DUPLICATE_FILE", "DUPLICATE_POSITION"})


@dataclass(frozen=True)
class BatchJob:
    """A case with its key.

    Attributes:
        task: what the pipeline does.
        key: digest of all that decides the result; another key means that the case is done again.
    """

    task: Task
    key: str


@dataclass(frozen=True)
class Plan:
    """All that is to be accounted for.

    Attributes:
        jobs: to do, unless they are done already.
        refused: what must not be segmented.
    """

    jobs: tuple[BatchJob, ...]
    refused: tuple[RefusedCase, ...]


def plan_jobs(
    found: Found, source: Path, output: Path, options: BatchOptions, model: Mapping[str, Any] | None = None
) -> Plan:
    """The jobs of a shard, in a stable order.

    Args:
        found: what the input holds.
        source: the input.
        output: the folder of all results.
        options: of the batch.
        model: what the segmenting process said of itself.
    """
    jobs: list[BatchJob] = []
    refused: list[RefusedCase] = []
    hidden = None if options.keep_ids else conceal_input(found)
    beside = hidden and Concealment(hidden.names | _name_copies(found, source))
    for case in found.cases:
        named = case if options.keep_ids else name_case(case, source)
        if options.shard and not options.shard.holds(named.case_id):
            continue
        if options.require_deidentified and isinstance(case, DicomSeries) and not case.identity_removed:
            message = "The files do not say that the patient's identity was removed (0012,0062)."
            refused.append(RefusedCase(named.case_id, NOT_DEIDENTIFIED, message, "De-identify the series first."))
            continue
        job = make_job(named, source, output, options, model, found)
        if beside is not None:
            job = replace(job, task=_hide_beside(job.task, beside))
        jobs.append(job)
    for each in found.refused:
        named_refused = each if hidden is None else hide_refused(each, source, hidden)
        if not options.shard or options.shard.holds(named_refused.case_id):
            refused.append(named_refused)
    unique = {job.task.case_id: job for job in reversed(jobs)}
    for job in jobs:
        if unique[job.task.case_id] is not job:
            message = "Another series of the input has the same name, which is a digest of its identifiers."
            refused.append(RefusedCase(job.task.case_id, "SAME_NAME", message, "Segment this series by itself."))
    return Plan(tuple(unique[name] for name in dict.fromkeys(job.task.case_id for job in jobs)), tuple(refused))


def make_job(
    case: Case,
    source: Path,
    output: Path,
    options: BatchOptions,
    model: Mapping[str, Any] | None = None,
    found: Found | None = None,
) -> BatchJob:
    """One job.

    Args:
        case: named as it shall be.
        source: the input.
        output: the folder of all results.
        options: of the batch.
        model: what the segmenting process said of itself.
        found: for what lies beside the case; None where nothing does.
    """
    findings = look_beside(case, found.set_aside) if found else ()
    place = name_input(case, source)
    if not options.keep_ids:
        place = f"input_{digest(place, 12)}"
    task = Task(case, place, output, options.job, findings, replaces=False, keep_ids=options.keep_ids)
    return BatchJob(task, make_key(case, options, model or {}))


def make_key(case: Case, options: BatchOptions, model: Mapping[str, Any]) -> str:
    """A hex digest of the series, its images, the model, the settings and our version: all that decides the result.

    Args:
        case: its files are looked at for their sizes only.
        options: of the batch.
        model: what the segmenting process said of itself.
    """
    if isinstance(case, DicomSeries):
        series: list[Any] = [
            case.case_id,
            case.series_instance_uid,
            *case.sop_instance_uids,
            *case.frames,
            sum(_size(file) for file in case.files),
        ]
    else:
        status = case.path.stat() if case.path.exists() else None
        series = [case.case_id, status.st_size if status else 0, status.st_mtime_ns if status else 0]
    job = dataclasses.asdict(options.job)
    decisive = {
        "series": series,
        "model": [model.get("bundle", ""), model.get("bundle_version", ""), model.get("weights_sha256", "")],
        "settings": options.settings.that_change_labels(),
        "job": {**job, "read": job["read"]["allow"]},
        "keep_ids": options.keep_ids,
        "version": __version__,
    }
    text = json.dumps(decisive, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def name_case(case: Case, source: Path) -> Case:
    """A case under a name without that of its file: its kind and a digest; DICOM cases have one already.

    Args:
        case: as it was found.
        source: the input; the digest is that of the place below it.
    """
    if isinstance(case, DicomSeries):
        return case
    kind = "PHOTOGRAPH" if isinstance(case, PhotographFile) else "NIFTI"
    return replace(case, case_id=_name_file(kind, case.path, source))


def _name_file(kind: str, path: Path, source: Path) -> str:
    place = name_place((path,), source)
    if not source.is_dir() and path != source:  # of an archive, unpacked into numbered folders
        place = f"{place}/{path.parent.name}/{path.name}"
    return f"{kind}_{digest(place, 12)}"


def conceal_input(found: Found) -> Concealment:
    """What hides the names of all files of an input."""
    paths = [file for case in found.cases if isinstance(case, DicomSeries) for file in case.files]
    paths += [case.path for case in found.cases if not isinstance(case, DicomSeries)]
    paths += [file for refused in found.refused for file in refused.files]
    return Concealment(name_parts([*paths, *(aside.path for aside in found.set_aside)]))


def _hide_beside(task: Task, hidden: Concealment) -> Task:
    """A task that knows the names of other files of the input that its findings mention, and no more of them."""
    findings = (*task.case.findings, *task.findings)
    return replace(task, hidden=hidden.names_in(finding.message for finding in findings))


def _name_copies(found: Found, source: Path) -> frozenset[str]:
    """The names of all files below an input if a finding tells of copies, which `Found` does not list; else none."""
    told = [case for case in found.cases if any(finding.code in _TELLS_OF_COPIES for finding in case.findings)]
    used = {file for case in told if isinstance(case, DicomSeries) for file in case.files}
    if not used or used == {source}:
        return frozenset()
    if source.is_dir():
        tops = {source}
    elif all(file.is_relative_to(source.parent) for file in used):  # a DICOMDIR lists files below its folder
        tops = {source.parent}
    else:  # an archive, unpacked into numbered folders
        tops = {file.parent.parent for file in used}
    return name_parts(Path(name) for top in tops for name in _walk(top))


def _walk(top: Path) -> Iterator[str]:
    """The names of all files below a folder; links are followed, but no folder is entered twice."""
    seen: set[str] = set()
    for folder, folders, files in os.walk(top, followlinks=True):
        where = os.path.realpath(folder)
        if where in seen:
            folders.clear()
            continue
        seen.add(where)
        yield from files


def hide_refused(refused: RefusedCase, source: Path, hidden: Concealment) -> RefusedCase:
    """A refused case without names of files.

    Args:
        refused: its case id may come from the name of a NIfTI file or a photograph.
        source: the input.
        hidden: what hides the names of the input.
    """
    case_id = refused.case_id
    file = refused.files[0] if len(refused.files) == 1 else None
    if file and is_nifti_name(file):
        case_id = _name_file("NIFTI", file, source)
    elif file and is_photograph_name(file) and not refused.is_dicom:
        case_id = _name_file("PHOTOGRAPH", file, source)
    return replace(refused, case_id=case_id, message=hidden.text(refused.message))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)
