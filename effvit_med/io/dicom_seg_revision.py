"""What a DICOM segmentation says when a person has reviewed it: what was edited, and which segmentation came before."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.codedict import codes

from effvit_med.errors import InputError, OutputError

SEGMENTATION_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of segmentations: Segmentation Storage, Label Map Segmentation Storage."""


@dataclass(frozen=True)
class Predecessor:
    """The segmentation that a reviewed one was made from.

    Attributes:
        sop_class_uid: its class.
        sop_instance_uid: its object.
        series_instance_uid: its series.
        study_instance_uid: its study.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


@dataclass(frozen=True)
class Revision:
    """How a segmentation differs from the automatic one.

    Attributes:
        mark: what sets this version apart from all others of the same run, such as the times of its first and
            last change; the UIDs follow from it.
        edited: the label values that a person changed; their segments are SEMIAUTOMATIC, all others AUTOMATIC.
        predecessor: the automatic segmentation, if there is a file of it.
    """

    mark: str
    edited: frozenset[int] = field(default_factory=frozenset)
    predecessor: Predecessor | None = None

    def identify(self) -> tuple[str, ...]:
        """What the UIDs follow from beside the run and the labels."""
        before = self.predecessor.sop_instance_uid if self.predecessor else ""
        return ("revision", self.mark, ",".join(map(str, sorted(self.edited))), before)


def read_predecessor(path: Path) -> Predecessor:
    """What names a DICOM segmentation file; its pixels are not read.

    Args:
        path: the file.

    Raises:
        InputError: if it cannot be read, or is no segmentation.
    """
    names = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(names))
        values = tuple(str(dataset[name].value) for name in names)
    except (OSError, InvalidDicomError, KeyError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error  # a path may hold a name
        raise InputError(f"{path.name} cannot be read as a DICOM segmentation: {reason}.") from error
    if values[0] not in SEGMENTATION_CLASSES:
        raise InputError(f"{path.name} is no DICOM segmentation; its SOP class is {values[0]}.")
    return Predecessor(*values)


def refer_to_predecessor(dataset: Dataset, predecessor: Predecessor) -> None:
    """Name the segmentation before as what this one was derived from.

    Args:
        dataset: the new segmentation; changed in place.
        predecessor: the one before.

    Raises:
        OutputError: if that is of another study, or the same object.

    Source:
        DICOM PS3.3 section C.7.6.1.1.4 and table C.12-8 (Source Image Sequence, General Reference Module); section
        C.12.2 (Common Instance Reference Module); PS3.16 CID 7202.
    """
    if predecessor.study_instance_uid != dataset.StudyInstanceUID:
        raise OutputError("The segmentation that was reviewed belongs to another study than the scan; leave it out.")
    if predecessor.sop_instance_uid == dataset.SOPInstanceUID:
        raise OutputError("The segmentation that was reviewed is this very one; there is nothing new to be written.")
    reference = Dataset()
    reference.ReferencedSOPClassUID = predecessor.sop_class_uid
    reference.ReferencedSOPInstanceUID = predecessor.sop_instance_uid
    series = Dataset()
    series.ReferencedInstanceSequence = [Dataset(reference)]
    series.SeriesInstanceUID = predecessor.series_instance_uid
    dataset.ReferencedSeriesSequence = [*dataset.ReferencedSeriesSequence, series]
    purpose: Any = codes.DCM.SourceImageForImageProcessingOperation
    reference.PurposeOfReferenceCodeSequence = [CodedConcept.from_code(purpose)]
    dataset.SourceImageSequence = [*dataset.get("SourceImageSequence", []), reference]
