"""From napari's layers to the scans and labels they show. Knows napari's layers, but no Qt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effvit_med.errors import InputError
from effvit_med.volume import Segmentation, Volume
from napari_effvit_med.layers import LayerRecord, foreign_grid, record_of
from napari_effvit_med.writing import segmentation_of

SAME_MM = 0.01
"""Labels whose voxels lie farther than this from those of a scan are not its labels."""


def volume_of(layer: Any) -> Volume:
    """The scan of an image layer, on its own grid.

    Args:
        layer: of napari; one that this plugin did not make is taken to lie where napari draws it, as (-z, y, x) in mm.

    Raises:
        InputError: if its values are not those of a scan.
        GeometryError: if it has no place in a patient.
    """
    record = record_of(layer.metadata)
    if record is not None and record.volume is not None:
        return record.volume
    if record is None:
        record = LayerRecord(foreign_grid(_affine_of(layer), layer.data.shape))
    import numpy as np

    data = np.asarray(layer.data)
    if data.dtype.kind not in "iuf":
        raise InputError(f"{layer.name} holds values of type {data.dtype}; a scan has numbers.")
    return Volume(record.grid.unview(data), record.grid.geometry)


def labels_of(layer: Any, scan: Any, volume: Volume) -> Segmentation:
    """The labels of a layer on the grid of a scan, as a copy.

    Args:
        layer: a labels layer.
        scan: the image layer of the scan.
        volume: the scan, as `volume_of` gives it.

    Raises:
        InputError: if they do not lie on its voxels.
        OutputError: as of `segmentation_of`.
    """
    meta = {"name": layer.name, "metadata": layer.metadata, "scale": layer.scale}
    meta |= {"translate": layer.translate, "rotate": layer.rotate, "affine": layer.affine.affine_matrix}
    segmentation = segmentation_of(layer.data.copy(), meta, [scan])
    if segmentation.geometry.max_distance_mm(volume.geometry) > SAME_MM:
        raise InputError(f"{layer.name} does not lie on the voxels of {scan.name}; choose the scan it belongs to.")
    return segmentation


def seg_file_of(labels: Any) -> Path | None:
    """The DICOM SEG that a layer was opened from."""
    record = record_of(labels.metadata)
    source = record.segmentation.provenance.source if record and record.segmentation else None
    return source.files[0].path if source and source.kind == "DICOM SEG" and source.files else None


def _affine_of(layer: Any) -> Any:
    """From the data of a layer to napari's world, by what napari says of four points."""
    import numpy as np

    points = np.vstack([np.zeros(3), np.eye(3)])
    ends = [np.asarray(layer.data_to_world(point), dtype=float) for point in points]
    affine = np.eye(4)
    affine[:3, 3] = ends[0]
    affine[:3, :3] = np.stack([end - ends[0] for end in ends[1:]], axis=1)
    return affine
