"""Write a segmentation as a DICOM RT Structure Set: closed contours on the source slices, with holes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from highdicom.base import SOPClass
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from effvit_med.errors import OutputError
from effvit_med.io.atomic import atomic_path
from effvit_med.io.contours import FloatArray, trace_outlines
from effvit_med.io.dicom_origin import describe_series, find_files, find_start, keep_zone
from effvit_med.io.dicom_seg_check import check_slices
from effvit_med.io.dicom_seg_headers import Headers, Reference, make_uid, read_headers
from effvit_med.io.dicom_seg_segments import (
    MANUFACTURER,
    contributing_equipment,
    identify_algorithm,
    long_string,
    make_concept,
    settle_dates,
    track,
)
from effvit_med.io.rtstruct_check import check_contours
from effvit_med.volume.counts import count_values, digest_labels
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE, Label
from effvit_med.volume.overlaps import count_structures, take_structure
from effvit_med.volume.pages import count_slab, release_pages
from effvit_med.volume.segmentation import Segmentation

RTSTRUCT_SERIES_NUMBER = 901

_CONTOUR_DATA = Tag("ContourData")
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management: retired, but what a study is referred to by


def write_rtstruct(
    segmentation: Segmentation,
    path: Path,
    *,
    series_number: int = RTSTRUCT_SERIES_NUMBER,
    strip_free_text: bool = True,
) -> tuple[str, ...]:
    """Write a segmentation of a DICOM series as a DICOM RT Structure Set.

    Every contour lies in the plane of its own source slice, so that oblique, tilted and unequally spaced series come
    out right. It runs midway between voxel centres inside and outside: a program that fills it and asks which centres
    are inside gets the labels back. A hole is joined to the contour around it by a channel of no width. Only structures
    that were found become ROIs; if none was found, the file has one ROI without contours, the first structure of the
    table. The ROI number is the label value; structures that overlap are each whole. All UIDs follow from the
    identity of the run.

    Args:
        segmentation: labels whose axes are slice, row, column of the source; the headers are read again from
            ``segmentation.provenance.source.files``.
        path: the file to write.
        series_number: Series Number (0020,0011) of the new series, at least 1.
        strip_free_text: leave out attributes of the source that may hold text about the patient.

    Returns:
        One sentence for everything that was repaired in the copied headers or is worth knowing; no patient data.

    Raises:
        OutputError: if the segmentation has no DICOM source, its table is empty, the file could not be written, or its
            contours do not give the labels back; nothing is left behind.
        InputError: if a source file is gone, has changed or cannot be used.
        GeometryError: if the labels do not lie on the source slices.

    Source:
        DICOM PS3.3 sections A.19 (RT Structure Set IOD), C.8.8.5 (Structure Set), C.8.8.6 (ROI Contour: keyhole),
        C.8.8.8 (RT ROI Observations). Implicit VR, since a contour may have more bytes than explicit VR can count.
    """
    files = find_files(segmentation, "structure set")
    if len(segmentation.table) == 0:
        raise OutputError("The label table has no structure; a structure set needs at least one.")
    table = segmentation.table
    counts = count_structures(count_values(segmentation.labels, size=max(each.value for each in table) + 1), table)
    present = tuple(label for label in table.structures if counts[:, label.value].any())
    labels = present or table.structures[:1]
    headers = read_headers(files, segmentation.geometry, strip_free_text=strip_free_text)
    check_slices(headers, segmentation.geometry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # source UIDs are kept even where they break rules
        try:
            dataset = _build(segmentation, headers, series_number, str(strip_free_text))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            message = f"No structure set can be made from the headers of the source: {type(error).__name__} {error}."
            raise OutputError(message) from error
        _add_rois(dataset, segmentation, labels, counts)
        dataset.ROIContourSequence = [
            _make_contours(label, list(_trace(label, segmentation, counts, headers))) for label in labels
        ]
        for part in (dataset, *dataset.ROIContourSequence):
            _keep_encoded(part)
        with atomic_path(path) as temporary:
            dataset.save_as(temporary, enforce_file_format=True)
            del dataset
            check_contours(temporary, segmentation, headers)
    return (*headers.notes, *_notes(segmentation, present, labels))


def _build(segmentation: Segmentation, headers: Headers, series_number: int, *options: str) -> Dataset:
    """All but the structures."""
    provenance, header = segmentation.provenance, headers.slices[0]
    started = find_start(provenance, header)
    job = ("rtstruct", provenance.identity(), digest_labels(segmentation.labels), str(series_number), *options)
    dataset = SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=make_uid("series", *job),
        series_number=series_number,
        sop_instance_uid=make_uid("instance", *job),
        sop_class_uid=RTStructureSetStorage,
        instance_number=1,
        modality="RTSTRUCT",
        transfer_syntax_uid=ImplicitVRLittleEndian,
        patient_id=header.PatientID,
        patient_name=header.PatientName,
        patient_birth_date=header.PatientBirthDate,
        patient_sex=header.PatientSex,
        accession_number=header.AccessionNumber,
        study_id=header.StudyID,
        study_date=header.StudyDate,
        study_time=header.StudyTime,
        referring_physician_name=header.ReferringPhysicianName,
        **describe_series(provenance, header),
    )
    dataset.copy_patient_and_study_information(header)
    keep_zone(dataset, header)
    dataset.OperatorsName = ""
    dataset.ContributingEquipmentSequence = [contributing_equipment(provenance)]
    settle_dates(dataset)
    dataset.FrameOfReferenceUID = header.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = ""
    dataset.StructureSetLabel = MANUFACTURER
    dataset.StructureSetName = long_string(f"{provenance.bundle} {provenance.bundle_version}")
    dataset.StructureSetDescription = f"Automatic segmentation. {provenance.notice}"
    dataset.StructureSetDate, dataset.StructureSetTime = started.strftime("%Y%m%d"), dataset.SeriesTime
    dataset.ReferencedFrameOfReferenceSequence = [_refer(header, headers.instances)]
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset


def _refer(header: Dataset, instances: tuple[Reference, ...]) -> Dataset:
    """The frame of reference with study, series and images."""
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ContourImageSequence = [each.to_dataset() for each in instances]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY_CLASS, header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = header.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _add_rois(
    dataset: Dataset, segmentation: Segmentation, labels: tuple[Label, ...], counts: npt.NDArray[np.int64]
) -> None:
    """Say what each structure is."""
    provenance = segmentation.provenance
    algorithm = identify_algorithm(provenance)
    volumes_mm3 = segmentation.geometry.voxel_volumes_mm3() @ counts
    rois, observations = [], []
    for number, label in enumerate(labels, 1):
        roi = Dataset()
        roi.ROINumber = label.value
        roi.ReferencedFrameOfReferenceUID = dataset.FrameOfReferenceUID
        roi.ROIName = long_string(label.name)
        roi.ROIDescription = f"Automatic segmentation. {provenance.notice}"
        roi.ROIVolume = f"{volumes_mm3[label.value] / 1000:.6g}"
        roi.ROIGenerationAlgorithm = "AUTOMATIC"
        roi.ROIDerivationAlgorithmIdentificationSequence = algorithm
        roi.TrackingID, roi.TrackingUID = track(label, provenance)
        rois.append(roi)
        observations.append(_observe(label, number))
    dataset.StructureSetROISequence, dataset.RTROIObservationsSequence = rois, observations


def _observe(label: Label, number: int) -> Dataset:
    observation, code = Dataset(), Dataset(make_concept(label.type))
    observation.ObservationNumber = number
    observation.ReferencedROINumber = label.value
    observation.ROIObservationLabel = long_string(label.name)[:16].strip()
    if label.laterality is not None:
        code.SegmentedPropertyTypeModifierCodeSequence = [make_concept(label.laterality)]
    observation.SegmentedPropertyCategoryCodeSequence = [make_concept(label.category)]
    observation.RTROIIdentificationCodeSequence = [code]
    observation.RTROIInterpretedType = "ORGAN" if label.category == ANATOMICAL_STRUCTURE else ""
    observation.ROIInterpreter = ""
    return observation


def _trace(
    label: Label, segmentation: Segmentation, counts: npt.NDArray[np.int64], headers: Headers
) -> Iterator[tuple[Reference, FloatArray]]:
    """The contours of a structure: which slice they lie on, and their points in the patient in mm."""
    slab = count_slab(segmentation.labels)
    for k in np.flatnonzero(counts[:, label.value]):
        inside = take_structure(segmentation.labels[k], label.value, overlaps=segmentation.table.overlaps)
        for path in trace_outlines(inside):
            yield headers.references[k], _place(path, headers.slices[k])
        if k % slab == slab - 1:
            release_pages(segmentation.labels)


def _place(path: FloatArray, header: Dataset) -> FloatArray:
    """Points of a slice in the patient.

    Source:
        DICOM PS3.3 section C.7.6.2.1.1 (equation C.7.6.2.1-1): the first spacing is that between rows.
    """
    corner = np.array(header.ImagePositionPatient, dtype=np.float64)
    cosines = np.array(header.ImageOrientationPatient, dtype=np.float64)
    between_rows, between_columns = (float(part) for part in header.PixelSpacing)
    points: FloatArray = corner + path @ np.array([cosines[3:] * between_rows, cosines[:3] * between_columns])
    return points


def _make_contours(label: Label, contours: list[tuple[Reference, FloatArray]]) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = label.value
    item.ROIDisplayColor = list(label.colour)
    if contours:
        item.ContourSequence = [_make_contour(reference, points) for reference, points in contours]
    return item


def _make_contour(reference: Reference, points: FloatArray) -> Dataset:
    """A contour whose numbers are written out here: a decimal string of pydicom for each would take minutes."""
    contour = Dataset()
    contour.ContourImageSequence = [reference.to_dataset()]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    numbers = (points.round(3) + 0.0).ravel().tolist()
    text = "\\".join(["%.3f"] * len(numbers)) % tuple(numbers)
    content = text.encode("ascii") + b" " * (len(text) % 2)
    contour[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(content), content, 0, True, True)
    _keep_encoded(contour)
    return contour


def _keep_encoded(part: Dataset) -> None:
    """Let pydicom write what is encoded already as it is; else it takes every number of every contour apart."""
    part.set_original_encoding(True, True, part._character_set)  # noqa: SLF001 - what pydicom compares it with


def _notes(segmentation: Segmentation, present: tuple[Label, ...], labels: tuple[Label, ...]) -> list[str]:
    if not present:
        return [f"No structure was found; the structure set has one ROI without contours, {labels[0].name}."]
    absent = [label.name for label in segmentation.table.structures if label not in present]
    return [f"Not found and therefore without an ROI: {', '.join(absent)}."] if absent else []
