"""One way to read a case, whatever its format."""

from __future__ import annotations

from effvit_med.io.cases import DicomSeries, NiftiFile, ReadOptions
from effvit_med.io.dicom import read_series
from effvit_med.io.nifti import read_nifti
from effvit_med.volume import Volume


def read_case(case: DicomSeries | NiftiFile, options: ReadOptions | None = None) -> Volume:
    """Read the voxels of a case.

    Args:
        case: as `effvit_med.io.find.open_input` gives it.
        options: of these, ``spill_mb``: a larger scan lies in a temporary file, and its array cannot be written to.

    Returns:
        The volume; its source carries the case's ``case_id`` and findings.

    Raises:
        RefusedError: if the pixels cannot be read rightly; the message names the file.
        InputError: if a file cannot be read at all.
        OutputError: if the temporary file does not fit onto its disk.
    """
    spill_mb = (options or ReadOptions()).spill_mb
    if isinstance(case, NiftiFile):
        return read_nifti(case.path, case.case_id, spill_mb)
    return read_series(case, spill_mb)
