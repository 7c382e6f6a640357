"""DICOM results of real scans: written, read back by their writers, and valid by an independent checker."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scans import attach_labels, draw_blobs
from effvit_med.io import ReadOptions, open_input, read_case, write_dicom_seg, write_dicom_sr, write_rtstruct
from effvit_med.volume.measurements import measure
from tests.io.independent import errors_of
from tests.io.source_series import TABLE

SERIES = [
    "ct_philips_tilt_mixed_noext", "ct_siemens_gantry_tilt", "mr_ge_uneven_spacing", "mr_hitachi_oblique_iso2022",
    "mr_siemens_position_hfp", "mr_uih_sag",
]  # fmt: skip


@pytest.mark.parametrize("name", SERIES)
def test_all_dicom_results_of_a_real_scan_are_valid(shared_data: Path, tmp_path: Path, name: str) -> None:
    """Tilted, oblique, feet first and uneven series of five makers: no error but for UIDs of the source itself."""
    options = ReadOptions(allow=frozenset({"irregular"}))
    with open_input(shared_data / "dicom" / name, options) as found:
        volume = read_case(found.cases[0], options)
        segmentation = attach_labels(volume, draw_blobs(volume.geometry.shape, (1, 2, 3, 7)), TABLE)
        write_dicom_seg(segmentation, tmp_path / "seg.dcm")
        write_rtstruct(segmentation, tmp_path / "rt.dcm")
        write_dicom_sr(segmentation, measure(volume, segmentation), tmp_path / "seg.dcm", tmp_path / "sr.dcm")
    for file in ("seg.dcm", "rt.dcm", "sr.dcm"):
        assert [line for line in errors_of(tmp_path / file) if "Illegal root for UID" not in line] == []
