"""The frames of a multi-frame source, each as the header of a slice of its own."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from effvit_med.errors import InputError

_OF_THE_FRAME = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
}


@dataclass(frozen=True, eq=False)
class Multiframe:
    """The header of a multi-frame file.

    Attributes:
        name: of the file, for messages.
        header: all of it but the pixels.
    """

    name: str
    header: Dataset

    def frame(self, number: int) -> Dataset:
        """The header as if the frame were an image of its own: position, direction and size are those of the frame.

        Args:
            number: of the frame, from 1.

        Returns:
            A copy; the sequences of functional groups stay behind.

        Raises:
            InputError: if there is no such frame.

        Source:
            DICOM PS3.3 section C.7.6.16 (Multi-frame Functional Groups): what a frame does not say itself, the shared
            groups say; sections C.7.6.16.2.1, .3 and .4 (Pixel Measures, Plane Position, Plane Orientation).
        """
        groups = self.header.get("PerFrameFunctionalGroupsSequence") or []
        frames = int(self.header.get("NumberOfFrames") or 1)
        if not 1 <= number <= frames:
            raise InputError(f"The source {self.name} has {frames} frames, but frame {number} was segmented.")
        plain = Dataset()
        for element in self.header:
            if element.keyword not in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
                plain.add(copy.copy(element))  # what is set in one frame shall not be set in all
        plain.NumberOfFrames = 1
        shared = self.header.get("SharedFunctionalGroupsSequence") or []
        own = groups[number - 1 : number]
        for sequence, names in _OF_THE_FRAME.items():
            for group in (*shared, *own):  # the frame's own comes last and wins
                for item in group.get(sequence) or []:
                    for name in set(names) & {element.keyword for element in item}:
                        plain.add(copy.copy(item[name]))
        return plain


def read_multiframe(path: Path, sha256: str) -> Multiframe:
    """Read the header of a multi-frame file whose bytes are still those that were segmented.

    Args:
        path: the file.
        sha256: hex digest of its bytes.

    Raises:
        InputError: if the file is gone, has changed or its header cannot be read.
    """
    try:
        with path.open("rb") as file:
            check_digest(path, hashlib.file_digest(file, "sha256").hexdigest(), sha256)
            file.seek(0)
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    except OSError as error:
        raise InputError(_explain_loss(path, error)) from error
    except (InvalidDicomError, EOFError, KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"The source {path.name} has a header that cannot be read: {error}.") from error
    return Multiframe(path.name, header)


def read_again(path: Path, sha256: str) -> bytes:
    """The bytes of a source file, which must be those that were segmented.

    Args:
        path: the file.
        sha256: hex digest of the bytes that were segmented.

    Raises:
        InputError: if the file is gone or has changed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(_explain_loss(path, error)) from error
    check_digest(path, hashlib.sha256(content).hexdigest(), sha256)
    return content


def check_digest(path: Path, found: str, wanted: str) -> None:
    """Make sure that a source file is what was segmented.

    Args:
        path: the file.
        found: hex digest of its bytes.
        wanted: hex digest of the bytes that were segmented.

    Raises:
        InputError: if they differ.
    """
    if found != wanted:
        raise InputError(f"The source {path.name} has changed since it was segmented; segment it again.")


def _explain_loss(path: Path, error: OSError) -> str:
    return (
        f"The source {path.name} cannot be read again: {error.strerror or error}. A DICOM result needs the headers of "
        "its source; put the file back."
    )
