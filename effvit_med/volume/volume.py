"""A scan in memory: voxel values, where they lie, and the files they came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import GeometryError
from effvit_med.volume.geometry import Geometry

PHOTOGRAPH = "photograph"
"""The kind of source of a picture of one plane: PNG, JPEG or TIFF."""

SPACING_ASSUMED = "SPACING_ASSUMED"
"""The code of the finding that a source does not say how large its pixels are."""


@dataclass(frozen=True)
class Finding:
    """Something the reader noticed and the user should know: a guess, a repair, an oddity.

    Attributes:
        code: a short machine-readable word such as ``SHEARED`` or ``NO_MODALITY``.
        message: one sentence with the value and the place.
    """

    code: str
    message: str


@dataclass(frozen=True)
class SourceFile:
    """One file a volume was read from.

    Attributes:
        path: where it lies now.
        sha256: hex digest of its bytes.
        sop_instance_uid: DICOM SOP Instance UID (0008,0018); empty for other formats.
        frame: which frame of a multi-frame DICOM file, from 1; 0 for a file that is one image.
    """

    path: Path
    sha256: str
    sop_instance_uid: str = ""
    frame: int = 0


@dataclass(frozen=True)
class Source:
    """What a volume was read from.

    Attributes:
        case_id: a name for folders and tables that carries no patient name.
        kind: ``"DICOM"`` (images), ``"NIfTI"``, ``"NRRD"``, ``"MetaImage"``, ``"DICOM SEG"`` or ``"photograph"``.
        files: the files; for DICOM one per slice, in the order of array axis 0, with the number of its frame.
        study_instance_uid: DICOM Study Instance UID (0020,000D); empty for other formats.
        series_instance_uid: DICOM Series Instance UID (0020,000E); empty for other formats.
        findings: what the reader noticed.
    """

    case_id: str
    kind: str
    files: tuple[SourceFile, ...]
    study_instance_uid: str = ""
    series_instance_uid: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan: one value per voxel, in the unit of its modality.

    Args:
        array: (a0, a1, a2) values; HU for CT. For DICOM the axes are slice, row, column.
        geometry: where the voxels lie; its shape is the array's.
        modality: DICOM Modality (0008,0060), such as ``CT`` or ``MR``; empty if unknown.
        source: what it was read from; None for a volume made in memory.

    Raises:
        GeometryError: if the array's shape is not the geometry's.
    """

    array: npt.NDArray[Any]
    geometry: Geometry
    modality: str = ""
    source: Source | None = None

    def __post_init__(self) -> None:
        if tuple(self.array.shape) != self.geometry.shape:
            raise GeometryError(f"The array has shape {self.array.shape}, its geometry {self.geometry.shape}.")
        if not np.issubdtype(self.array.dtype, np.number) or np.iscomplexobj(self.array):
            raise GeometryError(f"The array has type {self.array.dtype}; a volume holds real numbers.")

    @property
    def is_photograph(self) -> bool:
        """Whether it was read from a photograph: one plane, of which areas mean something and volumes do not."""
        return self.source is not None and self.source.kind == PHOTOGRAPH

    def reoriented(self, orientation: str) -> Volume:
        """The same scan with its axes transposed and flipped; the array is a view.

        Args:
            orientation: letters towards which the axes shall grow, such as ``"SPL"``.

        Raises:
            GeometryError: if the letters do not name three different patient axes.
        """
        array = self.geometry.reorient_array(self.array, orientation)
        return replace(self, array=array, geometry=self.geometry.reoriented(orientation))
