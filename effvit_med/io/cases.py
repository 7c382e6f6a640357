"""What a folder of files turns out to hold: cases to segment, cases to refuse, files to set aside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from effvit_med.errors import SettingsError
from effvit_med.io.photographs import LUMA, check_colour_weights
from effvit_med.io.spill import SPILL_MB
from effvit_med.volume import Finding, Geometry

Allowance = Literal["gaps", "irregular", "duplicates"]
Photographs = Literal["never", "alone", "always"]


@dataclass(frozen=True)
class ReadOptions:
    """What the user accepts that is refused by default.

    Attributes:
        allow: ``gaps``: slices are missing. The words ``irregular`` (slice distances differ) and ``duplicates`` (one
            slice is there more than once with equal pixels) are known too, and change nothing: such series are read
            anyway. All three are reported as findings.
        spill_mb: a scan of more MiB of voxels is kept in a temporary file instead of in memory; see
            `effvit_med.io.spill`.
        settle_s: files that changed within so many seconds are waited for, as they may still be copied; 0 does not
            wait.
        settle_timeout_s: how long to wait at most; what changes even then is refused as ``STILL_COPIED``.
        photographs: whether pictures (PNG, JPEG, TIFF) are cases: ``never``; ``alone``, where the input holds no DICOM
            and no NIfTI, so that previews beside a scan are none; or ``always``, for a model made for photographs.
        colour_weights: shares of red, green and blue in the one channel of a photograph.

    Raises:
        SettingsError: if ``spill_mb`` or a time is below 0, or the colour weights are not three numbers of sum 1.
    """

    allow: frozenset[Allowance] = frozenset()
    spill_mb: int = SPILL_MB
    settle_s: float = 0.0
    settle_timeout_s: float = 300.0
    photographs: Photographs = "never"
    colour_weights: tuple[float, float, float] = LUMA

    def __post_init__(self) -> None:
        if self.settle_s < 0 or self.settle_timeout_s < 0:
            raise SettingsError(f"settle_s is {self.settle_s}, settle_timeout_s {self.settle_timeout_s}; 0 or more.")
        if self.spill_mb < 0:
            raise SettingsError(f"spill_mb is {self.spill_mb}; give 0 or more MiB.")
        check_colour_weights(self.colour_weights)


@dataclass(frozen=True)
class DicomSeries:
    """Images of a DICOM series that make one volume; their pixels are not read yet.

    Attributes:
        case_id: unique in its input and safe as a folder name: modality, series number, digest of the UIDs.
        files: the file of each slice, ordered by position along the normal (row direction x column direction); a
            multi-frame file stands there once for each of its slices.
        sop_instance_uids: SOP Instance UID of each file.
        geometry: where the voxels lie; the array axes are slice, row, column.
        modality: DICOM Modality (0008,0060); empty if the files do not say.
        study_instance_uid: DICOM Study Instance UID (0020,000D).
        series_instance_uid: DICOM Series Instance UID (0020,000E).
        series_description: DICOM Series Description (0008,103E); may hold free text that a person wrote.
        findings: what the headers show that the user should know.
        frames: the number of the frame of each slice in its file, from 1; 0 for a file that is one image; -1, -2,
            ... for the tiles of a Siemens mosaic. Empty means 0 for all.
        identity_removed: whether every file says Patient Identity Removed YES (0012,0062).
    """

    case_id: str
    files: tuple[Path, ...]
    sop_instance_uids: tuple[str, ...]
    geometry: Geometry
    modality: str
    study_instance_uid: str
    series_instance_uid: str
    series_description: str
    findings: tuple[Finding, ...] = ()
    frames: tuple[int, ...] = ()
    identity_removed: bool = False

    @property
    def images(self) -> tuple[tuple[Path, int], ...]:
        """The file and the frame number of each slice."""
        return tuple(zip(self.files, self.frames or (0,) * len(self.files), strict=True))


@dataclass(frozen=True)
class NiftiFile:
    """A NIfTI file that holds one volume.

    Attributes:
        case_id: its file name without ``.nii`` or ``.nii.gz``, made unique and safe as a folder name.
        path: the file.
        geometry: where the voxels lie, as its header says.
        findings: what the header shows that the user should know.
    """

    case_id: str
    path: Path
    geometry: Geometry
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class PhotographFile:
    """A picture of one plane: PNG, JPEG or TIFF.

    Attributes:
        case_id: its file name without the ending, made unique and safe as a folder name.
        path: the file.
        geometry: where the pixels lie; see `effvit_med.io.photographs`.
        findings: what the header shows that the user should know.
    """

    case_id: str
    path: Path
    geometry: Geometry
    findings: tuple[Finding, ...] = ()


Case = DicomSeries | NiftiFile | PhotographFile
"""What can be read as one volume."""


@dataclass(frozen=True)
class SetAside:
    """A file that is no image to segment.

    Attributes:
        path: the file.
        code: a short word: ``TEXT``, ``EMPTY_FILE``, ``GIT_LFS_POINTER``, ``NOT_AN_IMAGE``, ``LOCALIZER``, ...
        reason: one sentence.
        series_instance_uid: of a DICOM object; empty otherwise.
        modality: of a DICOM object; empty otherwise.
    """

    path: Path
    code: str
    reason: str
    series_instance_uid: str = ""
    modality: str = ""


@dataclass(frozen=True)
class RefusedCase:
    """Images that belong together but must not be segmented as they are.

    Attributes:
        case_id: as of `DicomSeries`.
        code: a short word: ``MISSING_SLICES``, ``NO_GEOMETRY``, ``CONFLICTING_DUPLICATES``, ...
        message: what is wrong, with values, positions and file names.
        remedy: what the user can do about it.
        files: what was refused.
        series_instance_uid: as of `DicomSeries`.
        modality: as of `DicomSeries`.
        is_dicom: whether these are DICOM images.
    """

    case_id: str
    code: str
    message: str
    remedy: str
    files: tuple[Path, ...] = ()
    series_instance_uid: str = ""
    modality: str = ""
    is_dicom: bool = True


@dataclass(frozen=True)
class Found:
    """All that an input holds.

    Attributes:
        cases: to segment, in a stable order.
        refused: readable but not safe to segment.
        set_aside: every other file, each with its reason.
    """

    cases: tuple[Case, ...]
    refused: tuple[RefusedCase, ...]
    set_aside: tuple[SetAside, ...]

    def count_set_aside(self) -> str:
        """How many files were set aside and why, such as ``3 text files, 1 localizer``; empty if none was."""
        counts = Counter(each.code for each in self.set_aside)
        return ", ".join(f"{number} {_plural(_WORDS[code], number)}" for code, number in counts.most_common())


_WORDS = {
    "DICOMDIR": "DICOM directory file",
    "EMPTY_FILE": "empty file",
    "GIT_LFS_POINTER": "Git LFS pointer",
    "LABEL_MAP": "label map",
    "LOCALIZER": "localizer",
    "MISSING_FILE": "missing file",
    "NOT_AN_IMAGE": "DICOM object that is no image",
    "NOT_A_FILE": "link or device that is no file",
    "NOT_GRAYSCALE": "colour image",
    "OWN_RESULT": "result picture",
    "PHOTOGRAPH": "photograph",
    "SECONDARY_CAPTURE": "secondary capture",
    "STILL_COPIED": "half copied file",
    "TEXT": "text file",
    "UNKNOWN_FORMAT": "file of another format",
    "UNREADABLE": "unreadable file",
}


def _plural(words: str, number: int) -> str:
    if number == 1:
        return words
    noun, separator, rest = words.partition(" that is ")
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return plural + separator.replace("is", "are") + rest
