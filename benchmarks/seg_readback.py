"""A DICOM SEG as another program reads it, held against the source files and the labels that were meant."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom

from effvit_med.volume import LabelTable, Segmentation

CHECKER = "dciodvfy"
KNOWN_COMPLAINTS = ("Information Object Not found", "SegmentNumber")
"""What the dciodvfy of 2022 says of every LABELMAP: it does not know the object, nor the segment number 0 in it."""

TOLERANCE_MM = 0.01

Labels = npt.NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class ReadBack:
    """What another program found in a file.

    Attributes:
        segments: how many structures.
        frames: how many frames.
        labelled_voxels: how many voxels the labels have.
        wrong_voxels: how many differ from the labels.
        max_distance_mm: the largest distance of a corner of a frame from the same corner of its source slice.
        same_frame_of_reference: whether it names the frame of reference of every source slice.
    """

    segments: int
    frames: int
    labelled_voxels: int
    wrong_voxels: int
    max_distance_mm: float
    same_frame_of_reference: bool

    @property
    def is_right(self) -> bool:
        """Every voxel right, every frame within 0.01 mm of its slice, the frame of reference the same."""
        return self.wrong_voxels == 0 and self.max_distance_mm <= TOLERANCE_MM and self.same_frame_of_reference


@dataclass(frozen=True)
class Complaints:
    """What the independent checker dciodvfy says.

    Attributes:
        errors: how many lines begin with Error, without those below.
        known: how many of the two known complaints about LABELMAP.
        inherited: how many quote a UID of the source, which a segmentation must repeat as it is.
    """

    errors: int
    known: int
    inherited: int

    def to_text(self) -> str:
        """A cell of a table."""
        return f"{self.errors} ({self.known}, {self.inherited})"


def read_back(path: Path, segmentation: Segmentation) -> ReadBack:
    """Read a SEG with highdicom and the source slices with pydicom, and compare; nothing of ours is used.

    Args:
        path: the file.
        segmentation: what was written; its source files must still be there.

    Raises:
        ValueError: if the segmentation has no source files.
    """
    source = segmentation.provenance.source
    if source is None:
        raise ValueError("a SEG can only be compared with a segmentation that has source files")
    slices = [pydicom.dcmread(file.path, force=True, stop_before_pixels=True) for file in source.files]
    seg = hd.seg.segread(path)
    found = _read_labels(seg, [str(each.SOPInstanceUID) for each in slices], segmentation.table)
    return ReadBack(
        segments=len([number for number in seg.segment_numbers if number > 0]),
        frames=int(seg.NumberOfFrames),
        labelled_voxels=int(np.count_nonzero(segmentation.labels)),
        wrong_voxels=int(np.count_nonzero(found != segmentation.labels)),
        max_distance_mm=_max_distance_mm(seg, {str(each.SOPInstanceUID): each for each in slices}),
        same_frame_of_reference=all(
            each.get("FrameOfReferenceUID", seg.FrameOfReferenceUID) == seg.FrameOfReferenceUID for each in slices
        ),
    )


def _read_labels(seg: Any, uids: Sequence[str], table: LabelTable) -> Labels:
    """The label of each voxel of each source slice; a structure is known by its name, not by its number."""
    pixels = seg.get_pixels_by_source_instance(
        uids, segment_numbers=(numbers := list(seg.segment_numbers)), assert_missing_frames_are_empty=True
    )
    labels = np.zeros(pixels.shape[:3], np.uint16)
    for column, number in enumerate(numbers):
        if number > 0:
            labels[pixels[..., column] > 0] = table.by_name(seg.get_segment_description(number).SegmentLabel).value
    return labels


def _max_distance_mm(seg: Any, source: dict[str, Any]) -> float:
    """Over all frames and their four corners.

    Raises:
        KeyError: if a frame names a source that is not there.
    """
    shared = seg.SharedFunctionalGroupsSequence[0]
    worst = 0.0
    for frame in seg.PerFrameFunctionalGroupsSequence:
        uid = str(frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        place = _group(frame, shared, "PlanePositionSequence")
        direction = _group(frame, shared, "PlaneOrientationSequence")
        size = _group(frame, shared, "PixelMeasuresSequence")
        ours = corners_mm(
            place.ImagePositionPatient, direction.ImageOrientationPatient, size.PixelSpacing, (seg.Rows, seg.Columns)
        )
        image = source[uid]
        theirs = corners_mm(
            image.ImagePositionPatient, image.ImageOrientationPatient, image.PixelSpacing, (image.Rows, image.Columns)
        )
        worst = max(worst, float(np.linalg.norm(ours - theirs, axis=1).max()))
    return worst


def corners_mm(
    position: Sequence[float], orientation: Sequence[float], spacing: Sequence[float], size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """The (4, 3) centres of the corner pixels of an image in the patient.

    Args:
        position: Image Position (Patient), mm.
        orientation: Image Orientation (Patient): direction along a row, then along a column.
        spacing: Pixel Spacing: between rows, then between columns, mm.
        size: rows, columns.

    Source:
        DICOM PS3.3 section C.7.6.2.1.1 (equation C.7.6.2.1-1).

    Examples:
        >>> corners_mm([0, 0, 5], [1, 0, 0, 0, 1, 0], [2, 3], (2, 3))[-1].tolist()
        [6.0, 2.0, 5.0]
    """
    cosines, (between_rows, between_columns) = np.array(orientation, np.float64), map(float, spacing)
    along_row, along_column = cosines[:3] * between_columns, cosines[3:] * between_rows
    ends = [(row, column) for row in (0, size[0] - 1) for column in (0, size[1] - 1)]
    return np.array([np.array(position, np.float64) + row * along_column + column * along_row for row, column in ends])


def _group(frame: Any, shared: Any, name: str) -> Any:
    """A functional group, of the frame itself or of all frames."""
    return getattr(frame if name in frame else shared, name)[0]


def check_conformance(path: Path, segmentation: Segmentation) -> Complaints | None:
    """What dciodvfy says of a file; None where it is not installed.

    Args:
        path: the file.
        segmentation: what was written.
    """
    if shutil.which(CHECKER) is None:
        return None
    done = subprocess.run([CHECKER, str(path)], capture_output=True, text=True, errors="replace", check=False)
    is_labelmap = pydicom.dcmread(path).SegmentationType == "LABELMAP"
    source = segmentation.provenance.source
    uids = [file.sop_instance_uid for file in source.files] if source else []
    uids += [source.study_instance_uid, source.series_instance_uid] if source else []
    frame = segmentation.geometry.frame_of_reference_uid
    return sort_complaints(done.stdout + done.stderr, {uid for uid in (*uids, frame) if uid}, is_labelmap=is_labelmap)


def sort_complaints(text: str, source_uids: Collection[str] = (), *, is_labelmap: bool) -> Complaints:
    r"""Errors in what dciodvfy printed, with those that are known or inherited counted apart.

    Args:
        text: what it printed.
        source_uids: UIDs of the source.
        is_labelmap: whether the file is a LABELMAP.

    Examples:
        >>> sort_complaints("Error - Information Object Not found\nWarning - x", is_labelmap=True)
        Complaints(errors=0, known=1, inherited=0)
    """
    errors = [line for line in text.splitlines() if line.startswith("Error")]
    known = [line for line in errors if is_labelmap and any(words in line for words in KNOWN_COMPLAINTS)]
    inherited = [line for line in errors if line not in known and _quoted(line) & set(source_uids)]
    return Complaints(len(errors) - len(known) - len(inherited), len(known), len(inherited))


def _quoted(line: str) -> set[str]:
    """Everything between double quotes."""
    return set(line.split('"')[1::2])
