"""One way to read a scan, whatever its format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effvit_med.errors import InputError
from effvit_med.io import read_scan, write_volume
from tests.io.source_series import axial, write_series


def test_a_folder_and_a_file_give_the_same_scan(tmp_path: Path) -> None:
    """A DICOM series, and the NIfTI made of it."""
    (tmp_path / "ct").mkdir()
    volume = write_series(tmp_path / "ct", axial())
    write_volume(volume, tmp_path / "ct.nii.gz")
    read = read_scan(tmp_path / "ct"), read_scan(tmp_path / "ct.nii.gz").reoriented(volume.geometry.orientation)
    for each in read:
        assert np.array_equal(each.array, volume.array)
        assert each.geometry.max_distance_mm(volume.geometry) < 1e-3


def test_a_folder_of_two_series_is_refused(tmp_path: Path) -> None:
    """Which of them is meant, nobody knows; the error counts them."""
    for name in ("one", "two"):
        (tmp_path / "all" / name).mkdir(parents=True)
    write_series(tmp_path / "all" / "one", axial())
    write_volume(read_scan(tmp_path / "all" / "one"), tmp_path / "all" / "two" / "b.nii.gz")
    with pytest.raises(InputError, match="holds 2 cases"):
        read_scan(tmp_path / "all")
