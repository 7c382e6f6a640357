"""Files: the only room that knows their formats."""

from effvit_med.io.colours import write_slicer_colours, write_snap_labels
from effvit_med.io.dicom_origin import why_no_dicom
from effvit_med.io.dicom_seg import SegOptions, why_no_dicom_seg, write_dicom_seg
from effvit_med.io.dicom_seg_revision import Predecessor, Revision, read_predecessor
from effvit_med.io.dicom_sr import write_dicom_sr
from effvit_med.io.find import (
    DicomSeries,
    Found,
    NiftiFile,
    PhotographFile,
    ReadOptions,
    RefusedCase,
    SetAside,
    open_input,
)
from effvit_med.io.nifti import read_nifti, write_confidence, write_nifti, write_volume
from effvit_med.io.nrrd import write_nrrd
from effvit_med.io.overlay import write_overlay
from effvit_med.io.photograph_labels import write_photograph_labels, write_plane
from effvit_med.io.photograph_overlay import write_photograph_overlay
from effvit_med.io.photographs import read_photograph
from effvit_med.io.read import read_case, read_scan
from effvit_med.io.report import write_record
from effvit_med.io.rtstruct import write_rtstruct
from effvit_med.io.tables import write_measurements_csv, write_measurements_json

__all__ = [
    "DicomSeries",
    "Found",
    "NiftiFile",
    "PhotographFile",
    "Predecessor",
    "ReadOptions",
    "RefusedCase",
    "Revision",
    "SegOptions",
    "SetAside",
    "open_input",
    "read_case",
    "read_nifti",
    "read_photograph",
    "read_predecessor",
    "read_scan",
    "why_no_dicom",
    "why_no_dicom_seg",
    "write_confidence",
    "write_dicom_seg",
    "write_dicom_sr",
    "write_measurements_csv",
    "write_measurements_json",
    "write_nifti",
    "write_nrrd",
    "write_overlay",
    "write_photograph_labels",
    "write_photograph_overlay",
    "write_plane",
    "write_record",
    "write_rtstruct",
    "write_slicer_colours",
    "write_snap_labels",
    "write_volume",
]
