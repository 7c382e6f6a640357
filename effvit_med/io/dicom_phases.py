"""Several images at one position: copies, or phases, echoes and b-values that are volumes of their own."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from effvit_med.errors import RefusedError
from effvit_med.io.dicom_header import SPLIT_NAMES, Header
from effvit_med.io.dicom_pixels import have_equal_pixels
from effvit_med.io.dicom_slices import SAME_POSITION_MM, common_orientation, distances_along_normal
from effvit_med.volume import Finding

GAP_STEPS = 1.5
"""A part of a series has no gap if no two of its slices lie farther apart than so many common steps."""

MIN_SLICES = 3
"""A volume that lacks some positions of its series has at least so many slices; fewer are stray images."""

_Label = tuple[str, ...]
_PRIVATE = ("Date", "AcquisitionTime", "ContentTime", "Description")  # no message holds a date or free text
_TIMES = (
    "TriggerTime", "NominalCardiacTriggerDelayTime", "TemporalPositionTimeOffset", "FrameReferenceTime",
    "FrameAcquisitionDateTime", "AcquisitionDateTime", "AcquisitionTime",
)  # fmt: skip
_CONTRASTS = (
    "DiffusionBValue", "EchoTime", "EffectiveEchoTime", "InversionTime", "KVP", "ConvolutionKernel", "FlipAngle",
)  # fmt: skip
_TYPES = ("ImageType", "FrameType")  # words of the standard, which a message may hold
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?")
_MAX_NAMES = 3  # attributes tried together
_STEP_TOLERANCE = 0.05  # of a step: slices of a volume are regular within it
_WORD = re.compile(r"[A-Z0-9_]{1,16}")


@dataclass(frozen=True)
class Group:
    """Headers that may make one volume.

    Attributes:
        key: what tells them from the other groups of the series.
        headers: in a stable order that does not depend on file names.
        findings: what was noticed when they were told apart.
        lack: which slices are not there that other volumes of the series have, as a sentence; empty if none.
    """

    key: str
    headers: tuple[Header, ...]
    findings: tuple[Finding, ...] = ()
    lack: str = ""


@dataclass(frozen=True)
class _Places:
    """Where the images of a group lie along their normal.

    Attributes:
        distances: in mm, one per image.
        numbers: the number of its position, one per image.
        count: how many positions there are.
    """

    distances: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.int64]
    count: int


def name_files(headers: Sequence[Header]) -> str:
    """The first three names of their files, and how many more there are."""
    names = sorted({header.path.name for header in headers})
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def split_positions(group: Group) -> list[Group]:
    """One group if each position has one image; else one per volume, if something tells the volumes apart.

    Raises:
        RefusedError: ``CONFLICTING_DUPLICATES`` if nothing does; what `common_orientation` and decoding raise.
    """
    places = _find_places(group.headers)
    if places.count == len(group.headers):
        found = _interleaved(group.headers, places)
        return _split(group, places, *found) if found else [group]
    crowds = [[group.headers[i] for i in np.flatnonzero(places.numbers == place)] for place in range(places.count)]
    crowds = [crowd for crowd in crowds if len(crowd) > 1]
    at = next(float(places.distances[i]) for i, header in enumerate(group.headers) if header is crowds[0][0])
    where = (
        f"{len(crowds)} position(s) hold several images, first {at:.2f} mm along the normal: {name_files(crowds[0])}"
    )
    if all(have_equal_pixels([(header.path, header.frame) for header in crowd]) for crowd in crowds):
        extra = {id(header) for crowd in crowds for header in sorted(crowd, key=_copy_order)[1:]}
        kept = tuple(header for header in group.headers if id(header) not in extra)
        finding = Finding("DUPLICATE_POSITION", f"{where}; their pixels are equal and one of each was kept.")
        return [replace(group, headers=kept, findings=(*group.findings, finding))]
    labels = _tell_volumes_apart(group.headers, places)
    if labels is None:
        differing = _name_differences(crowds[0])
        message = f"{where}; their pixels differ, and no attribute splits the series into volumes{differing}."
        raise RefusedError(
            "CONFLICTING_DUPLICATES", message, "Export each phase, echo or b-value as a series of its own."
        )
    return _split(group, places, *labels)


def _interleaved(headers: Sequence[Header], places: _Places) -> tuple[str, list[_Label]] | None:
    """What tells volumes apart whose slices lie between one another, each regular and over the same range."""
    for name in _CONTRASTS:
        column = SPLIT_NAMES.index(name)
        labels: list[_Label] = [(header.attributes[column],) for header in headers]
        counts = Counter(labels)
        if not len(counts) > 1 or min(counts.values()) < MIN_SLICES:
            continue
        parts = [np.sort(places.distances[[each == label for each in labels]]) for label in counts]
        steps = [np.diff(part) for part in parts]
        step = float(np.median(steps[0]))
        regular = all(np.abs(each - step).max() <= _STEP_TOLERANCE * step for each in steps)
        if regular and max(part[0] for part in parts) < min(part[-1] for part in parts):
            return name, labels
    return None


def _find_places(headers: Sequence[Header]) -> _Places:
    distances = distances_along_normal(headers, common_orientation(headers))
    order = np.argsort(distances, kind="stable")
    numbers = np.zeros(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(np.concatenate([[0], np.diff(distances[order]) > SAME_POSITION_MM]))
    return _Places(distances, numbers, int(numbers.max()) + 1)


def _copy_order(header: Header) -> tuple[str, int, str]:
    return header.sop_instance_uid, header.frame, str(header.path)


def _tell_volumes_apart(headers: Sequence[Header], places: _Places) -> tuple[str, list[_Label]] | None:
    """What splits the images into volumes, and the volume of each image; None if nothing does.

    Volumes that each have every position are looked for first; then those of which some are incomplete.
    """
    if places.count < 2:
        return None
    for name, labels in _name_labels(headers):
        if len(set(labels)) * places.count == len(headers) and _has_no_crowd(labels, places):
            return name, labels
    ranked = _time_ranks(headers, places)
    if ranked is not None:
        return ranked
    runs = _number_runs(headers, places)
    if runs is not None:
        return "the order of InstanceNumber", runs
    fewest = max(Counter(places.numbers.tolist()).values())
    for name, labels in _name_labels(headers):
        counts = Counter(labels).values()
        short, whole = sum(count < MIN_SLICES for count in counts), sum(count == places.count for count in counts)
        if short and not (short == 1 and whole >= 2):  # a stray image is a conflict, a last volume cut short is none
            continue
        if (len(set(labels)) == fewest or _have_no_gaps(labels, places)) and _has_no_crowd(labels, places):
            return name, labels
    return None


def _name_labels(headers: Sequence[Header]) -> Iterator[tuple[str, list[_Label]]]:
    """What attributes say of each image: one, two or three of those that differ between images, best first."""
    columns = {name: [header.attributes[i] for header in headers] for i, name in enumerate(SPLIT_NAMES)}
    varying = [name for name, values in columns.items() if 1 < len(set(values)) < len(values)]
    for size in range(1, _MAX_NAMES + 1):
        for names in itertools.combinations(varying, size):
            yield " and ".join(names), list(zip(*(columns[name] for name in names), strict=True))


def _has_no_crowd(labels: Sequence[_Label], places: _Places) -> bool:
    """Whether no label has a position twice."""
    return len(set(zip(labels, places.numbers.tolist(), strict=True))) == len(labels)


def _have_no_gaps(labels: Sequence[_Label], places: _Places) -> bool:
    """Whether the slices of each label are no farther apart than all positions are together."""
    step = float(np.median(np.diff(np.unique(places.distances.round(3)))))
    by_label: dict[_Label, list[float]] = defaultdict(list)
    for label, distance in zip(labels, places.distances.tolist(), strict=True):
        by_label[label].append(distance)
    return all(float(np.diff(sorted(part)).max()) <= GAP_STEPS * step for part in by_label.values())


def _time_ranks(headers: Sequence[Header], places: _Places) -> tuple[str, list[_Label]] | None:
    """The first, second, ... image in time at each position, where each position has as many.

    A heart that is scanned slice by slice beats a little faster or slower in each, so its phases share no time.
    """
    if len(headers) % places.count:
        return None
    for name in _TIMES:
        column = SPLIT_NAMES.index(name)
        times = [header.attributes[column] for header in headers]
        if not all(_NUMBER.fullmatch(time) for time in times):
            continue
        order = sorted(range(len(times)), key=lambda index: (places.numbers[index], float(times[index])))
        size = len(headers) // places.count
        runs = [order[start : start + size] for start in range(0, len(order), size)]
        if any(len({places.numbers[i] for i in run}) > 1 or len({float(times[i]) for i in run}) < size for run in runs):
            continue
        ranks = {index: rank for run in runs for rank, index in enumerate(run)}
        return f"the order of {name} at each position", [(str(ranks[i] + 1),) for i in range(len(times))]
    return None


def _number_runs(headers: Sequence[Header], places: _Places) -> list[_Label] | None:
    """Runs of Instance Number that each pass every position once."""
    numbers = [header.instance_number for header in headers]
    if None in numbers or len(set(numbers)) < len(numbers) or len(numbers) % places.count:
        return None
    ranks = np.argsort(np.argsort(np.array([float(number or 0) for number in numbers])))
    labels: list[_Label] = [(str(rank // places.count),) for rank in ranks.tolist()]
    return labels if _has_no_crowd(labels, places) else None


def _split(group: Group, places: _Places, name: str, labels: Sequence[_Label]) -> list[Group]:
    parts: dict[_Label, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        parts[label].append(index)
    longest = max(len(members) for members in parts.values())
    groups: list[Group] = []
    private = any(each in name for each in _PRIVATE)
    ordered = sorted(parts.items(), key=lambda item: _natural_order(item[0]))
    for number, (label, members) in enumerate(ordered, start=1):
        value = ", ".join(part or "absent" for part in label)
        told = not private and all(_may_tell(name, part) for part in label)
        which = f"the one of {value}" if told else f"number {number}"
        message = f"The series holds {len(parts)} volumes, told apart by {name}; this is {which}."
        lack = ""
        if len(members) < longest == places.count and not _are_thicker(group, places, members):
            lack = f"{longest - len(members)} of {longest} slices are missing that other volumes of the series have."
        headers = tuple(group.headers[index] for index in members)
        findings = (*group.findings, Finding("SPLIT", message))
        groups.append(Group(f"{group.key}\n{name}\n{value}", headers, findings, lack))
    return groups


def _are_thicker(group: Group, places: _Places, members: Sequence[int]) -> bool:
    """Whether fewer slices are not missing but farther apart, and as much thicker, over the same range."""
    at = np.sort(places.distances[list(members)])
    thickness = [group.headers[index].slice_thickness or 0.0 for index in members]
    step = float(np.median(np.diff(at))) if len(at) > 1 else 0.0
    whole = float(np.ptp(places.distances))
    regular = len(at) > 2 and np.abs(np.diff(at) - step).max() <= _STEP_TOLERANCE * step
    others = min(header.slice_thickness or 0.0 for header in group.headers)
    return bool(regular and whole - np.ptp(at) < step and others < 0.75 * min(thickness))


def _may_tell(name: str, value: str) -> bool:
    """Whether a message may hold a value: a number is no name; nor are the words of a type."""
    word = _WORD if name in _TYPES else _NUMBER
    return all(word.fullmatch(each) for each in value.split("\\") if each)


def _natural_order(label: _Label) -> tuple[tuple[float, str], ...]:
    return tuple((float(part) if _NUMBER.fullmatch(part) else float("inf"), part) for part in label)


def _name_differences(crowd: Sequence[Header]) -> str:
    differing = [
        name
        for name, values in zip(SPLIT_NAMES, zip(*(header.attributes for header in crowd), strict=True), strict=True)
        if len(set(values)) > 1
    ]
    return f" (they differ in {', '.join(differing)})" if differing else ""
