"""One way to read a case, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from effvit_med.errors import InputError
from effvit_med.io.cases import Case, NiftiFile, PhotographFile, ReadOptions
from effvit_med.io.dicom import read_series
from effvit_med.io.find import open_input
from effvit_med.io.itk_images import read_metaimage, read_nrrd
from effvit_med.io.nifti import is_nifti_name, read_nifti
from effvit_med.io.photograph_labels import read_picture_values
from effvit_med.io.photographs import LUMA, is_photograph_name, read_photograph
from effvit_med.volume import Geometry, Volume


def read_case(case: Case, options: ReadOptions | None = None) -> Volume:
    """Read the voxels of a case.

    Args:
        case: as `effvit_med.io.find.open_input` gives it.
        options: of these, ``spill_mb``: a larger scan lies in a temporary file, and its array cannot be written to; and
            ``colour_weights`` of photographs.

    Returns:
        The volume; its source carries the case's ``case_id`` and findings.

    Raises:
        RefusedError: if the pixels cannot be read rightly; the message names the file.
        InputError: if a file cannot be read at all.
        OutputError: if the temporary file does not fit onto its disk.
    """
    options = options or ReadOptions()
    spill_mb = options.spill_mb
    if isinstance(case, PhotographFile):
        return read_photograph(case.path, case.case_id, options.colour_weights)
    if isinstance(case, NiftiFile):
        return read_nifti(case.path, case.case_id, spill_mb)
    return read_series(case, spill_mb)


def read_scan(path: Path, colour_weights: Sequence[float] = LUMA) -> Volume:
    """Read the one scan of a path; a label map is read as a scan, too.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a photograph, or a folder with one DICOM series.
        colour_weights: shares of red, green and blue in the one channel of a photograph.

    Raises:
        InputError: if the path does not hold exactly one scan that can be read.
        RefusedError: if its pixels cannot be read rightly.
    """
    name = path.name.lower()
    if path.is_file() and is_nifti_name(path):
        return read_nifti(path)
    if path.is_file() and name.endswith((".nrrd", ".mha", ".mhd")):
        return read_nrrd(path) if name.endswith(".nrrd") else read_metaimage(path)
    if path.is_file() and is_photograph_name(path):
        return read_photograph(path, colour_weights=colour_weights)
    with open_input(path) as found:
        if len(found.cases) != 1:
            refused = "; ".join(f"{case.case_id}: {case.message}" for case in found.refused)
            raise InputError(f"{path} holds {len(found.cases)} cases to read, not one. {refused}".strip())
        return read_case(found.cases[0])


def read_truth(path: Path, scan: Geometry) -> Volume:
    """Read the label map of a scan, to learn from.

    The label map of a photograph has the numbers of its pixels, whatever colours they stand for, and lies where the
    photograph lies if it has as many pixels: what a file says about the size of a pixel is often wrong.

    Args:
        path: a file, or a folder with one DICOM series, as of `read_scan`.
        scan: where the voxels of its scan lie.

    Raises:
        InputError: if the path does not hold exactly one label map that can be read.
        RefusedError: if its pixels cannot be read rightly; ``NOT_GRAYSCALE`` for colours or JPEG.
    """
    if not (path.is_file() and is_photograph_name(path)):
        return read_scan(path)
    values, place, source = read_picture_values(path)
    return Volume(values, scan if scan.shape == place.shape else place, source=source)
