"""What one image says of itself: where it lies and what it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from effvit_med.io.dicom_extents import Flaw

# Attributes by which scanners keep several volumes in one series, best first. Private ones are of Siemens (0019),
# GE (0043), Philips (2001) and United Imaging (0065).
SPLIT_ATTRIBUTES: Mapping[str, str | int] = {
    "TemporalPositionIdentifier": "TemporalPositionIdentifier",
    "TemporalPositionIndex": "TemporalPositionIndex",
    "DiffusionBValue": "DiffusionBValue",
    "b-value (private 0019,100C)": 0x0019100C,
    "b-value (private 0043,1039)": 0x00431039,
    "b-value (private 2001,1003)": 0x20011003,
    "b-value (private 0065,1009)": 0x00651009,
    "DiffusionDirectionality": "DiffusionDirectionality",
    "DiffusionGradientOrientation": "DiffusionGradientOrientation",
    "gradient direction (private 0019,100E)": 0x0019100E,
    "gradient direction (private 0065,1037)": 0x00651037,
    "gradient (private 0019,10BB)": 0x001910BB,
    "gradient (private 0019,10BC)": 0x001910BC,
    "gradient (private 0019,10BD)": 0x001910BD,
    "gradient (private 2005,10B0)": 0x200510B0,
    "gradient (private 2005,10B1)": 0x200510B1,
    "gradient (private 2005,10B2)": 0x200510B2,
    "Image Index": 0x00541330,
    "EchoTime": "EchoTime",
    "EffectiveEchoTime": "EffectiveEchoTime",
    "EchoNumbers": "EchoNumbers",
    "InversionTime": "InversionTime",
    "InversionTimes": "InversionTimes",
    "RepetitionTime": "RepetitionTime",
    "FlipAngle": "FlipAngle",
    "TriggerTime": "TriggerTime",
    "NominalCardiacTriggerDelayTime": "NominalCardiacTriggerDelayTime",
    "NominalPercentageOfCardiacPhase": "NominalPercentageOfCardiacPhase",
    "TemporalPositionTimeOffset": "TemporalPositionTimeOffset",
    "FrameReferenceTime": "FrameReferenceTime",
    "AcquisitionNumber": "AcquisitionNumber",
    "FrameAcquisitionNumber": "FrameAcquisitionNumber",
    "KVP": "KVP",
    "ImageType": "ImageType",
    "FrameType": "FrameType",
    "ComplexImageComponent": "ComplexImageComponent",
    "image kind (private 0043,102F)": 0x0043102F,
    "SequenceName": "SequenceName",
    "ConvolutionKernel": "ConvolutionKernel",
    "ContrastBolusAgent": "ContrastBolusAgent",
    "SeriesDescription": "SeriesDescription",
    "AcquisitionDateTime": "AcquisitionDateTime",
    "FrameAcquisitionDateTime": "FrameAcquisitionDateTime",
    "AcquisitionTime": "AcquisitionTime",
    "ContentTime": "ContentTime",
    "StackID": "StackID",
}
DIMENSIONS = "DimensionIndexValues"
SPLIT_NAMES = (*SPLIT_ATTRIBUTES, DIMENSIONS)
"""The names of ``Header.attributes``, in their order."""


@dataclass(frozen=True, slots=True)
class Header:
    """What one image says of itself: a file, or one frame of it; None or empty where it says nothing or nonsense.

    Attributes:
        path: the file.
        frame: the number of the frame in its file, from 1; 0 for a file that is one image; -1, -2, ... for the tiles of
            a mosaic.
        frames: Number of Frames (0028,0008) of the file; 1 if absent.
        sop_instance_uid: SOP Instance UID (0008,0018).
        study_instance_uid: Study Instance UID (0020,000D).
        series_instance_uid: Series Instance UID (0020,000E).
        series_number: Series Number (0020,0011) as text.
        series_description: Series Description (0008,103E).
        modality: Modality (0008,0060).
        instance_number: Instance Number (0020,0013).
        rows: Rows (0028,0010); 0 if absent.
        columns: Columns (0028,0011); 0 if absent.
        pixel_spacing: mm between rows, mm between columns (0028,0030).
        slice_thickness: mm (0018,0050).
        orientation: the direction along a row, then down a column (0020,0037).
        position: centre of the first voxel in mm, LPS (0020,0032).
        frame_of_reference_uid: Frame of Reference UID (0020,0052).
        image_type: values of Image Type (0008,0008).
        attributes: values as text of the attributes that may tell volumes of one series apart: see `SPLIT_NAMES`.
        flaw: why the pixels cannot be read, as far as the header and lengths tell; None if they seem whole.
        notes: codes of what the user should know of the values: ``MONOCHROME1``, ``ZERO_SLOPE``.
        identity_removed: whether Patient Identity Removed (0012,0062) is YES.
        grid: number of slices that a United Imaging scanner has put into one image (0065,1050); 0 where it says none.
    """

    path: Path
    frame: int
    frames: int
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    series_number: str
    series_description: str
    modality: str
    instance_number: int | None
    rows: int
    columns: int
    pixel_spacing: tuple[float, ...] | None
    slice_thickness: float | None
    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    frame_of_reference_uid: str
    image_type: tuple[str, ...]
    attributes: tuple[str, ...]
    flaw: Flaw | None
    notes: tuple[str, ...]
    identity_removed: bool = False
    grid: int = 0
