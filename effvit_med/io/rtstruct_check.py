"""A second look at an RT Structure Set before anyone sees it: do its contours give the labels back?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.tag import Tag

from effvit_med.errors import GeometryError, OutputError
from effvit_med.io.contours import FloatArray, fill_outlines
from effvit_med.io.dicom_seg_headers import Headers
from effvit_med.volume.counts import count_values
from effvit_med.volume.overlaps import count_structures, take_structure
from effvit_med.volume.segmentation import Segmentation

_CONTOUR_DATA = Tag("ContourData")
_OFF_PLANE = 0.25  # of the way to the next slice; the reader may have straightened positions


def check_contours(path: Path, segmentation: Segmentation, headers: Headers) -> None:
    """Make sure that filling the contours of a written file gives the labels, voxel for voxel.

    The numbers of the file are brought onto the grid of the labels, not onto the slices they were drawn on, so that a
    contour drawn at a wrong place is found.

    Args:
        path: the file.
        segmentation: what was written.
        headers: of the source slices.

    Raises:
        GeometryError: if the file names another frame of reference, or a contour does not lie in the plane of the
            slice that it names.
        OutputError: if a voxel differs.
    """
    dataset = pydicom.dcmread(path)
    uid = segmentation.geometry.frame_of_reference_uid
    named = {str(roi.ReferencedFrameOfReferenceUID) for roi in dataset.StructureSetROISequence}
    if uid and named | {str(dataset.FrameOfReferenceUID)} != {uid}:
        raise GeometryError(f"The structure set has the frames of reference {sorted(named)}, the labels {uid}.")
    slice_of = {(each.sop_instance_uid, each.frame): k for k, each in enumerate(headers.references)}
    size = max(label.value for label in segmentation.table) + 1
    counts = count_structures(count_values(segmentation.labels, size=size), segmentation.table)
    found = np.zeros_like(counts)
    for roi in dataset.ROIContourSequence:
        value = int(roi.ReferencedROINumber)
        for contour in roi.get("ContourSequence") or []:
            image = contour.ContourImageSequence[0]
            k = slice_of[str(image.ReferencedSOPInstanceUID), int(image.get("ReferencedFrameNumber") or 0)]
            outline = _read_outline(contour, segmentation, k)
            found[k, value] += _count_inside(outline, segmentation, k, value)
    if not np.array_equal(found[:, 1:], counts[:, 1:]):
        wrong = int(np.abs(found[:, 1:] - counts[:, 1:]).sum())
        raise OutputError(f"The written contours leave out {wrong} labelled voxels; the file was not kept.")


def _read_outline(contour: Any, segmentation: Segmentation, k: int) -> FloatArray:
    """The path of a contour in rows and columns of the labels."""
    numbers = np.fromstring(contour.get_item(_CONTOUR_DATA).value.decode("ascii"), sep="\\").reshape(-1, 3)
    index = segmentation.geometry.world_to_index(numbers)
    off = float(np.abs(index[:, 0] - k).max())
    if off > _OFF_PLANE:
        raise GeometryError(
            f"A contour of slice {k} lies {off:.3g} slices away from it; the labels are not on the grid of the source "
            "slices."
        )
    return index[:, 1:]


def _count_inside(outline: FloatArray, segmentation: Segmentation, k: int, value: int) -> int:
    """How many voxels a contour holds; all of them must have the label."""
    rows, columns = segmentation.geometry.shape[1:]
    first = np.maximum(np.floor(outline.min(axis=0)).astype(int), 0)
    last = np.minimum(np.ceil(outline.max(axis=0)).astype(int) + 1, (rows, columns))
    inside = fill_outlines([outline - first], (int(last[0] - first[0]), int(last[1] - first[1])))
    labels = segmentation.labels[k, first[0] : last[0], first[1] : last[1]]
    if not take_structure(labels[inside], value, overlaps=segmentation.table.overlaps).all():
        raise OutputError(f"A written contour of slice {k} holds voxels without its label; the file was not kept.")
    return int(np.count_nonzero(inside))
