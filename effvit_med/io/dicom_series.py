"""From image headers to series that make one volume each, or to the reason why they do not."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from effvit_med.errors import RefusedError
from effvit_med.io.cases import DicomSeries, ReadOptions, RefusedCase
from effvit_med.io.dicom_header import SPLIT_NAMES, Header
from effvit_med.io.dicom_phases import MIN_SLICES, Group, name_files, split_positions
from effvit_med.io.dicom_pixels import NOTES, have_equal_pixels
from effvit_med.io.dicom_slices import RESEND_OR_ALLOW, Stack, place_slices
from effvit_med.volume import Finding

ORIENTATION_CLUSTER = 0.05
"""Images whose direction cosines differ by more (3 degrees) are other stacks, such as the planes of a localizer."""

TURNED = 1e-3
"""Stacks of several images each that differ by more are other ones, such as those through the disks of a spine."""

SPACING_CLUSTER = 2e-4
"""Pixel Spacings that differ by a smaller part are one spacing: a tenth of a pixel at the far end of 512."""

_REMEDIES = {
    "MOSAIC": "Convert the series with dcm2niix and give the NIfTI file.",
    "NO_GEOMETRY": "Export the series from the source system with Image Position and Image Orientation (Patient).",
    "NO_SPACING": "Export the series from the source system with Pixel Spacing.",
}
_PROJECTIONS = frozenset({"CR", "DX", "IO", "IVUS", "MG", "OP", "PX", "RF", "RG", "RTIMAGE", "US", "XA"})
_NO_PLACE = "None: a projection, photograph or ultrasound image has no place in the patient to segment in."
_WORDS = {
    "MOSAIC": "the slices are tiles of one mosaic image, and the scanner's private header does not say where they lie",
    "NO_GEOMETRY": "no Image Position or Orientation (Patient), so the place in the patient is unknown",
    "NO_SPACING": "no Pixel Spacing, so sizes are unknown",
}


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
            parts = split_positions(replace(group, headers=unique, findings=group.findings + findings))
        except RefusedError as error:
            refused.append(_refuse(group, error))
            continue
        for part in parts:
            try:
                whole = _check_whole(part, options)
                cases.append(_make_case(whole, place_slices(part.headers, options)))
            except RefusedError as error:
                refused.append(_refuse(part, error))
    cases.sort(key=lambda case: case.case_id)
    refused.sort(key=lambda case: case.case_id)
    return tuple(cases), tuple(refused)


def _check_whole(part: Group, options: ReadOptions) -> Group:
    if not part.lack:
        return part
    if "gaps" not in options.allow:
        raise RefusedError("MISSING_SLICES", f"{part.findings[-1].message} {part.lack}", RESEND_OR_ALLOW)
    return replace(part, findings=(*part.findings, Finding("MISSING_SLICES", part.lack)))


def _refuse(group: Group, error: RefusedError) -> RefusedCase:
    first = group.headers[0]
    return RefusedCase(
        _case_id(group),
        error.code,
        error.message,
        error.remedy,
        files=tuple(dict.fromkeys(header.path for header in group.headers)),
        series_instance_uid=first.series_instance_uid,
        modality=first.modality,
    )


def _make_case(group: Group, stack: Stack) -> DicomSeries:
    first = stack.headers[0]
    findings = [*group.findings, *stack.findings]
    if not first.modality:
        findings.append(Finding("NO_MODALITY", "The files do not say of which modality they are."))
    if len({header.study_instance_uid for header in stack.headers}) > 1:
        message = "The files have one Series Instance UID but several Study Instance UIDs; the first was taken."
        findings.append(Finding("SEVERAL_STUDIES", message))
    if first.frame < 0:
        message = f"The {len(stack.headers)} slices are tiles of one mosaic image; no DICOM SEG can refer to them."
        findings.append(Finding("MOSAIC", message))
    codes = {code for header in stack.headers for code in header.notes}
    findings.extend(NOTES[code] for code in sorted(codes))
    if not first.frame_of_reference_uid and not any(each.code == "FRAMES_OF_REFERENCE" for each in findings):
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
        frames=tuple(header.frame for header in stack.headers) if any(h.frame for h in stack.headers) else (),
        identity_removed=all(header.identity_removed for header in stack.headers),
    )


def _case_id(group: Group) -> str:
    first = group.headers[0]
    modality = re.sub(r"[^A-Z0-9]", "", first.modality)[:8] or "XX"
    number = re.sub(r"[^0-9]", "", first.series_number)[:12] or "0"
    key = f"{first.series_instance_uid or first.study_instance_uid}\n{group.key}"
    return f"{modality}_{number}_{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _kind(header: Header) -> str:
    """Why an image cannot be a slice, as a code; empty if it can."""
    if ("MOSAIC" in header.image_type or header.grid > 1) and not header.frame:
        return "MOSAIC"
    if header.position is None or header.orientation is None:
        return "NO_GEOMETRY"
    return "" if header.pixel_spacing is not None else "NO_SPACING"


def _group_headers(headers: Iterable[Header]) -> list[Group]:
    """Tell apart by series, matrix, pixel spacing, frame of reference, stack, kind and orientation."""
    by_series: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        by_series[_series_key(header)].append(header)
    return [group for _, members in sorted(by_series.items()) for group in _group_series(members)]


def _series_key(header: Header) -> str:
    if header.series_instance_uid:
        return header.series_instance_uid
    return f"{header.study_instance_uid}\t{header.series_number}\t{header.modality}\t{header.series_description}"


def _group_series(members: Sequence[Header]) -> Iterator[Group]:
    members, findings = _join_frames_of_reference(members)
    by_key: dict[tuple[str, ...], list[Header]] = defaultdict(list)
    for header, spacing, stack in zip(members, _name_spacings(members), _name_stacks(members), strict=True):
        size = f"{header.rows}x{header.columns}"
        key: tuple[str, ...] = (header.frame_of_reference_uid, size, spacing, _kind(header))
        by_key[key + ((f"stack {stack}",) if stack else ())].append(header)
    if sum(not key[3] for key in by_key) > 1:
        message = "The series has images of several matrices, pixel spacings, stacks or frames of reference."
        findings = (*findings, Finding("SEVERAL_GRIDS", f"{message} Each became a case of its own."))
    for key, images in sorted(by_key.items()):
        images.sort(key=lambda each: (each.position or (), each.sop_instance_uid, each.frame, each.path))
        clusters = [images] if key[3] else _cluster_orientations(images)
        noted = findings
        if len(clusters) > 1:
            message = f"The series has images of {len(clusters)} orientations; each became a case of its own."
            noted = (*findings, Finding("SEVERAL_ORIENTATIONS", message))
        for index, cluster in enumerate(clusters):
            yield Group("\n".join([*key, str(index)]), tuple(cluster), noted)


def _join_frames_of_reference(headers: Sequence[Header]) -> tuple[Sequence[Header], tuple[Finding, ...]]:
    """Images that all claim a frame of reference of their own have none: some systems make a new UID per image.

    Source:
        DICOM PS3.3 section C.7.4.1.1.1: all images of a series that share positions share the UID.
    """
    images = {(header.sop_instance_uid, header.frame) for header in headers}
    uids = {header.frame_of_reference_uid for header in headers}
    if len(images) < 3 or len(uids) < len(images):
        return headers, ()
    message = f"Each of the {len(uids)} images names another Frame of Reference; they were taken as one stack."
    bare = [replace(header, frame_of_reference_uid="") for header in headers]
    return bare, (Finding("FRAMES_OF_REFERENCE", message),)


def _name_spacings(headers: Sequence[Header]) -> list[str]:
    """The pixel spacing of each image as text, equal for images whose spacings are nearly equal."""
    names: dict[tuple[float, ...], str] = {(): ""}
    founders: list[tuple[float, ...]] = []
    for spacing in sorted({header.pixel_spacing or () for header in headers}):
        near = (each for each in founders if np.allclose(spacing, each, rtol=SPACING_CLUSTER, atol=0))
        founder = next(near, spacing) if spacing else spacing
        if founder is spacing and spacing:
            founders.append(spacing)
        names[spacing] = "/".join(f"{value:.4f}" for value in founder)
    return [names[header.pixel_spacing or ()] for header in headers]


def _name_stacks(headers: Sequence[Header]) -> list[str]:
    """The stack of each frame, where the frames of a file are organised into several stacks of several frames."""
    index = SPLIT_NAMES.index("StackID")
    stacks = [header.attributes[index] if header.frame > 0 else "" for header in headers]
    counts = Counter(stacks)
    return stacks if len(counts) > 1 and min(counts.values()) > 1 else [""] * len(stacks)


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
    return [part for cluster in clusters for part in _part_turned(cluster)]


def _part_turned(cluster: list[Header]) -> list[list[Header]]:
    """Stacks that are turned by less, such as those through the disks of a spine, if each has several slices."""
    parts: dict[int, list[Header]] = {}
    founders: list[np.ndarray] = []
    for header in cluster:
        at = np.array(header.orientation)
        number = next((i for i, each in enumerate(founders) if np.abs(at - each).max() <= TURNED), None)
        if number is None:
            number = len(founders)
            founders.append(at)
        parts.setdefault(number, []).append(header)
    return list(parts.values()) if min(map(len, parts.values())) >= MIN_SLICES else [cluster]


def _check_kind(group: Group) -> None:
    first = group.headers[0]
    kind = _kind(first)
    if kind == "NO_GEOMETRY" and first.flaw and first.flaw[0] == "BAD_GEOMETRY":
        raise RefusedError(kind, f"{first.path.name} {first.flaw[1]}.", first.flaw[2])
    if kind:
        is_projection = kind == "NO_GEOMETRY" and first.modality in _PROJECTIONS
        remedy = _NO_PLACE if is_projection else _REMEDIES[kind]
        frames = f" for {first.frames} frames" if first.frames > 1 and kind == "NO_GEOMETRY" else ""
        raise RefusedError(kind, f"{name_files(group.headers)}: {_WORDS[kind]}{frames}.", remedy)
    flawed = [header for header in group.headers if header.flaw]
    if flawed and flawed[0].flaw:
        code, words, remedy = flawed[0].flaw
        more = f" (and so do {len(flawed) - 1} more images)" if len(flawed) > 1 else ""
        raise RefusedError(code, f"{flawed[0].path.name} {words}{more}.", remedy)


def _drop_copies(group: Group) -> tuple[tuple[Header, ...], tuple[Finding, ...]]:
    """Keep one file of each SOP Instance UID, provided that all files of it hold the same image."""
    by_uid: dict[tuple[str, int], list[Header]] = defaultdict(list)
    for header in group.headers:
        by_uid[header.sop_instance_uid or str(header.path), header.frame].append(header)
    copies = [sorted(each, key=lambda header: header.path) for each in by_uid.values() if len(each) > 1]
    for each in copies:
        same_place = len({(header.position, header.orientation) for header in each}) == 1
        if not same_place or not have_equal_pixels([(header.path, header.frame) for header in each]):
            message = f"{name_files(each)} have one SOP Instance UID but hold different images."
            raise RefusedError(
                "CONFLICTING_DUPLICATES", message, "Find out which file is right and leave out the other."
            )
    if not copies:
        return group.headers, ()
    dropped = [header for each in copies for header in each[1:]]
    paths = {header.path for header in dropped}
    message = f"{len(paths)} file(s) are second copies and were left out: {name_files(dropped)}."
    gone = {id(header) for header in dropped}
    kept = tuple(header for header in group.headers if id(header) not in gone)
    return kept, (Finding("DUPLICATE_FILE", message),)
