"""Copies of source headers that are fit to build DICOM results on: segmentations, contours, reports.

Real files lack attributes, hold dates that do not exist and round the same direction differently from slice to
slice. The files are never changed; the copies are made valid and every repair is told.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage
from pydicom.valuerep import DA, TM, DSfloat, format_number_as_ds, validate_value

from effvit_med.errors import GeometryError, InputError
from effvit_med.io.dicom_headers import parse_head
from effvit_med.io.dicom_seg_multiframe import read_again, read_multiframe
from effvit_med.volume.geometry import Geometry
from effvit_med.volume.volume import SourceFile

_UID_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/effvit-med/effvit-med")
_PLACES = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_PER_SLICE = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "Rows", "Columns", "NumberOfFrames", "SliceThickness", "SpacingBetweenSlices", *_PLACES,
)  # fmt: skip
_NEVER_EMPTY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
_TAG_OF = {name: Tag(name) for name in {*_PER_SLICE, *_NEVER_EMPTY, *_MAY_BE_EMPTY}}
_WITHOUT_FREE_TEXT = frozenset({
    *_PER_SLICE, *_MAY_BE_EMPTY, "SpecificCharacterSet", "TimezoneOffsetFromUTC", "IssuerOfPatientID", "PatientAge",
    "PatientSize", "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified", "PositionReferenceIndicator",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod", "Manufacturer",
    "ManufacturerModelName", "SoftwareVersions", "BodyPartExamined",
})  # fmt: skip
_NUMBERS = ("SliceThickness", "SpacingBetweenSlices")
_REFERENCES = (*_NEVER_EMPTY, "FrameOfReferenceUID", *_PLACES)  # kept as they are, else they refer to nothing
_OF_THE_IMAGE = ("Acquisition", "Content", "Instance", "Series")  # of the source image and series, never copied
_PATIENT_AND_STUDY_GROUPS = {0x0008, 0x0010, 0x0012, 0x0032, 0x0038}  # of other groups only the names above
_KNOWN_CLASSES = (CTImageStorage, MRImageStorage, PositronEmissionTomographyImageStorage)
_JITTER = 1e-3  # a difference of direction cosines; a thousandth is half a millimetre at the rim of a body
_UNIT_TOLERANCE = 2e-5  # what six decimals cannot do, and viewers would take for a scale
_STEP_TOLERANCE = 0.01  # of a step between slices


@dataclass(frozen=True)
class Reference:
    """What names a source slice.

    Attributes:
        sop_class_uid: the class of its object.
        sop_instance_uid: its object.
        frame: the number of its frame there, from 1; 0 where the object is one image.
    """

    sop_class_uid: str
    sop_instance_uid: str
    frame: int = 0

    def to_dataset(self) -> Dataset:
        """An item of a sequence of referenced images.

        Source:
            DICOM PS3.3 section 10.3 (Image SOP Instance Reference Macro).
        """
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = self.sop_class_uid, self.sop_instance_uid
        if self.frame:
            item.ReferencedFrameNumber = self.frame
        return item


@dataclass(frozen=True)
class Headers:
    """Headers of the source slices, in the order of array axis 0, and what was repaired in them.

    highdicom cannot build on SOP classes that it does not know, such as those of a de-identifier that changed all
    UIDs, nor on slices of one multi-frame object. The headers carry the class of CT, MR or PET, and for a frame an
    instance UID of its own; what is true stands in ``references``.

    Attributes:
        slices: one data set per slice; the first also holds the patient and study attributes.
        notes: one sentence per kind of repair, without patient data.
        references: what names each slice.
    """

    slices: tuple[Dataset, ...]
    notes: tuple[str, ...]
    references: tuple[Reference, ...]

    @property
    def instances(self) -> tuple[Reference, ...]:
        """The source objects, each once, in the order of their first slice."""
        return tuple(dict.fromkeys(replace(each, frame=0) for each in self.references))


def make_uid(*parts: str) -> str:
    """A UID that is the same for the same parts, in the root 2.25.

    Source:
        DICOM PS3.5 section B.2 (UUID derived UID); RFC 9562 section 5.5 (UUID version 5).

    Examples:
        >>> make_uid("a", "b") == make_uid("a", "b"), make_uid("a", "b") == make_uid("ab")
        (True, False)
    """
    return f"2.25.{uuid.uuid5(_UID_NAMESPACE, chr(0).join(parts)).int}"


def read_headers(files: Sequence[SourceFile], geometry: Geometry, *, strip_free_text: bool = False) -> Headers:
    """Read the source headers again and bring copies of them into a valid form.

    Args:
        files: one DICOM file, or frame of a file, per slice, in the order of array axis 0.
        geometry: where the labels lie; array axes slice, row, column.
        strip_free_text: leave out attributes that may hold text about the patient, such as Patient Comments.

    Returns:
        The copies, and a note for each kind of repair.

    Raises:
        InputError: if a file is gone, has changed since it was read, or is no DICOM image with UIDs and the frame.
        GeometryError: if size or frame of reference are not those of ``geometry``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that break the rules are what we come to repair
        notes: list[str] = []
        slices: list[Dataset] = []
        references: list[Reference] = []
        open_multiframe = lru_cache(maxsize=8)(read_multiframe)  # a volume may lie in a few files
        for file in files:
            dataset = open_multiframe(file.path, file.sha256).frame(file.frame) if file.frame else None
            if dataset is None:
                dataset = _read(file, whole=not slices)
            _check_complete(dataset, file)
            _check_agreement(dataset, file, geometry)
            if not slices:
                first = _shared_part(dataset, notes, strip_free_text=strip_free_text)
                _fill(first, notes)
            slices.append(_slice_part(dataset))
            references.append(Reference(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), file.frame))
        _settle_geometry(slices, geometry, notes)
        first.pop("SpacingBetweenSlices", None)
        first.update(slices[0])
        for part, reference in zip((first, *slices[1:]), references, strict=True):
            part.SOPClassUID = part.SOPClassUID if part.SOPClassUID in _KNOWN_CLASSES else CTImageStorage
            if reference.frame:
                part.SOPInstanceUID = make_uid("frame", reference.sop_instance_uid, str(reference.frame))
    return Headers((first, *slices[1:]), tuple(notes), tuple(references))


def _read(file: SourceFile, *, whole: bool) -> Dataset:
    """The header of one file of one image, whose bytes are still those that were segmented."""
    content = read_again(file.path, file.sha256)
    tags = None if whole else list(_PER_SLICE)
    try:
        dataset = parse_head(content, tags)
        if dataset is None:
            dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=True, force=True, specific_tags=tags)
    except (InvalidDicomError, EOFError, KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise InputError(f"The source {file.path.name} has a header that cannot be read: {error}.") from error
    if int(_value(dataset, "NumberOfFrames") or 1) > 1:
        raise InputError(
            f"The source {file.path.name} has {dataset.NumberOfFrames} frames, and it is not known which of them was "
            "segmented; write NIfTI, or split the file into single slices first."
        )
    return dataset


def _check_complete(dataset: Dataset, file: SourceFile) -> None:
    missing = [name for name in (*_NEVER_EMPTY, *_PLACES, "Rows", "Columns") if _value(dataset, name) is None]
    if missing:
        raise InputError(
            f"The source {file.path.name} has no valid {', '.join(missing)}; a DICOM result refers to them."
        )


def _check_agreement(dataset: Dataset, file: SourceFile, geometry: Geometry) -> None:
    if (dataset.Rows, dataset.Columns) != geometry.shape[1:]:
        raise GeometryError(
            f"The source {file.path.name} has {dataset.Rows} rows and {dataset.Columns} columns, the labels have "
            f"{geometry.shape[1]} and {geometry.shape[2]}."
        )
    uid = str(_value(dataset, "FrameOfReferenceUID") or "")
    if uid != geometry.frame_of_reference_uid:
        raise GeometryError(
            f"The source {file.path.name} has the frame of reference {uid or 'none'}, the labels have "
            f"{geometry.frame_of_reference_uid or 'none'}; their positions cannot be compared."
        )
    if dataset.SOPInstanceUID != file.sop_instance_uid:
        raise InputError(
            f"The source {file.path.name} has SOP Instance UID {dataset.SOPInstanceUID}, on record is "
            f"{file.sop_instance_uid or 'none'}."
        )


def _shared_part(dataset: Dataset, notes: list[str], *, strip_free_text: bool) -> Dataset:
    """The valid attributes that describe patient, study and scanner, in Unicode."""
    shared = Dataset()
    dropped = []
    for tag in list(dataset.keys()):
        name = keyword_for_tag(tag)
        if name in _REFERENCES or name.startswith(_OF_THE_IMAGE):
            continue
        whole_group = tag.group in _PATIENT_AND_STUDY_GROUPS and not strip_free_text
        if not name or not (whole_group or name in _WITHOUT_FREE_TEXT):
            continue
        element = _element(dataset, tag)
        if element is None or element.VR not in dictionary_VR(tag) or not _is_valid(element):
            dropped.append(name)
        else:
            shared.add(element)
    if dropped:
        notes.append(f"Values of {', '.join(sorted(dropped))} break the rules of DICOM and were left out.")
    return shared


def _element(dataset: Dataset, tag: Any) -> DataElement | None:
    """An element with its value converted, or None if the bytes cannot be read as a value of its kind."""
    try:
        return dataset[tag]
    except (ValueError, TypeError, KeyError, NotImplementedError, OverflowError):
        return None


def _value(dataset: Dataset, name: str) -> Any:
    """The value of an attribute; None where it is missing, empty or cannot be read."""
    element = _element(dataset, _TAG_OF[name])
    return None if element is None or element.value in (None, "") else element.value


def _is_valid(element: DataElement) -> bool:
    """Whether a value, or every value of a list or sequence, obeys its value representation."""
    value = element.value
    if element.VR == "SQ":
        inner = [_element(item, tag) for item in value for tag in list(item.keys())]
        return all(each is not None and _is_valid(each) for each in inner)
    try:
        for one in value if isinstance(value, (list, MultiValue)) else [value]:
            if one in (None, ""):
                continue
            if element.VR in ("DA", "TM"):
                (DA if element.VR == "DA" else TM)(str(one))
            validate_value(element.VR, getattr(one, "original_string", one), config.RAISE)
    except (ValueError, TypeError):
        return False
    return element.keyword != "PatientSex" or value in (None, "", "M", "F", "O")


def _fill(shared: Dataset, notes: list[str]) -> None:
    """Give empty values to the attributes that DICOM wants present but lets be empty."""
    missing = [name for name in _MAY_BE_EMPTY if name not in shared]
    for name in missing:
        setattr(shared, name, "")
    if missing:
        notes.append(f"The source has no valid {', '.join(missing)}; left empty.")
    if not shared.get("Modality"):
        shared.Modality = "OT"
        notes.append("The source has no valid Modality; taken as OT (other).")


def _slice_part(dataset: Dataset) -> Dataset:
    """What a segmentation needs to know of one slice; SpacingBetweenSlices stays behind, see `_settle_geometry`."""
    part = Dataset()
    for name in (*_NEVER_EMPTY, "FrameOfReferenceUID", "Rows", "Columns", "SpacingBetweenSlices", "SliceThickness"):
        element = _element(dataset, _TAG_OF[name])
        if element is None or element.value in (None, "") or (name in _NUMBERS and not _is_number(element.value)):
            continue
        if dictionary_VR(_TAG_OF[name]) == element.VR:
            part[_TAG_OF[name]] = element
        else:
            setattr(part, name, element.value)
    for name in _PLACES:
        setattr(part, name, [_decimal(float(number)) for number in dataset.get(name)])
    return part


@lru_cache(maxsize=4096)
def _decimal(number: float) -> DSfloat:
    """A number as a decimal string; equal ones occur in every slice."""
    return DSfloat(format_number_as_ds(number))


def _settle_geometry(slices: Sequence[Dataset], geometry: Geometry, notes: list[str]) -> None:
    """Bring frame of reference, direction, thickness and slice distance into one voice."""
    if not geometry.frame_of_reference_uid:
        uid = make_uid("frame of reference", str(slices[0].SeriesInstanceUID))
        for part in slices:
            part.FrameOfReferenceUID = uid
        notes.append("The source has no FrameOfReferenceUID; one was made from its series.")
    cosines = np.array([part.ImageOrientationPatient for part in slices], dtype=np.float64)
    exact = geometry.directions[:, [2, 1]].T.ravel()
    differs, away = np.ptp(cosines, axis=0).max() > 0, np.abs(cosines - exact).max()
    if differs or _UNIT_TOLERANCE < away <= _JITTER:  # beyond, the labels are not on these slices, which is said later
        if away > _JITTER:
            raise GeometryError(f"The source slices are turned against each other: {cosines.tolist()[:2]} and so on.")
        for part in slices:
            part.ImageOrientationPatient = [DSfloat(format_number_as_ds(float(cosine))) for cosine in exact]
        what = "differs between slices by rounding" if differs else "is not made of perpendicular unit vectors"
        notes.append(f"ImageOrientationPatient {what}; one exact orientation is used for all.")
    step_mm = geometry.spacing_mm[0]
    told = [float(part.SpacingBetweenSlices) for part in slices if _is_number(part.get("SpacingBetweenSlices"))]
    if told and geometry.is_regular and abs(told[0] - step_mm) > _STEP_TOLERANCE * step_mm:
        notes.append(f"SpacingBetweenSlices says {told[0]:g} mm, the positions say {step_mm:g} mm; the positions win.")
    repaired = False
    for part in slices:
        part.pop("SpacingBetweenSlices", None)
        if not _is_number(part.get("SliceThickness")) or float(part.SliceThickness) <= 0:
            part.SliceThickness = DSfloat(format_number_as_ds(step_mm))
            repaired = True
    if repaired:
        notes.append(f"The source has no valid SliceThickness; the slice distance of {step_mm:g} mm is used.")


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError):
        return False
