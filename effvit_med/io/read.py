"""One way to read a case, whatever its format."""

from __future__ import annotations

from effvit_med.io.cases import DicomSeries, NiftiFile
from effvit_med.io.dicom import read_series
from effvit_med.io.nifti import read_nifti
from effvit_med.volume import Volume


def read_case(case: DicomSeries | NiftiFile) -> Volume:
    """Read the voxels of a case.

    Args:
        case: as `effvit_med.io.find.open_input` gives it.

    Returns:
        The volume; its source carries the case's ``case_id`` and findings.

    Raises:
        RefusedError: if the pixels cannot be read rightly; the message names the file.
        InputError: if a file cannot be read at all.
    """
    if isinstance(case, NiftiFile):
        return read_nifti(case.path, case.case_id)
    return read_series(case)
