"""Read a DICOM Segmentation back as a label map: ours, and what other programs write."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from effvit_med.errors import GeometryError, InputError, RefusedError
from effvit_med.volume import Code, Finding, Geometry, Label, LabelTable, Provenance, Segmentation, Source, SourceFile
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE

SEG_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of Segmentation Storage and Label Map Segmentation Storage (PS3.4 section B.5)."""

_COLOURS = ((221, 130, 101), (157, 108, 162), (185, 102, 83), (111, 184, 210), (216, 101, 79), (128, 174, 128))


def is_dicom_seg(path: Path) -> bool:
    """Whether a file is a DICOM segmentation, judged by its header.

    Args:
        path: any file.
    """
    try:
        dataset = pydicom.dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True)
    except (OSError, InvalidDicomError, ValueError, EOFError):
        return False
    return str(dataset.get("SOPClassUID", "")) in SEG_CLASSES


def read_dicom_seg(path: Path) -> Segmentation:
    """Read a DICOM Segmentation as labels on a grid of its own.

    The grid has the place and direction of the frames. Slices at the ends that hold no structure may be missing from
    the file, and are then missing from the grid. The axes are slice, row, column. Label values are the segment numbers.

    Args:
        path: the file.

    Returns:
        The labels, uint8 or uint16. The provenance has no bundle: it names the file.

    Raises:
        InputError: if the file cannot be read or is no segmentation.
        RefusedError: ``OVERLAPPING_SEGMENTS``, if a voxel belongs to several; ``IRREGULAR_SEG``, if the frames do not
            make a regular grid; ``FRACTIONAL_SEG``, if they hold fractions.

    Source:
        DICOM PS3.3 section A.51 (Segmentation IOD), section C.8.20 (Segmentation modules).
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote values of the header, which may be names
            dataset = hd.seg.segread(pydicom.filebase.DicomBytesIO(content))
    except (OSError, InvalidDicomError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{path.name} cannot be read as a DICOM segmentation.") from error
    if dataset.segmentation_type == hd.seg.SegmentationTypeValues.FRACTIONAL:
        message = f"{path.name} holds fractions from 0 to 1, no labels."
        raise RefusedError("FRACTIONAL_SEG", message, "Write it as BINARY or LABELMAP.")
    labels, affine = _read_labels(dataset, path)
    table = _read_table(dataset)
    source = Source(
        case_id="",
        kind="DICOM SEG",
        files=(SourceFile(path, hashlib.sha256(content).hexdigest(), str(dataset.SOPInstanceUID)),),
        study_instance_uid=str(dataset.StudyInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        findings=(Finding("READ_FROM_SEG", "The labels were read from a DICOM segmentation, not made here."),),
    )
    try:
        geometry = Geometry(affine, labels.shape, str(dataset.get("FrameOfReferenceUID", "")))
    except GeometryError as error:
        raise RefusedError("IRREGULAR_SEG", f"{path.name}: {error}", "") from error
    started = str(dataset.get("ContentDate", ""))
    provenance = Provenance("", "", "", {}, {}, "", started, source, findings=source.findings)
    return Segmentation(labels, geometry, table, provenance)


def _read_labels(dataset: Any, path: Path) -> tuple[Any, Any]:
    kind = np.uint8 if max(dataset.segment_numbers, default=0) < 256 else np.uint16
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            volume = dataset.get_volume(combine_segments=True, dtype=kind)
    except RuntimeError as error:
        message = f"{path.name}: {' '.join(str(error).split())}"
        overlap = "overlap" in str(error).lower()
        code = "OVERLAPPING_SEGMENTS" if overlap else "IRREGULAR_SEG"
        raise RefusedError(code, message, "Only segmentations on one regular grid without overlap are read.") from error
    except (ValueError, AttributeError, KeyError, IndexError) as error:
        raise InputError(f"{path.name} has damaged frames: {' '.join(str(error).split())[:200]}") from error
    return volume.array, volume.affine


def _read_table(dataset: Any) -> LabelTable:
    """The segments; a name that stands twice gets the number of its segment."""
    labels = [_describe(dataset.get_segment_description(number)) for number in dataset.segment_numbers if number > 0]
    names = [label.name for label in labels]
    return LabelTable(
        tuple(
            label if names.count(label.name) == 1 else replace(label, name=f"{label.name} ({label.value})")
            for label in labels
        )
    )


def _describe(description: Any) -> Label:
    kind, category = description.segmented_property_type, description.segmented_property_category
    item = description.SegmentedPropertyTypeCodeSequence[0]
    sides = item.get("SegmentedPropertyTypeModifierCodeSequence") or [None]
    number = int(description.segment_number)
    return Label(
        value=number,
        name=str(description.segment_label) or f"segment {number}",
        type=Code(str(kind.value), str(kind.meaning), str(kind.scheme_designator)),
        category=Code(str(category.value), str(category.meaning), str(category.scheme_designator))
        if category is not None
        else ANATOMICAL_STRUCTURE,
        laterality=_side(sides[0]),
        colour=_colour_of(description, number),
    )


def _side(item: Any) -> Code | None:
    if item is None:
        return None
    return Code(str(item.CodeValue), str(item.CodeMeaning), str(item.CodingSchemeDesignator))


def _colour_of(description: Any, number: int) -> tuple[int, int, int]:
    values = description.get("RecommendedDisplayCIELabValue")
    if values is None or len(values) != 3:
        return _COLOURS[(number - 1) % len(_COLOURS)]
    red, green, blue = hd.color.CIELabColor.from_dicom_value(tuple(int(each) for each in values)).to_rgb()
    return int(red), int(green), int(blue)
