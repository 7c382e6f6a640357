"""Write a segmentation as DICOM: one frame per source slice and structure, on the source's own geometry."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Sequence
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
from effvit_med.io.dicom_origin import date_content, describe_series, find_files, keep_zone, why_no_dicom
from effvit_med.io.dicom_seg_check import check_file, slices_of_frames
from effvit_med.io.dicom_seg_frames import (
    FRACTION_MEANING,
    MAX_FRACTION,
    fill_binary,
    fill_fractional,
    fill_labelmap,
    mark_slices,
    shrink_headers,
)
from effvit_med.io.dicom_seg_headers import Headers, Reference, make_uid, read_headers
from effvit_med.io.dicom_seg_revision import Revision, refer_to_predecessor
from effvit_med.io.dicom_seg_segments import (
    MANUFACTURER,
    contributing_equipment,
    describe_segments,
    long_string,
    settle_dates,
)
from effvit_med.volume.counts import count_values, digest_labels
from effvit_med.volume.labels import Label
from effvit_med.volume.overlaps import count_structures
from effvit_med.volume.provenance import Provenance
from effvit_med.volume.segmentation import Segmentation
from effvit_med.volume.volume import Finding, Volume

CONTENT_LABEL = "EFFVIT_MED"
SEG_TYPES = ("binary", "labelmap", "fractional", "auto")

AUTO_BINARY_STRUCTURES = 20
"""Up to this many structures found, ``auto`` writes a binary file, which every viewer reads; above, a labelmap: a
binary file of a hundred structures is a hundred times as large, and viewers take minutes to open it."""

_READ_BYTES = 2**20
_FEWEST_PIXELS = 8  # of a frame; highdicom 0.28 packs fewer wrongly


@dataclass(frozen=True)
class SegOptions:
    """How a DICOM segmentation is written.

    Attributes:
        segmentation_type: ``"binary"``, one bit a voxel and one frame per structure and slice, which every viewer
            reads; ``"labelmap"``, one frame per slice with the label values, compressed, small and quick, which
            viewers from 2025 on read; ``"fractional"``, one byte a voxel and one frame per structure and slice with
            the confidence of the label; or ``"auto"``, binary up to `AUTO_BINARY_STRUCTURES` structures, else
            labelmap.
        series_number: Series Number (0020,0011) of the new series, at least 1.
        strip_free_text: leave out attributes of the source that may hold text about the patient, such as Patient
            Comments and Study Description. Names and identifiers stay: this does not anonymise.
        revision: what a person changed, where the labels were reviewed.

    Raises:
        OutputError: if a value is not one of these.
    """

    segmentation_type: Literal["binary", "labelmap", "fractional", "auto"] = "binary"
    series_number: int = 900
    strip_free_text: bool = True
    revision: Revision | None = None

    def __post_init__(self) -> None:
        if self.segmentation_type not in SEG_TYPES:
            raise OutputError(f"segmentation_type is {self.segmentation_type!r}; choose one of {', '.join(SEG_TYPES)}.")
        if not 1 <= self.series_number <= 2**31 - 1:
            raise OutputError(f"series_number is {self.series_number}; it must be 1 to 2147483647.")


@dataclass(frozen=True, eq=False)
class _Content:
    """What goes into the file.

    Attributes:
        kind: ``binary``, ``labelmap`` or ``fractional``.
        labels: the structures that become segments.
        numbers: the segment number of each.
        counts: (slices, label values) how many voxels.
        empty: whether no structure was found.
    """

    kind: str
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
    reason = why_no_dicom(volume, "DICOM SEG")
    pixels = volume.geometry.shape[1] * volume.geometry.shape[2]
    if reason is None and pixels < _FEWEST_PIXELS:
        text = f"No DICOM SEG: frames of {pixels} pixels, fewer than 8, would be packed wrongly."
        return Finding("TINY_SLICES", text)
    return reason


def write_dicom_seg(segmentation: Segmentation, path: Path, options: SegOptions | None = None) -> tuple[str, ...]:
    """Write a segmentation of a DICOM series as a DICOM Segmentation file.

    The frames lie on the source slices themselves: nothing is resampled, so tilted, oblique and irregular series come
    out right. Only structures that were found become segments. If none was found, the file has one segment, the first
    structure of the table, whose frames are all empty. In a binary or fractional file the segments are numbered 1, 2,
    3 in the order of the table; in a labelmap the segment number is the label value. Structures that overlap keep all
    their voxels, in a binary file whatever the options say. All UIDs follow from the identity of the run, so that
    writing the same result again gives the same file.

    Args:
        segmentation: labels whose axes are slice, row, column of the source; the headers are read again from
            ``segmentation.provenance.source.files``, one file, or frame of a file, per slice.
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
    files = find_files(segmentation, "segmentation")
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
    values = tuple(label.value for label in content.labels) if content.kind != "labelmap" else ()
    with atomic_path(path) as temporary:
        with _large_reads():
            dataset.save_as(temporary)
        del dataset
        check_file(temporary, segmentation, headers, values)
    return (*headers.notes, *_notes(segmentation, content, options))


def _choose_content(segmentation: Segmentation, options: SegOptions) -> _Content:
    """The segments of the file: what was found, or the first structure of the table where nothing was."""
    if len(segmentation.table) == 0:
        raise OutputError("The label table has no structure; a DICOM segmentation needs at least one.")
    size = max(label.value for label in segmentation.table) + 1
    table = segmentation.table
    counts = count_structures(count_values(segmentation.labels, size=size), table)
    found = counts.sum(axis=0)
    present = tuple(label for label in table.structures if found[label.value])
    labels = present or tuple(segmentation.table)[:1]
    kind: str = "binary" if table.overlaps else options.segmentation_type
    if kind == "auto":
        kind = "binary" if len(present) <= AUTO_BINARY_STRUCTURES else "labelmap"
    if kind == "fractional" and segmentation.confidence is None:
        raise OutputError(
            "A fractional segmentation holds the confidence of each label, but this segmentation has no confidence "
            "map; choose binary or labelmap, or keep the confidence."
        )
    is_labelmap = kind == "labelmap"
    numbers = tuple(label.value for label in labels) if is_labelmap else tuple(range(1, len(labels) + 1))
    return _Content(kind, labels, numbers, counts, not present)


def _build(segmentation: Segmentation, headers: Headers, content: _Content, options: SegOptions) -> Dataset:
    provenance, revision = segmentation.provenance, options.revision
    edited = revision.edited if revision else frozenset()
    drawn = digest_labels(segmentation.labels)
    job = (
        provenance.identity(), drawn, content.kind, str(options.strip_free_text), str(options.series_number),
        *(revision.identify() if revision else ()),
    )  # fmt: skip
    marks = mark_slices(content.counts, content.numbers[0], segmentation.labels.dtype)
    try:
        dataset = hd.seg.Segmentation(
            source_images=shrink_headers(headers.slices),
            pixel_array=marks,
            segmentation_type=content.kind.upper(),
            fractional_type="PROBABILITY",
            max_fractional_value=MAX_FRACTION,
            segment_descriptions=describe_segments(
                content.labels,
                content.numbers,
                provenance,
                FRACTION_MEANING if content.kind == "fractional" else "",
                edited=edited,
            ),
            series_instance_uid=make_uid("series", *job),
            series_number=options.series_number,
            sop_instance_uid=make_uid("instance", *job),
            instance_number=1,
            content_description=_content_description(provenance, content),
            content_creator_name=f"{MANUFACTURER}^",
            content_label=CONTENT_LABEL,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            omit_empty_frames=not content.empty,
            contributing_equipment=[contributing_equipment(provenance, reviewed=revision is not None)],
            **describe_series(provenance, headers.slices[0]),
            **date_content(provenance, headers.slices[0]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise OutputError(
            f"No DICOM segmentation can be made from the headers of the source, such as "
            f"{segmentation.provenance.source.files[0].path.name}: {type(error).__name__} {error}."  # type: ignore[union-attr]  # find_files has seen it
        ) from error
    if content.kind != "binary":
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    _settle(dataset, make_uid("dimensions", *job))
    slices = slices_of_frames(dataset, headers)
    _name_sources(dataset, headers, slices)
    if revision and revision.predecessor:
        refer_to_predecessor(dataset, revision.predecessor)
    keep_zone(dataset, headers.slices[0])
    values = [label.value for label in content.labels]
    if content.kind == "labelmap":
        fill_labelmap(dataset, segmentation.labels, slices)
    elif content.kind == "binary":
        overlaps = segmentation.table.overlaps
        fill_binary(dataset, segmentation.labels, content.counts, values, slices, overlaps=overlaps)
    else:
        fill_fractional(dataset, segmentation, content.counts, values, slices)
    return dataset


def _settle(dataset: Dataset, dimension_uid: str) -> None:
    """Replace what highdicom takes from the clock and from chance, so that the same result gives the same bytes."""
    settle_dates(dataset)
    for item in (*dataset.DimensionIndexSequence, *dataset.DimensionOrganizationSequence):
        item.DimensionOrganizationUID = dimension_uid


def _name_sources(dataset: Dataset, headers: Headers, slices: Sequence[int]) -> None:
    """Give every reference to a source slice what truly names it, where highdicom was given a stand-in."""
    dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence = [each.to_dataset() for each in headers.instances]
    if "SourceImageSequence" in dataset:
        template = dataset.SourceImageSequence[0]
        dataset.SourceImageSequence = [_renamed(template, each) for each in headers.instances]
    for frame, index in zip(dataset.PerFrameFunctionalGroupsSequence, slices, strict=True):
        derivation = frame.DerivationImageSequence[0]
        derivation.SourceImageSequence = [_renamed(derivation.SourceImageSequence[0], headers.references[index])]


def _renamed(reference: Dataset, name: Reference) -> Dataset:
    """A reference that says the same of another image."""
    item = Dataset(reference)
    item.update(name.to_dataset())
    return item


def _content_description(provenance: Provenance, content: _Content) -> str:
    count = "No structure found." if content.empty else f"Structures: {len(content.labels)}."
    return long_string(f"{provenance.notice} {count}")


def _notes(segmentation: Segmentation, content: _Content, options: SegOptions) -> list[str]:
    notes = []
    if segmentation.table.overlaps and options.segmentation_type != "binary":
        notes.append(f"Structures overlap, so the file is binary and not {options.segmentation_type}.")
    elif options.segmentation_type == "auto":
        found = 0 if content.empty else len(content.labels)
        notes.append(
            f"The kind is {content.kind}, since {found} structures were found: up to {AUTO_BINARY_STRUCTURES} are "
            "written as binary, more as labelmap."
        )
    if content.empty:
        notes.append(f"No structure was found; the file has one empty segment, {content.labels[0].name}.")
    else:
        written = {label.value for label in content.labels}
        absent = [label.name for label in segmentation.table.structures if label.value not in written]
        if absent:
            notes.append(f"Not found and therefore without a segment: {', '.join(absent)}.")
    geometry = segmentation.geometry
    if not geometry.is_regular or geometry.shear_degrees > 0.1:
        notes.append(
            "The source slices are tilted or unequally spaced; the frames lie on them exactly, but viewers that "
            "rebuild a regular grid may show them displaced."
        )
    return notes
