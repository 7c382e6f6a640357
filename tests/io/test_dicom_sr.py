"""Structured reports: other programs read the volumes, and every group points to its segment."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest

from effvit_med.errors import GeometryError, OutputError
from effvit_med.io.dicom_seg import SegOptions, write_dicom_seg
from effvit_med.io.dicom_sr import write_dicom_sr
from effvit_med.volume import Geometry, Segmentation, Volume
from effvit_med.volume.measurements import measure
from tests.io.independent import DCMQI, errors_of, needs_dciodvfy, needs_dcmqi, needs_dsrdump
from tests.io.source_series import TABLE, axial, random_labels, segment, write_series


def write_report(folder: Path, labels: np.ndarray, kind: str = "binary", modality: str = "CT") -> Segmentation:
    """A SEG and the report on it, of a series in the same folder."""
    volume = write_series(folder, axial(), lambda k, dataset: setattr(dataset, "Modality", modality))
    volume = Volume(volume.array, volume.geometry, modality, volume.source)
    segmentation = segment(volume, labels)
    write_dicom_seg(segmentation, folder / "seg.dcm", SegOptions(kind))
    write_dicom_sr(segmentation, measure(volume, segmentation), folder / "seg.dcm", folder / "sr.dcm")
    return segmentation


@needs_dciodvfy
def test_independent_checker_finds_no_error(tmp_path: Path) -> None:
    """The checker dciodvfy has nothing to complain about in a report on a binary SEG."""
    write_report(tmp_path, random_labels(axial().shape))
    assert errors_of(tmp_path / "sr.dcm") == []


@needs_dcmqi
@pytest.mark.parametrize("kind", ["binary", "labelmap"])
def test_dcmqi_reads_volumes_intensities_and_segments(tmp_path: Path, kind: str) -> None:
    """Another program finds one group per structure with its numbers, its code and the number of its segment."""
    segmentation = write_report(tmp_path, random_labels(axial().shape), kind)
    command = [DCMQI / "tid1500reader", "--inputDICOM", tmp_path / "sr.dcm", "--outputMetadata", tmp_path / "sr.json"]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    number_of = {item.SegmentLabel: int(item.SegmentNumber) for item in seg.SegmentSequence}
    assert len(groups) == len(TABLE)
    scan = np.stack([pydicom.dcmread(file.path).pixel_array for file in segmentation.provenance.source.files])
    for label, group in zip(TABLE, groups, strict=True):
        inside = scan[segmentation.labels == label.value].astype(float)
        wanted = [inside.size * 3.0 * 0.9 * 0.7 / 1000, inside.mean(), inside.std()]
        items = group["measurementItems"]
        assert [float(item["value"]) for item in items] == pytest.approx(wanted, rel=1e-5)
        assert [item["units"]["CodeValue"] for item in items] == ["mL", "[hnsf'U]", "[hnsf'U]"]
        assert items[0]["quantity"]["CodeValue"] == "118565006"
        assert group["Finding"]["CodeValue"] == label.type.value
        assert group["ReferencedSegment"] == number_of[label.name]
        assert group["segmentationSOPInstanceUID"] == seg.SOPInstanceUID
        side = group["FindingSite"].get("Laterality", group.get("Laterality", {}))
        assert label.laterality is None or side.get("CodeValue", label.laterality.value) == label.laterality.value


def test_side_and_tracking_are_those_of_the_segments(tmp_path: Path) -> None:
    """Each group has the tracking identifiers of its segment, and the finding site its side."""
    write_report(tmp_path, random_labels(axial().shape))
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    tracked = {(item.TrackingUID, item.TrackingID) for item in seg.SegmentSequence}
    report = hd.sr.srread(tmp_path / "sr.dcm")
    groups = report.content.get_volumetric_roi_measurement_groups()
    sides = [
        None if group.finding_sites[0].laterality is None else group.finding_sites[0].laterality.value
        for group in groups
    ]
    assert {(group.tracking_uid, group.tracking_identifier) for group in groups} == tracked
    assert sides == [label.laterality.value if label.laterality else None for label in TABLE]


@needs_dsrdump
def test_dsrdump_prints_it(tmp_path: Path) -> None:
    """The printer of DCMTK understands the report."""
    write_report(tmp_path, random_labels(axial().shape))
    done = subprocess.run(["dsrdump", str(tmp_path / "sr.dcm")], capture_output=True, text=True, check=True)
    assert done.stdout.count('"Volume")=') == len(TABLE)
    assert "PRELIMINARY" in done.stdout
    assert "UNVERIFIED" in done.stdout


def test_unit_of_mr_is_not_made_up(tmp_path: Path) -> None:
    """Where values have no known unit only volumes are reported."""
    write_report(tmp_path, random_labels(axial().shape), modality="MR")
    text = hd.sr.srread(tmp_path / "sr.dcm").to_json()
    assert "Attenuation" not in text
    assert "118565006" in text


def test_references_and_notice(tmp_path: Path) -> None:
    """The evidence is every source slice and the SEG; study, maker and notice are there."""
    segmentation = write_report(tmp_path, random_labels(axial().shape))
    dataset, seg = pydicom.dcmread(tmp_path / "sr.dcm"), pydicom.dcmread(tmp_path / "seg.dcm")
    study = dataset.CurrentRequestedProcedureEvidenceSequence[0]
    found = [
        [item.ReferencedSOPInstanceUID for item in s.ReferencedSOPSequence] for s in study.ReferencedSeriesSequence
    ]
    assert study.StudyInstanceUID == dataset.StudyInstanceUID == segmentation.provenance.source.study_instance_uid
    assert found == [[file.sop_instance_uid for file in segmentation.provenance.source.files], [seg.SOPInstanceUID]]
    assert (dataset.Manufacturer, dataset.Modality, dataset.SeriesNumber) == ("effvit-med", "SR", 902)
    assert "Not for clinical use" in dataset.to_json()


def test_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    """Writing twice gives the same file, so that an archive stores it once."""
    write_report(tmp_path, random_labels(axial().shape))
    first = (tmp_path / "sr.dcm").read_bytes()
    write_report(tmp_path, random_labels(axial().shape))
    assert (tmp_path / "sr.dcm").read_bytes() == first


def test_absent_structure_has_no_group(tmp_path: Path) -> None:
    """A structure that was not found is not measured."""
    write_report(tmp_path, random_labels(axial().shape, values=(0, 1, 7)))
    groups = hd.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier.split()[0] for group in groups] == ["liver", "spleen"]


def test_empty_result_gives_no_report(tmp_path: Path) -> None:
    """Where nothing was found there is nothing to report, and the note says so."""
    volume = write_series(tmp_path, axial())
    segmentation = segment(volume, np.zeros(axial().shape, np.uint8))
    write_dicom_seg(segmentation, tmp_path / "seg.dcm")
    notes = write_dicom_sr(segmentation, measure(volume, segmentation), tmp_path / "seg.dcm", tmp_path / "sr.dcm")
    assert notes == ("No structure was found, so there is nothing to report and no DICOM SR.",)
    assert not (tmp_path / "sr.dcm").exists()


def test_segmentation_of_another_run_is_refused(tmp_path: Path) -> None:
    """A report never points to segments that were not measured."""
    segmentation = write_report(tmp_path, random_labels(axial().shape))
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    for item in dataset.SegmentSequence:
        item.TrackingUID = "2.25.1"
    dataset.save_as(tmp_path / "seg.dcm")
    volume = Volume(np.zeros(axial().shape), segmentation.geometry, "CT", segmentation.provenance.source)
    with pytest.raises(OutputError, match=r"seg\.dcm has no segment of this run for liver"):
        write_dicom_sr(segmentation, measure(volume, segmentation), tmp_path / "seg.dcm", tmp_path / "sr.dcm")


def test_segmentation_in_another_frame_of_reference_is_refused(tmp_path: Path) -> None:
    """A report never joins labels and segments of different places."""
    segmentation = write_report(tmp_path, random_labels(axial().shape))
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    dataset.FrameOfReferenceUID = "1.2.3.4"
    dataset.save_as(tmp_path / "seg.dcm")
    volume = Volume(np.zeros(axial().shape), segmentation.geometry, "CT", segmentation.provenance.source)
    with pytest.raises(GeometryError, match=r"frame of reference 1\.2\.3\.4"):
        write_dicom_sr(segmentation, measure(volume, segmentation), tmp_path / "seg.dcm", tmp_path / "sr.dcm")


def test_labels_in_another_frame_of_reference_are_refused(tmp_path: Path) -> None:
    """The frame of reference of the labels must be that of the source."""
    segmentation = write_report(tmp_path, random_labels(axial().shape))
    grid = Geometry(axial().affine, axial().shape, "1.2.3.4")
    volume = Volume(np.zeros(axial().shape), grid, "CT", segmentation.provenance.source)
    other = segment(volume, segmentation.labels)
    with pytest.raises(GeometryError, match=r"the labels have 1\.2\.3\.4"):
        write_dicom_sr(other, measure(volume, other), tmp_path / "seg.dcm", tmp_path / "sr.dcm")
