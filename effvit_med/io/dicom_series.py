"""From image headers to series that make one volume each, or to the reason why they do not."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from effvit_med.errors import RefusedError
from effvit_med.io.cases import DicomSeries, ReadOptions, RefusedCase
from effvit_med.io.dicom_headers import SPLIT_ATTRIBUTES, Header
from effvit_med.io.dicom_pixels import have_equal_pixels
from effvit_med.io.dicom_slices import (
    SAME_POSITION_MM,
    Stack,
    common_orientation,
    distances_along_normal,
    place_slices,
)
from effvit_med.volume import Finding

ORIENTATION_CLUSTER = 0.05
"""Images whose direction cosines differ by more (3 degrees) are other stacks, such as the planes of a localizer."""

_REMEDIES = {
    "MULTI_FRAME": "Multi-frame images are not supported yet; export the series as single-frame images.",
    "MOSAIC": "Mosaics are not supported yet; convert the series with dcm2niix and give the NIfTI file.",
    "NO_GEOMETRY": "Export the series from the source system with Image Position and Image Orientation (Patient).",
    "NO_SPACING": "Export the series from the source system with Pixel Spacing.",
}


@dataclass(frozen=True)
class _Group:
    """Headers that may make one volume.

    Attributes:
        key: what tells them from the other groups of the series.
        headers: in a stable order that does not depend on file names.
        findings: what was noticed when they were told apart.
    """

    key: str
    headers: tuple[Header, ...]
    findings: tuple[Finding, ...] = ()


def assemble_series(
    headers: Iterable[Header], options: ReadOptions
) -> tuple[tuple[DicomSeries, ...], tuple[RefusedCase, ...]]:
    """Sort image headers into volumes.

    Args:
        headers: of any number of series, in any order.
        options: what the user accepts.

    Returns:
        The series that can be read, and the groups that are refused, each in a stable order.
    """
    cases: list[DicomSeries] = []
    refused: list[RefusedCase] = []
    for group in _group_headers(headers):
        try:
            _check_kind(group)
            unique, findings = _drop_copies(group)
            parts = _split_positions(replace(group, headers=unique, findings=group.findings + findings), options)
        except RefusedError as error:
            refused.append(_refuse(group, error))
            continue
        for part in parts:
            try:
                stack = place_slices(part.headers, options)
            except RefusedError as error:
                refused.append(_refuse(part, error))
            else:
                cases.append(_make_case(part, stack))
    cases.sort(key=lambda case: case.case_id)
    refused.sort(key=lambda case: case.case_id)
    return tuple(cases), tuple(refused)


def _refuse(group: _Group, error: RefusedError) -> RefusedCase:
    message = str(error).removeprefix(f"{error.code}: ").removesuffix(error.remedy).strip()
    files = tuple(header.path for header in group.headers)
    return RefusedCase(_case_id(group), error.code, message, error.remedy, files)


def _make_case(group: _Group, stack: Stack) -> DicomSeries:
    first = stack.headers[0]
    findings = [*group.findings, *stack.findings]
    if not first.modality:
        findings.append(Finding("NO_MODALITY", "The files do not say of which modality they are."))
    if len({header.study_instance_uid for header in stack.headers}) > 1:
        message = "The files have one Series Instance UID but several Study Instance UIDs; the first was taken."
        findings.append(Finding("SEVERAL_STUDIES", message))
    if not first.frame_of_reference_uid:
        findings.append(Finding("NO_FRAME_OF_REFERENCE", "The files have no Frame of Reference UID."))
    return DicomSeries(
        case_id=_case_id(group),
        files=tuple(header.path for header in stack.headers),
        sop_instance_uids=tuple(header.sop_instance_uid for header in stack.headers),
        geometry=stack.geometry,
        modality=first.modality,
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        series_description=first.series_description,
        findings=tuple(findings),
        identity_removed=all(header.identity_removed for header in stack.headers),
    )


def _case_id(group: _Group) -> str:
    first = group.headers[0]
    modality = re.sub(r"[^A-Z0-9]", "", first.modality)[:8] or "XX"
    number = re.sub(r"[^0-9]", "", first.series_number)[:12] or "0"
    key = f"{first.series_instance_uid or first.study_instance_uid}\n{group.key}"
    return f"{modality}_{number}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _kind(header: Header) -> str:
    """Why an image cannot be a slice, as a code; empty if it can."""
    if header.frames > 1:
        return "MULTI_FRAME"
    if "MOSAIC" in header.image_type:
        return "MOSAIC"
    if header.position is None or header.orientation is None:
        return "NO_GEOMETRY"
    return "" if header.pixel_spacing is not None else "NO_SPACING"


def _group_headers(headers: Iterable[Header]) -> list[_Group]:
    """Tell apart by series, matrix, pixel spacing, frame of reference, kind and orientation."""
    by_key: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header in headers:
        spacing = [f"{value:.4f}" for value in header.pixel_spacing or ()]
        size = f"{header.rows}x{header.columns}"
        series = header.series_instance_uid or header.study_instance_uid
        uids = (series, header.frame_of_reference_uid)
        by_key[*uids, size, "/".join(spacing), _kind(header)].append(header)
    groups: list[_Group] = []
    for key, members in sorted(by_key.items()):
        members.sort(key=lambda each: (each.position or (), each.sop_instance_uid, each.path))
        clusters = [members] if key[-1] else _cluster_orientations(members)
        findings: tuple[Finding, ...] = ()
        if len(clusters) > 1:
            message = f"The series has images of {len(clusters)} orientations; each became a case of its own."
            findings = (Finding("SEVERAL_ORIENTATIONS", message),)
        groups.extend(
            _Group("\n".join([*key[1:], str(index)]), tuple(cluster), findings)
            for index, cluster in enumerate(clusters)
        )
    return groups


def _cluster_orientations(headers: Sequence[Header]) -> list[list[Header]]:
    """Headers with nearly the same orientation together, in an order that depends on the orientations only."""
    founders: list[np.ndarray] = []
    clusters: list[list[Header]] = []
    for header in sorted(headers, key=lambda each: each.orientation or ()):
        orientation = np.array(header.orientation)
        for founder, cluster in zip(founders, clusters, strict=True):
            if np.abs(orientation - founder).max() <= ORIENTATION_CLUSTER:
                cluster.append(header)
                break
        else:
            founders.append(orientation)
            clusters.append([header])
    return clusters


def _check_kind(group: _Group) -> None:
    first = group.headers[0]
    kind = _kind(first)
    names = _name_files(group.headers)
    if kind == "MULTI_FRAME":
        raise RefusedError(kind, f"{names}: {first.frames} frames in one file.", _REMEDIES[kind])
    if kind == "MOSAIC":
        raise RefusedError(kind, f"{names}: the slices are tiles of one mosaic image.", _REMEDIES[kind])
    if kind == "NO_GEOMETRY":
        message = f"{names}: no Image Position or Orientation (Patient), so the place in the patient is unknown."
        raise RefusedError(kind, message, _REMEDIES[kind])
    if kind == "NO_SPACING":
        raise RefusedError(kind, f"{names}: no Pixel Spacing, so sizes are unknown.", _REMEDIES[kind])
    without = [header for header in group.headers if not header.has_pixels]
    if without:
        message = f"{_name_files(without)}: no pixel data; the file may be cut off."
        raise RefusedError("UNREADABLE_PIXELS", message, "Send or copy the file again.")


def _name_files(headers: Sequence[Header]) -> str:
    names = sorted(header.path.name for header in headers)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _drop_copies(group: _Group) -> tuple[tuple[Header, ...], tuple[Finding, ...]]:
    """Keep one file of each SOP Instance UID, provided that all files of it hold the same image."""
    by_uid: dict[str, list[Header]] = defaultdict(list)
    for header in group.headers:
        by_uid[header.sop_instance_uid or str(header.path)].append(header)
    copies = [sorted(each, key=lambda header: header.path) for each in by_uid.values() if len(each) > 1]
    for each in copies:
        same_place = len({(header.position, header.orientation) for header in each}) == 1
        if not same_place or not have_equal_pixels([header.path for header in each]):
            message = f"{_name_files(each)} have one SOP Instance UID but hold different images."
            raise RefusedError(
                "CONFLICTING_DUPLICATES", message, "Find out which file is right and leave out the other."
            )
    if not copies:
        return group.headers, ()
    dropped = [header for each in copies for header in each[1:]]
    message = f"{len(dropped)} file(s) are second copies and were left out: {_name_files(dropped)}."
    paths = {header.path for header in dropped}
    kept = tuple(header for header in group.headers if header.path not in paths)
    return kept, (Finding("DUPLICATE_FILE", message),)


def _split_positions(group: _Group, options: ReadOptions) -> list[_Group]:
    """One group if each position has one image; else one per volume, if something tells the volumes apart."""
    distances = distances_along_normal(group.headers, common_orientation(group.headers))
    order = np.argsort(distances, kind="stable")
    places = np.zeros(len(order), dtype=int)
    places[order] = np.cumsum(np.concatenate([[0], np.diff(distances[order]) > SAME_POSITION_MM]))
    count = int(places.max()) + 1
    if count == len(order):
        return [group]
    crowds = [[group.headers[i] for i in np.flatnonzero(places == place)] for place in range(count)]
    crowds = [crowd for crowd in crowds if len(crowd) > 1]
    at = float(distances[np.flatnonzero([header is crowds[0][0] for header in group.headers])[0]])
    where = (
        f"{len(crowds)} position(s) hold several images, first {at:.2f} mm along the normal: {_name_files(crowds[0])}"
    )
    if all(have_equal_pixels([header.path for header in crowd]) for crowd in crowds):
        if "duplicates" not in options.allow:
            remedy = "Leave the copies out, or allow duplicates to keep one of each."
            raise RefusedError("DUPLICATE_POSITION", f"{where}; their pixels are equal.", remedy)
        extra = {header.path for crowd in crowds for header in sorted(crowd, key=_copy_order)[1:]}
        kept = tuple(header for header in group.headers if header.path not in extra)
        finding = Finding("DUPLICATE_POSITION", f"{where}; their pixels are equal and one of each was kept.")
        return [replace(group, headers=kept, findings=(*group.findings, finding))]
    labels = _tell_volumes_apart(group.headers, places.tolist(), count)
    if labels is None:
        differing = _name_differences(crowds[0])
        message = f"{where}; their pixels differ, and no attribute splits the series into complete volumes{differing}."
        raise RefusedError(
            "CONFLICTING_DUPLICATES", message, "Export each phase, echo or b-value as a series of its own."
        )
    return _split(group, *labels)


def _copy_order(header: Header) -> tuple[str, str]:
    return header.sop_instance_uid, str(header.path)


def _tell_volumes_apart(
    headers: Sequence[Header], places: Sequence[int], count: int
) -> tuple[str, list[tuple[str, ...]]] | None:
    """What splits the images into complete volumes, and the volume of each image; None if nothing does."""
    if count < 2 or len(headers) % count:
        return None
    names = list(SPLIT_ATTRIBUTES)
    pairs = itertools.chain([(name,) for name in names], itertools.combinations(names, 2))
    for pair in pairs:
        labels = [tuple(header.attributes[name] for name in pair) for header in headers]
        if _are_complete(labels, places, count):
            return " and ".join(pair), labels
    numbers = [header.instance_number for header in headers]
    if None not in numbers and len(set(numbers)) == len(numbers):
        ranks = np.argsort(np.argsort(np.array(numbers, dtype=np.int64)))
        labels = [(str(rank // count),) for rank in ranks.tolist()]
        if _are_complete(labels, places, count):
            return "the order of InstanceNumber", labels
    return None


def _are_complete(labels: Sequence[tuple[str, ...]], places: Sequence[int], count: int) -> bool:
    """Whether each label has each position exactly once."""
    pairs = set(zip(labels, places, strict=True))
    return len(pairs) == len(labels) == len(set(labels)) * count


def _split(group: _Group, name: str, labels: Sequence[tuple[str, ...]]) -> list[_Group]:
    parts: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header, label in zip(group.headers, labels, strict=True):
        parts[label].append(header)
    groups: list[_Group] = []
    for label, members in sorted(parts.items(), key=lambda item: _natural_order(item[0])):
        value = ", ".join(part or "absent" for part in label)
        message = f"The series holds {len(parts)} volumes, told apart by {name}; this is the one of {value}."
        findings = (*group.findings, Finding("SPLIT", message))
        groups.append(_Group(f"{group.key}\n{name}\n{value}", tuple(members), findings))
    return groups


def _natural_order(label: tuple[str, ...]) -> tuple[tuple[float, str], ...]:
    return tuple((float(part) if re.fullmatch(r"-?\d+(\.\d+)?", part) else float("inf"), part) for part in label)


def _name_differences(crowd: Sequence[Header]) -> str:
    differing = [name for name in SPLIT_ATTRIBUTES if len({header.attributes[name] for header in crowd}) > 1]
    return f" (they differ in {', '.join(differing)})" if differing else ""
