"""What napari's File > Save does with a labels layer: it goes back onto the grid of the scan it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import effvit_med
from effvit_med.errors import GeometryError, OutputError
from effvit_med.volume import Geometry, Label, LabelTable, Provenance, Segmentation, Volume
from effvit_med.volume.counts import digest_labels
from napari_effvit_med.layers import LayerRecord, foreign_grid, record_of

EDITOR = "napari"
_FIT_VOXELS = 0.05


def write_dicom_seg_layer(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Save a labels layer as DICOM SEG on the slices of its scan.

    Args:
        path: to write.
        data: of the layer.
        meta: its attributes, as napari gives them.

    Returns:
        The path.

    Raises:
        OutputError: if the layer belongs to no DICOM scan, or the file cannot be written; the text says what to do.
        InputError: if the files of the scan are gone or have changed.
    """
    from effvit_med.io import write_dicom_seg

    segmentation = segmentation_of(data, meta, _open_layers())
    write_dicom_seg(segmentation, Path(path))
    return [path]


def write_nifti_layer(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Save a labels layer as NIfTI on the grid of its scan, and what the values mean beside it.

    Args:
        path: to write, ``.nii`` or ``.nii.gz``.
        data: of the layer.
        meta: its attributes, as napari gives them.

    Returns:
        The path.

    Raises:
        OutputError: if the values are no labels, or the file cannot be written; the text says what to do.
    """
    from effvit_med.io import write_nifti

    write_nifti(segmentation_of(data, meta, _open_layers()), Path(path))
    return [path]


def segmentation_of(data: Any, meta: Mapping[str, Any], layers: Iterable[Any] = ()) -> Segmentation:
    """The labels of a layer on the grid of the scan they belong to.

    A layer that this plugin did not make takes the scan, among the open layers, that is shown exactly where it is.

    Args:
        data: of the layer.
        meta: its attributes, as napari gives them.
        layers: what is open.

    Returns:
        The labels. Where they were painted on, their provenance says so and gives them an identity of their own.

    Raises:
        OutputError: if the layer was resampled for display, has no place, or its values are no labels.
    """
    name = str(meta.get("name", "the layer"))
    layers = list(layers)
    record = record_of(meta.get("metadata", {})) or _record_of_place(data, meta, layers) or _foreign(data, meta, name)
    if record.is_resampled:
        raise OutputError(
            f"{name} was resampled to be shown beside another scan, so saving it would change its voxels; "
            "open it in a viewer of its own."
        )
    if tuple(data.shape) != record.grid.shape:
        raise OutputError(f"{name} has the shape {tuple(data.shape)}, its scan {record.grid.shape}.")
    labels, geometry = _as_labels(record.grid.unview(np.asarray(data)), name), record.grid.geometry
    made = record.segmentation
    if made is not None and record.digest and digest_labels(labels.astype(made.labels.dtype)) == record.digest:
        provenance = made.provenance  # as it was made; saved again it is the same file
        edited = False
    else:
        provenance, edited = made.provenance if made else _empty_provenance(), True
    volume = record.volume or _find_scan(geometry, layers)
    if volume is not None and not _has_images(provenance):
        labels, geometry = _fit(labels, geometry, volume.geometry), volume.geometry
        provenance = replace(provenance, source=volume.source)
    table = complete_table(made.table if made else LabelTable(()), labels)
    if edited:
        provenance = mark_edited(provenance, labels)
    return Segmentation(labels, geometry, table, provenance)


def complete_table(table: LabelTable, labels: npt.NDArray[np.unsignedinteger]) -> LabelTable:
    """The table with a plain row for each value it does not know.

    Args:
        table: what is known.
        labels: the values.
    """
    from effvit_med.io.itk_images import plain_table

    known = {label.value for label in table}
    names = {label.name for label in table}
    found = [value for value in np.flatnonzero(np.bincount(labels.ravel())).tolist() if value not in known]
    added: list[Label] = [
        row if row.name not in names else replace(row, name=f"{row.name} (painted)") for row in plain_table(found)
    ]
    return LabelTable((*table, *added))


def mark_edited(provenance: Provenance, labels: npt.NDArray[np.unsignedinteger]) -> Provenance:
    """The provenance of labels that a person has painted on.

    Args:
        provenance: of what was painted on.
        labels: as they are now; their digest goes into the identity.
    """
    values = np.flatnonzero(np.bincount(labels.ravel())).tolist()
    settings = {
        **provenance.settings,
        "edited_in": EDITOR,
        "edited_values": [value for value in values if value > 0],
        "labels_digest": digest_labels(labels),
    }
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(provenance, settings=settings, started=started, bundle=provenance.bundle or EDITOR)


def _as_labels(values: npt.NDArray[Any], name: str) -> Any:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if low < 0 or high > 65535:
        raise OutputError(f"{name} has values from {low} to {high}; labels from 0 to 65535 can be saved.")
    return np.ascontiguousarray(values, np.uint8 if high < 256 else np.uint16)


def _empty_provenance() -> Provenance:
    return Provenance("", "", "", {}, {"effvit-med": effvit_med.__version__}, "", "")


def _has_images(provenance: Provenance) -> bool:
    return provenance.source is not None and provenance.source.kind != "DICOM SEG"


def _record_of_place(data: Any, meta: Mapping[str, Any], layers: Iterable[Any]) -> LayerRecord | None:
    """That of a scan that is shown with the same shape at the same place."""
    for layer in layers:
        record = record_of(layer.metadata)
        if record is None or record.volume is None or record.is_resampled or record.grid.shape != tuple(data.shape):
            continue
        same = (
            np.allclose(meta.get(key, default), getattr(record.grid, key), atol=1e-4)
            for key, default in (("scale", (1, 1, 1)), ("translate", (0, 0, 0)))
        )
        if all(same):
            return LayerRecord(record.grid, record.volume)
    return None


def _foreign(data: Any, meta: Mapping[str, Any], name: str) -> LayerRecord:
    affine = np.eye(4)
    try:
        if len(data.shape) != 3:
            raise GeometryError(f"it has {len(data.shape)} axes, not 3")
        affine[:3, :3] = np.asarray(meta.get("rotate", np.eye(3))) @ np.diag(meta.get("scale", (1, 1, 1)))
        affine[:3, 3] = meta.get("translate", (0, 0, 0))
        affine = np.asarray(meta.get("affine", np.eye(4)), dtype=np.float64) @ affine
        return LayerRecord(foreign_grid(affine, data.shape))
    except (GeometryError, ValueError) as error:
        raise OutputError(
            f"{name} has no place in a patient: {error}. Open its scan with this plugin first."
        ) from error


def _find_scan(geometry: Geometry, layers: Iterable[Any]) -> Volume | None:
    """The one open scan on whose voxels a grid lies."""
    records = (record_of(layer.metadata) for layer in layers)
    volumes = {id(record.volume): record.volume for record in records if record is not None and record.volume}
    fitting = [volume for volume in volumes.values() if _offset(geometry, volume.geometry) is not None]
    return fitting[0] if len(fitting) == 1 else None


def _offset(geometry: Geometry, target: Geometry) -> tuple[int, int, int] | None:
    """The index on another grid of the first voxel of a grid that is a part of it; None if it is none."""
    turned = geometry.reoriented(target.orientation)
    last = np.array(turned.shape) - 1.0
    ends = np.vstack([np.zeros(3), np.diag(last), last])
    found = target.world_to_index(turned.index_to_world(ends))
    first = np.rint(found[0])
    if np.abs(found - (first + ends)).max() > _FIT_VOXELS or (first < 0).any():
        return None
    if (first + last > np.array(target.shape) - 1).any():
        return None
    return int(first[0]), int(first[1]), int(first[2])


def _fit(labels: Any, geometry: Geometry, target: Geometry) -> Any:
    """Labels of a part of a grid on the whole of it; axes may run against one another."""
    offset = _offset(geometry, target)
    if offset is None or geometry == target:
        return labels
    axes, flips = geometry.reorienting(target.orientation)
    turned = np.flip(labels.transpose(axes), tuple(axis for axis in range(3) if flips[axis]))
    whole = np.zeros(target.shape, labels.dtype)
    whole[tuple(slice(begin, begin + size) for begin, size in zip(offset, turned.shape, strict=True))] = turned
    return whole


def _open_layers() -> list[Any]:
    try:
        from napari import current_viewer
    except ImportError:
        return []
    viewer = current_viewer()
    return [] if viewer is None else list(viewer.layers)
