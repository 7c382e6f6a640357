"""Which files there are to be: what a scan allows, what is added, and why something is not possible."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effvit_med.engine.results import OUTPUT_FILES, Job, choose_output_types, write_results
from effvit_med.engine.stopwatch import Stopwatch
from effvit_med.errors import OutputError, RefusedError
from effvit_med.io import SegOptions
from effvit_med.volume import Code, Geometry, Label, LabelTable, Segmentation, Volume
from effvit_med.volume.measurements import measure
from tests.io.source_series import FRAME_UID, axial, random_labels, segment, write_series

ALL = ("dicom-seg", "rtstruct", "nifti", "nrrd", "dicom-sr")


@pytest.fixture(name="scan")
def _scan(tmp_path: Path) -> Volume:
    """A small DICOM series."""
    (tmp_path / "series").mkdir()
    return write_series(tmp_path / "series", axial())


def write(segmentation: Segmentation, volume: Volume, folder: Path, job: Job) -> tuple[dict[str, Path], list[str]]:
    """The files, and the codes of what their writers say."""
    folder.mkdir()
    files, notes = write_results(volume, segmentation, measure(volume, segmentation), folder, job, Stopwatch())
    return files, [note.code for note in notes]


def test_usual_types_are_a_seg_and_nifti(scan: Volume) -> None:
    """Without a choice other types are not written."""
    assert choose_output_types(scan, Job()) == (("dicom-seg", "nifti"), ())


def test_report_brings_its_seg_along(scan: Volume) -> None:
    """A report alone is written with the SEG that it refers to, and that is said."""
    chosen, findings = choose_output_types(scan, Job(output_types=("dicom-sr", "nrrd")))
    assert set(chosen) == {"dicom-seg", "dicom-sr", "nrrd"}
    assert [finding.code for finding in findings] == ["DICOM_SEG_ADDED"]


@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct", "dicom-sr"])
def test_dicom_of_what_is_no_dicom_is_refused(scan: Volume, kind: str) -> None:
    """A DICOM result that was asked for is refused where the input is no DICOM."""
    volume = replace(scan, source=replace(scan.source, kind="NIfTI"))
    with pytest.raises(RefusedError, match=rf"NO_DICOM_SOURCE: .* Leave out --output-type {kind}\."):
        choose_output_types(volume, Job(output_types=(kind,)))


@pytest.mark.parametrize(("kind", "code"), [("nifti", "NOT_IN_NIFTI"), ("nrrd", "NOT_IN_NRRD")])
def test_unequal_slices_do_not_fit_into_image_files(scan: Volume, kind: str, code: str) -> None:
    """A type that cannot hold unequal slice distances is refused if it was asked for."""
    grid = Geometry(axial().affine, axial().shape, FRAME_UID, (0.0, 1.0, 2.0, 3.5, 5.0))
    with pytest.raises(RefusedError, match=code):
        choose_output_types(replace(scan, geometry=grid), Job(output_types=(kind,)))


def test_sheared_image_files_are_told(scan: Volume) -> None:
    """A finding for each image file of a tilted scan; a structure set has none."""
    affine = axial().affine.copy()
    affine[1, 0] = 0.8
    tilted = replace(scan, geometry=Geometry(affine, axial().shape, FRAME_UID))
    _, findings = choose_output_types(tilted, Job(output_types=("rtstruct", "nrrd", "nifti")))
    assert [finding.code for finding in findings] == ["NIFTI_SHEARED", "NRRD_SHEARED"]


def test_every_type_is_written_under_its_name(scan: Volume, tmp_path: Path) -> None:
    """All that was asked for lies in the folder, with the tables beside NIfTI."""
    segmentation = segment(scan, random_labels(axial().shape))
    files, _ = write(segmentation, scan, tmp_path / "out", Job(output_types=ALL))
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {OUTPUT_FILES[kind] for kind in (*ALL, "labels", "slicer-colours", "snap-labels")} <= names
    assert {path.name for path in files.values()} == names


def test_empty_result_has_no_report_and_says_so(scan: Volume, tmp_path: Path) -> None:
    """Where nothing was found the report is not among the files."""
    segmentation = segment(scan, np.zeros(axial().shape, np.uint8))
    files, codes = write(segmentation, scan, tmp_path / "out", Job(output_types=ALL))
    assert "dicom-sr" not in files
    assert codes == ["DICOM_SEG_NOTE", "RTSTRUCT_NOTE", "DICOM_SR_NOTE"]


def test_same_repair_is_told_once(scan: Volume, tmp_path: Path) -> None:
    """What two writers repair in the same headers is one finding."""
    (tmp_path / "poor").mkdir()
    poor = write_series(tmp_path / "poor", axial(), lambda k, dataset: delattr(dataset, "StudyID"))
    segmentation = segment(poor, random_labels(axial().shape))
    _, codes = write(segmentation, poor, tmp_path / "out", Job(output_types=("dicom-seg", "rtstruct")))
    assert codes == ["DICOM_SEG_NOTE"]


def test_fractional_without_confidence_is_an_error(scan: Volume, tmp_path: Path) -> None:
    """A kind that cannot be made stops the case with a reason."""
    job = Job(output_types=("dicom-seg",), seg=SegOptions("fractional"))
    with pytest.raises(OutputError, match="has no confidence map"):
        write(segment(scan, random_labels(axial().shape)), scan, tmp_path / "out", job)


def test_structures_that_overlap_are_written_where_they_can_be(scan: Volume, tmp_path: Path) -> None:
    """A DICOM SEG, contours, a report, NIfTI with a name for every sum; no NRRD, and that is said."""
    rows = tuple(Label(value, f"s{value}", Code("1", "Organ", "99TEST")) for value in (1, 2))
    labels = random_labels(scan.geometry.shape, values=(0, 1, 2, 3))
    result = segment(scan, labels, LabelTable(rows).with_sums({3}))
    files, codes = write(result, scan, tmp_path / "out", Job(output_types=ALL))
    assert {"dicom-seg", "rtstruct", "nifti", "dicom-sr"} <= set(files)
    assert "nrrd" not in files
    assert codes.count("OVERLAPS_NOT_WRITTEN") == 1
    names = [row["name"] for row in json.loads(files["labels"].read_text(encoding="utf-8"))["labels"]]
    assert names == ["s1", "s2", "s1+s2"]
    measured = json.loads(files["measurements-json"].read_text(encoding="utf-8"))
    assert [row["structure"] for row in measured["measurements"]] == ["s1", "s2"]
