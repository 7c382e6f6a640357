"""What an input holds and whether it can be used, told without segmenting anything."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from effvit_med.errors import InputError, RefusedError
from effvit_med.io.cases import Case, DicomSeries, Found, NiftiFile, ReadOptions, SetAside
from effvit_med.io.find import open_input
from effvit_med.io.read import read_case
from effvit_med.volume import Finding, Geometry

Status = Literal["read", "findings", "refused"]

_IMAGES = frozenset({"LOCALIZER", "NOT_GRAYSCALE", "SECONDARY_CAPTURE"})  # set aside, but series of images


@dataclass(frozen=True)
class VolumeEntry:
    """One volume that an input would make, or the reason why it makes none.

    Attributes:
        case_id: as of `effvit_med.io.find.DicomSeries`.
        status: ``read``, ``findings`` or ``refused``.
        geometry: its grid; None if refused.
        files: how many files it is made of.
        findings: what the user should know, or the one reason for the refusal.
        remedy: what can be done about a refusal; empty otherwise.
    """

    case_id: str
    status: Status
    geometry: Geometry | None
    files: int
    findings: tuple[Finding, ...]
    remedy: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        grid = self.geometry
        return {
            "case_id": self.case_id,
            "status": self.status,
            "codes": _codes(self.findings),
            "shape": list(grid.shape) if grid else None,
            "spacing_mm": list(grid.spacing_mm) if grid else None,
            "affine_lps": grid.affine.tolist() if grid else None,
            "slice_offsets": list(grid.slice_offsets) if grid and grid.slice_offsets else None,
            "files": self.files,
            "messages": [finding.message for finding in self.findings],
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Entry:
    """One series of an input, or one file of it that belongs to none.

    Attributes:
        kind: ``series`` (DICOM images) or ``file`` (NIfTI, a photograph, or a file that is no image).
        name: of the file without its folder, or the case id of a series' first volume.
        modality: such as ``CT``; empty if unknown.
        volumes: what it would make, in a stable order; at least one.
    """

    kind: Literal["series", "file"]
    name: str
    modality: str
    volumes: tuple[VolumeEntry, ...]

    @property
    def status(self) -> Status:
        """``refused`` if no volume can be read, ``findings`` if there is anything to say, else ``read``."""
        states = {volume.status for volume in self.volumes}
        return "refused" if states == {"refused"} else "read" if states == {"read"} else "findings"

    @property
    def codes(self) -> list[str]:
        """The codes of all volumes, each once."""
        return _codes([finding for volume in self.volumes for finding in volume.findings])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; one volume's shape, spacing and affine stand alone, those of several in lists."""
        plain = [volume.to_dict() for volume in self.volumes]
        good = [volume for volume in plain if volume["status"] != "refused"]

        def gather(key: str) -> Any:
            return None if not good else good[0][key] if len(good) == 1 else [volume[key] for volume in good]

        return {
            "kind": self.kind,
            "name": self.name,
            "status": self.status,
            "codes": self.codes,
            "shape": gather("shape"),
            "spacing_mm": gather("spacing_mm"),
            "affine_lps": gather("affine_lps"),
            "modality": self.modality,
            "files": sum(volume.files for volume in self.volumes),
            "messages": list(dict.fromkeys(message for volume in plain for message in volume["messages"])),
            "remedy": " ".join(dict.fromkeys(volume.remedy for volume in self.volumes if volume.remedy)),
            "volumes": plain,
        }


def inspect_input(
    path: Path,
    options: ReadOptions | None = None,
    *,
    pixels: bool = False,
    on_file: Callable[[int], None] | None = None,
) -> tuple[Entry, ...]:
    """Tell of each series and file of an input whether it can be read, and which volumes it would make.

    Args:
        path: a folder, a file or a zip archive.
        options: what the user accepts that is refused by default.
        pixels: decode the pixels too, so that damage within them shows.
        on_file: called with the number of files looked at so far.

    Returns:
        One entry per series, and one per file that belongs to none; series first.

    Raises:
        InputError: if the path does not exist or cannot be read.
        OutputError: if ``pixels`` needs a temporary file that does not fit onto its disk.
    """
    options = options or ReadOptions()
    with open_input(path, options, needs_images=False, on_file=on_file) as found:
        return _describe(found, options, pixels=pixels)


def _describe(found: Found, options: ReadOptions, *, pixels: bool) -> tuple[Entry, ...]:
    series: dict[str, list[tuple[VolumeEntry, str]]] = defaultdict(list)
    entries: list[Entry] = []
    for case in found.cases:
        volume = _describe_case(case, options, pixels=pixels)
        if isinstance(case, DicomSeries):
            series[case.series_instance_uid or case.case_id].append((volume, case.modality))
        else:
            entries.append(Entry("file", case.path.name, "", (volume,)))
    for refused in found.refused:
        finding = Finding(refused.code, refused.message)
        volume = VolumeEntry(refused.case_id, "refused", None, len(refused.files), (finding,), refused.remedy)
        if refused.is_dicom:
            series[refused.series_instance_uid or refused.case_id].append((volume, refused.modality))
        else:
            entries.append(Entry("file", refused.files[0].name, "", (volume,)))
    left: dict[str, list[SetAside]] = defaultdict(list)
    for aside in found.set_aside:
        if not aside.series_instance_uid or aside.code not in _IMAGES:
            entries.append(Entry("file", aside.path.name, _word(aside.modality), (_describe_aside([aside]),)))
        elif aside.series_instance_uid not in series:  # else it is among that series' findings
            left[aside.series_instance_uid].append(aside)
    entries.extend(
        Entry("series", members[0].path.name, _word(members[0].modality), (_describe_aside(members),))
        for members in left.values()
    )
    made = [_join(members) for members in series.values()]
    return tuple(sorted([*made, *entries], key=lambda entry: (entry.kind == "file", entry.name)))


def _describe_case(case: Case, options: ReadOptions, *, pixels: bool) -> VolumeEntry:
    files = len(set(case.files)) if isinstance(case, DicomSeries) else 1
    findings = case.findings
    if pixels:
        try:
            source = read_case(case, options).source
        except RefusedError as error:
            finding = Finding(error.code, error.message)
            return VolumeEntry(case.case_id, "refused", None, files, (finding,), error.remedy)
        except InputError as error:
            return VolumeEntry(case.case_id, "refused", None, files, (Finding("UNREADABLE_PIXELS", str(error)),))
        findings = source.findings if source else findings
    if isinstance(case, NiftiFile):  # no NIfTI file says its modality, which the empty modality shows already
        findings = tuple(finding for finding in findings if finding.code != "NO_MODALITY")
    return VolumeEntry(case.case_id, "findings" if findings else "read", case.geometry, files, findings)


def _describe_aside(members: Sequence[SetAside]) -> VolumeEntry:
    findings = tuple(dict.fromkeys(Finding(aside.code, aside.reason) for aside in members))
    remedy = "Nothing: it is left out." if members[0].code in _IMAGES else ""
    return VolumeEntry("", "refused", None, len(members), findings, remedy)


def _join(members: Sequence[tuple[VolumeEntry, str]]) -> Entry:
    volumes = sorted((volume for volume, _ in members), key=lambda volume: volume.case_id)
    return Entry("series", volumes[0].case_id, _word(members[0][1]), tuple(volumes))


def _codes(findings: Sequence[Finding]) -> list[str]:
    return list(dict.fromkeys(finding.code for finding in findings))


def _word(text: str) -> str:
    """A modality as the standard writes them; empty for anything else, which may be a name."""
    return text if re.fullmatch(r"[A-Z0-9]{1,16}", text) else ""
