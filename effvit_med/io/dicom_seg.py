"""Write a segmentation as DICOM: one frame per source slice and structure, on the source's own geometry."""

from __future__ import annotations

import datetime as dt
import gc
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

from effvit_med.errors import OutputError
from effvit_med.io.atomic import atomic_path
from effvit_med.io.dicom_seg_check import check_file, slices_of_frames
from effvit_med.io.dicom_seg_frames import fill_binary, fill_labelmap, mark_slices, shrink_headers
from effvit_med.io.dicom_seg_headers import Headers, make_uid, read_headers
from effvit_med.io.dicom_seg_segments import (
    MANUFACTURER,
    contributing_equipment,
    describe_segments,
    long_string,
    software_versions,
)
from effvit_med.volume.counts import count_values, digest_labels
from effvit_med.volume.labels import Label
from effvit_med.volume.provenance import Provenance
from effvit_med.volume.segmentation import Segmentation
from effvit_med.volume.volume import Finding, SourceFile, Volume

CONTENT_LABEL = "EFFVIT_MED"

_READ_BYTES = 2**20
_FEWEST_PIXELS = 8  # of a frame; highdicom 0.28 packs fewer wrongly


@dataclass(frozen=True)
class SegOptions:
    """How a DICOM segmentation is written.

    Attributes:
        segmentation_type: ``"binary"``, one bit a voxel and one frame per structure and slice, which every viewer
            reads; or ``"labelmap"``, one frame per slice with the label values, compressed, small and quick, which
            viewers from 2025 on read.
        series_number: Series Number (0020,0011) of the new series, at least 1.
        strip_free_text: leave out attributes of the source that may hold text about the patient, such as Patient
            Comments. Names and identifiers stay: this does not anonymise.

    Raises:
        OutputError: if a value is not one of these.
    """

    segmentation_type: Literal["binary", "labelmap"] = "binary"
    series_number: int = 900
    strip_free_text: bool = False

    def __post_init__(self) -> None:
        if self.segmentation_type not in ("binary", "labelmap"):
            raise OutputError(f"segmentation_type is {self.segmentation_type!r}; choose 'binary' or 'labelmap'.")
        if not 1 <= self.series_number <= 2**31 - 1:
            raise OutputError(f"series_number is {self.series_number}; it must be 1 to 2147483647.")


@dataclass(frozen=True, eq=False)
class _Content:
    """What goes into the file.

    Attributes:
        labels: the structures that become segments.
        numbers: the segment number of each.
        counts: (slices, label values) how many voxels.
        empty: whether no structure was found.
    """

    labels: tuple[Label, ...]
    numbers: tuple[int, ...]
    counts: npt.NDArray[np.int64]
    empty: bool


def why_no_dicom_seg(volume: Volume) -> Finding | None:
    """Why no DICOM segmentation can be written for a scan, known before it is segmented.

    Args:
        volume: the scan.

    Returns:
        A code and one sentence, or None where nothing is known to stand against it.
    """
    source = volume.source
    if source is None or source.kind != "DICOM":
        return Finding("NO_DICOM_SOURCE", "No DICOM SEG: it needs the headers of DICOM slices; this is no DICOM.")
    uids = [source.study_instance_uid, source.series_instance_uid, *(file.sop_instance_uid for file in source.files)]
    if not all(uids):
        text = "No DICOM SEG: it refers to study, series and slices by their UIDs, and some of them are empty."
        return Finding("EMPTY_UIDS", text)
    if any(finding.code == "SEVERAL_STUDIES" for finding in source.findings):
        text = "No DICOM SEG: it belongs to one study, and the slices of this series name several."
        return Finding("SLICES_OF_SEVERAL_STUDIES", text)
    pixels = volume.geometry.shape[1] * volume.geometry.shape[2]
    if pixels < _FEWEST_PIXELS:
        return Finding(
            "TINY_SLICES", f"No DICOM SEG: frames of {pixels} pixels, fewer than 8, would be packed wrongly."
        )
    return None


def write_dicom_seg(segmentation: Segmentation, path: Path, options: SegOptions | None = None) -> tuple[str, ...]:
    """Write a segmentation of a DICOM series as a DICOM Segmentation file.

    The frames lie on the source slices themselves: nothing is resampled, so tilted, oblique and irregular series come
    out right. Only structures that were found become segments. If none was found, the file has one segment, the first
    structure of the table, whose frames are all empty. In a binary file the segments are numbered 1, 2, 3 in the
    order of the table; in a labelmap the segment number is the label value. All UIDs follow from the identity of the
    run, so that writing the same result again gives the same file.

    Args:
        segmentation: labels whose axes are slice, row, column of the source; the headers are read again from
            ``segmentation.provenance.source.files``, one file per slice.
        path: the file to write.
        options: type of segmentation, series number, treatment of free text.

    Returns:
        One sentence for everything that was repaired in the copied headers or is worth knowing; no patient data.

    Raises:
        OutputError: if the segmentation has no DICOM source, the file could not be written, or its voxels are not the
            labels; nothing is left behind.
        InputError: if a source file is gone, has changed or cannot be used.
        GeometryError: if the labels do not lie on the source slices.

    Source:
        DICOM PS3.3 section A.51 (Segmentation IOD) and section C.8.20 (Segmentation modules); Supplement 243 (Label
        Map Segmentation).
    """
    options = options or SegOptions()
    files = _dicom_files(segmentation)
    content = _choose_content(segmentation, options)
    with _paused_collector(), warnings.catch_warnings():
        headers = read_headers(files, segmentation.geometry, strip_free_text=options.strip_free_text)
        # source UIDs are kept even where they break rules; and warnings quote names of patients
        warnings.simplefilter("ignore")
        return _write(segmentation, path, headers, content, options)


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Keep Python from looking for cycles: thousands of small objects are made, and all of them are needed."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _large_reads() -> Iterator[None]:
    """Let pydicom ask for pixel data in large pieces: frames are packed as it asks for them."""
    before = config.settings.buffered_read_size
    config.settings.buffered_read_size = _READ_BYTES
    try:
        yield
    finally:
        config.settings.buffered_read_size = before


def _write(
    segmentation: Segmentation, path: Path, headers: Headers, content: _Content, options: SegOptions
) -> tuple[str, ...]:
    dataset = _build(segmentation, headers, content, options)
    values = tuple(label.value for label in content.labels) if options.segmentation_type == "binary" else ()
    with atomic_path(path) as temporary:
        with _large_reads():
            dataset.save_as(temporary)
        del dataset
        check_file(temporary, segmentation, headers.slices, values)
    return (*headers.notes, *_notes(segmentation, content))


def _dicom_files(segmentation: Segmentation) -> Sequence[SourceFile]:
    source = segmentation.provenance.source
    kind = source.kind if source else "a volume made in memory"
    if source is None or kind != "DICOM":
        raise OutputError(
            f"A DICOM segmentation refers to the DICOM slices it was made from, but the source is {kind}; "
            "segment a DICOM series, or write NIfTI."
        )
    geometry = segmentation.geometry
    if len(source.files) != geometry.shape[0] or geometry.slice_axis != 0:
        raise OutputError(
            f"A DICOM segmentation needs one source file per slice along array axis 0: there are {len(source.files)} "
            f"files, {geometry.shape[0]} slices along axis 0, and the slices were acquired along axis "
            f"{geometry.slice_axis}. Give the labels as they were read, not reoriented or cropped."
        )
    return source.files


def _choose_content(segmentation: Segmentation, options: SegOptions) -> _Content:
    """The segments of the file: what was found, or the first structure of the table where nothing was."""
    if len(segmentation.table) == 0:
        raise OutputError("The label table has no structure; a DICOM segmentation needs at least one.")
    size = max(label.value for label in segmentation.table) + 1
    counts = count_values(segmentation.labels, size=size)
    found = counts.sum(axis=0)
    present = tuple(label for label in segmentation.table if found[label.value])
    labels = present or tuple(segmentation.table)[:1]
    is_labelmap = options.segmentation_type == "labelmap"
    numbers = tuple(label.value for label in labels) if is_labelmap else tuple(range(1, len(labels) + 1))
    return _Content(labels, numbers, counts, not present)


def _build(segmentation: Segmentation, headers: Headers, content: _Content, options: SegOptions) -> Dataset:
    provenance = segmentation.provenance
    started = _started(provenance, headers.slices[0])
    drawn = digest_labels(segmentation.labels)
    job = (
        provenance.identity(), drawn, options.segmentation_type, str(options.strip_free_text),
        str(options.series_number),
    )  # fmt: skip
    marks = mark_slices(content.counts, content.numbers[0], segmentation.labels.dtype)
    try:
        dataset = hd.seg.Segmentation(
            source_images=shrink_headers(headers.slices),
            pixel_array=marks,
            segmentation_type=options.segmentation_type.upper(),
            segment_descriptions=describe_segments(content.labels, content.numbers, provenance),
            series_instance_uid=make_uid("series", *job),
            series_number=options.series_number,
            sop_instance_uid=make_uid("instance", *job),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=long_string(provenance.bundle) or "unnamed",
            software_versions=software_versions(provenance),
            device_serial_number=long_string(provenance.weights_sha256) or "none",
            content_description=_content_description(provenance, content),
            content_creator_name=f"{MANUFACTURER}^",
            content_label=CONTENT_LABEL,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            omit_empty_frames=not content.empty,
            contributing_equipment=[contributing_equipment(provenance)],
            series_description=long_string(f"{provenance.bundle} {provenance.bundle_version}"),
            specific_character_set="ISO_IR 192",
            content_date=started.date(),
            content_time=started.time(),
            series_date=started.date(),
            series_time=started.time(),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f"No DICOM segmentation can be made from the headers of the source, such as "
            f"{segmentation.provenance.source.files[0].path.name}: {type(error).__name__} {error}."  # type: ignore[union-attr]  # _dicom_files has seen it
        ) from error
    if options.segmentation_type == "labelmap":
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    _settle(dataset, make_uid("dimensions", *job))
    _name_sop_classes(
        dataset, {part.SOPInstanceUID: uid for part, uid in zip(headers.slices, headers.sop_classes, strict=True)}
    )
    if _zone(headers.slices[0]):
        dataset.TimezoneOffsetFromUTC = headers.slices[0].TimezoneOffsetFromUTC
    slices = slices_of_frames(dataset, headers.slices)
    if options.segmentation_type == "labelmap":
        fill_labelmap(dataset, segmentation.labels, slices)
    else:
        values = [label.value for label in content.labels]
        fill_binary(dataset, segmentation.labels, content.counts, values, slices)
    return dataset


def _settle(dataset: Dataset, dimension_uid: str) -> None:
    """Replace what highdicom takes from the clock and from chance, so that the same result gives the same bytes."""
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = dataset.ContentDate, dataset.ContentTime
    for item in (*dataset.DimensionIndexSequence, *dataset.DimensionOrganizationSequence):
        item.DimensionOrganizationUID = dimension_uid
    for item in dataset.ContributingEquipmentSequence:
        if "ContributionDateTime" in item:
            item.ContributionDateTime = f"{dataset.ContentDate}{dataset.ContentTime}"


def _name_sop_classes(dataset: Dataset, class_of: Mapping[str, str]) -> None:
    """Give every reference to a source slice the SOP class of that slice, where a stand-in was built on."""
    references = [
        *dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence,
        *dataset.get("SourceImageSequence", []),
    ]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        references.extend(frame.DerivationImageSequence[0].SourceImageSequence)
    for reference in references:
        reference.ReferencedSOPClassUID = class_of[reference.ReferencedSOPInstanceUID]


def _started(provenance: Provenance, header: Dataset) -> dt.datetime:
    """When the run began, on the clock of the study if it names its offset from UTC."""
    try:
        started = dt.datetime.fromisoformat(provenance.started)
    except ValueError as error:
        raise OutputError(
            f"The run began at {provenance.started!r}, which is no ISO 8601 time such as 2024-05-01T12:00:00+02:00."
        ) from error
    zone = _zone(header)
    return started.astimezone(zone) if zone and started.tzinfo else started


def _zone(header: Dataset) -> dt.tzinfo | None:
    """The offset from UTC on which the times of the study are, or None if the study does not say."""
    try:
        return dt.datetime.strptime(str(header.get("TimezoneOffsetFromUTC")), "%z").tzinfo
    except ValueError:
        return None


def _content_description(provenance: Provenance, content: _Content) -> str:
    count = "No structure found." if content.empty else f"Structures: {len(content.labels)}."
    return long_string(f"{provenance.notice} {count}")


def _notes(segmentation: Segmentation, content: _Content) -> list[str]:
    notes = []
    if content.empty:
        notes.append(f"No structure was found; the file has one empty segment, {content.labels[0].name}.")
    else:
        written = {label.value for label in content.labels}
        absent = [label.name for label in segmentation.table if label.value not in written]
        if absent:
            notes.append(f"Not found and therefore without a segment: {', '.join(absent)}.")
    geometry = segmentation.geometry
    if not geometry.is_regular or geometry.shear_degrees > 0.1:
        notes.append(
            "The source slices are tilted or unequally spaced; the frames lie on them exactly, but viewers that "
            "rebuild a regular grid may show them displaced."
        )
    return notes
