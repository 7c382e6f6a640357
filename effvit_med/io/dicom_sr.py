"""Write measurements as a DICOM structured report (TID 1500) that refers to the segments of a DICOM segmentation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from effvit_med.errors import GeometryError, OutputError
from effvit_med.io.atomic import atomic_path
from effvit_med.io.dicom_origin import date_content, describe_series, find_files, keep_zone
from effvit_med.io.dicom_seg_headers import Headers, Reference, make_uid, read_headers
from effvit_med.io.dicom_seg_segments import (
    MANUFACTURER,
    contributing_equipment,
    long_string,
    make_concept,
    settle_dates,
    track,
)
from effvit_med.volume.measurements import Measurement
from effvit_med.volume.provenance import Provenance
from effvit_med.volume.segmentation import Segmentation

SR_SERIES_NUMBER = 902

_DIGITS = 6
_OF_THE_SEG = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID",
               "SegmentSequence", "SpecificCharacterSet"]  # fmt: skip


def write_dicom_sr(
    segmentation: Segmentation,
    rows: Sequence[Measurement],
    seg_path: Path,
    path: Path,
    *,
    series_number: int = SR_SERIES_NUMBER,
    strip_free_text: bool = True,
) -> tuple[str, ...]:
    """Write the measurements of the structures that were found as a Comprehensive 3D SR document.

    One group of measurements per structure: its volume in mL, for CT mean and standard deviation in HU, what it is and
    on which side, the algorithm, and the segment of the DICOM segmentation that it was measured on, with the tracking
    identifiers of that segment. The document is preliminary and unverified. All UIDs follow from the identity of the
    run.

    Args:
        segmentation: labels of a DICOM series; the headers are read again from its source files.
        rows: what was measured, see `effvit_med.volume.measurements.measure`.
        seg_path: the DICOM segmentation of the same labels, written before.
        path: the file to write.
        series_number: Series Number (0020,0011) of the new series, at least 1.
        strip_free_text: leave out attributes of the source that may hold text about the patient.

    Returns:
        One sentence for everything that is worth knowing; if no structure was found, that there is no file.

    Raises:
        OutputError: if the segmentation has no DICOM source, the DICOM segmentation is not that of these labels, or the
            file could not be written.
        InputError: if a source file is gone, has changed or cannot be used.
        GeometryError: if the DICOM segmentation lies in another frame of reference than the labels.

    Source:
        DICOM PS3.16 TID 1500 (Measurement Report), TID 1411 (Volumetric ROI Measurements), TID 300 (Measurement).
    """
    files = find_files(segmentation, "report")
    found = [row for row in rows if row.volume_ml is not None]
    if not found:
        return ("No structure was found, so there is nothing to report and no DICOM SR.",)
    headers = read_headers(files, segmentation.geometry, strip_free_text=strip_free_text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # source UIDs are kept even where they break rules
        seg = _read_seg(seg_path, segmentation)
        numbers = _find_segments(seg, segmentation, found, seg_path)
        groups = [_report(row, segmentation, seg, numbers[row.structure]) for row in found]
        options = (str(series_number), str(strip_free_text))
        dataset = _build(segmentation.provenance, headers, seg, groups, (*options, *map(_to_text, found)))
        dataset.SeriesNumber = series_number
        with atomic_path(path) as temporary:
            dataset.save_as(temporary)
    return ()


def _read_seg(path: Path, segmentation: Segmentation) -> Dataset:
    seg = pydicom.dcmread(path, specific_tags=[*_OF_THE_SEG], stop_before_pixels=True)
    uid = segmentation.geometry.frame_of_reference_uid
    if uid and seg.FrameOfReferenceUID != uid:
        raise GeometryError(
            f"The DICOM segmentation {path.name} has the frame of reference {seg.FrameOfReferenceUID}, "
            f"the labels have {uid}."
        )
    return seg


def _find_segments(
    seg: Dataset, segmentation: Segmentation, rows: Sequence[Measurement], path: Path
) -> Mapping[str, int]:
    """The segment number of each structure; it is known by the tracking UID, which follows from the run."""
    number_of = {str(item.get("TrackingUID")): int(item.SegmentNumber) for item in seg.SegmentSequence}
    numbers = {}
    for row in rows:
        _, uid = track(segmentation.table.by_value(row.value), segmentation.provenance)
        if uid not in number_of:
            raise OutputError(
                f"The DICOM segmentation {path.name} has no segment of this run for {row.structure}; write the DICOM "
                "segmentation of the same labels first."
            )
        numbers[row.structure] = number_of[uid]
    return numbers


def _report(row: Measurement, segmentation: Segmentation, seg: Dataset, number: int) -> Any:
    """What was measured of one structure, as a highdicom group of TID 1411."""
    provenance = segmentation.provenance
    label = segmentation.table.by_value(row.value)
    source = provenance.source
    identifier, uid = track(label, provenance)
    kind = make_concept(label.type)
    side = None if label.laterality is None else make_concept(label.laterality)
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=uid, identifier=identifier),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=number,
            source_series=hd.sr.SourceSeriesForSegmentation(source.series_instance_uid if source else ""),
        ),
        finding_category=make_concept(label.category),
        finding_type=kind,
        finding_sites=[hd.sr.FindingSite(anatomic_location=kind, laterality=side)],
        algorithm_id=hd.sr.AlgorithmIdentification(
            name=long_string(provenance.bundle) or "unnamed",
            version=long_string(provenance.bundle_version) or "unknown",
            parameters=[f"weights_sha256={provenance.weights_sha256 or 'none'}", provenance.notice],
        ),
        measurements=_measurements(row),
    )


def _measurements(row: Measurement) -> list[Any]:
    if row.volume_ml is None:
        return []
    measured = [
        hd.sr.Measurement(codes.SCT.Volume, _round(row.volume_ml), hd.sr.CodedConcept("mL", "UCUM", "milliliter"))
    ]
    if row.unit == "HU" and row.mean is not None and row.sd is not None:
        name, unit = codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit
        for value, derivation in ((row.mean, codes.SCT.Mean), (row.sd, codes.SCT.StandardDeviation)):
            measured.append(hd.sr.Measurement(name, _round(value), unit, derivation=derivation))
    return measured


def _build(
    provenance: Provenance, headers: Headers, seg: Dataset, groups: Sequence[Any], content: tuple[str, ...]
) -> Dataset:
    header = headers.slices[0]
    job = ("sr", provenance.identity(), str(seg.SOPInstanceUID), *content)
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=make_uid("device", provenance.bundle, provenance.bundle_version, provenance.weights_sha256),
            name=f"{MANUFACTURER}. {provenance.notice}",
            manufacturer_name=MANUFACTURER,
            model_name=long_string(provenance.bundle) or "unnamed",
        ),
    )
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=groups,
    )
    try:
        dataset = hd.sr.Comprehensive3DSR(
            evidence=[header, seg],
            content=report,
            series_number=SR_SERIES_NUMBER,
            series_instance_uid=make_uid("series", *job),
            sop_instance_uid=make_uid("instance", *job),
            instance_number=1,
            is_complete=True,
            is_final=False,
            is_verified=False,
            contributing_equipment=[contributing_equipment(provenance)],
            **describe_series(provenance, header),
            **date_content(provenance, header),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        message = f"No DICOM report can be made from the headers of the source: {type(error).__name__} {error}."
        raise OutputError(message) from error
    settle_dates(dataset)
    keep_zone(dataset, header)
    dataset.CurrentRequestedProcedureEvidenceSequence = [_list_evidence(header, seg, headers.instances)]
    return dataset


def _list_evidence(header: Dataset, seg: Dataset, instances: Sequence[Reference]) -> Dataset:
    """Every source image by its true class and instance, and the segmentation."""
    study, source, segmented = Dataset(), Dataset(), Dataset()
    source.SeriesInstanceUID, segmented.SeriesInstanceUID = header.SeriesInstanceUID, seg.SeriesInstanceUID
    source.ReferencedSOPSequence = [each.to_dataset() for each in instances]
    segmented.ReferencedSOPSequence = [Reference(str(seg.SOPClassUID), str(seg.SOPInstanceUID)).to_dataset()]
    study.StudyInstanceUID = header.StudyInstanceUID
    study.ReferencedSeriesSequence = [source, segmented]
    return study


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _to_text(row: Measurement) -> str:
    return f"{row.structure} {[_round(value) for value in (row.volume_ml, row.mean, row.sd) if value is not None]}"
