"""What tests of the batch share: small series on disk, some of which misbehave, and cheap stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from effvit_med.batch import BatchOptions, Stages
from effvit_med.engine import Job
from tests.io.dicom_cases import make_series, pixels, save

MakeInput = Callable[..., Path]

QUICK = Stages(segment="tests.batch.stages:make_threshold")


def write_input(folder: Path, count: int, faults: Mapping[int, int] | None = None) -> Path:
    """A folder of series 1 to count; the first voxel of some holds a fault."""
    for number in range(1, count + 1):
        datasets = make_series(3, series=number)
        fault = (faults or {}).get(number)
        if fault is not None:
            values = pixels(0)
            values[0, 0] = fault
            datasets[0].PixelData = np.ascontiguousarray(values).tobytes()
        save(folder / f"series{number:03d}", datasets)
    return folder


@pytest.fixture(name="counts", autouse=True)
def _counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that gets a line for every case that is segmented."""
    path = tmp_path / "counts.txt"
    path.touch()
    monkeypatch.setenv("TEST_BATCH_COUNTS", str(path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return path


@pytest.fixture(name="options")
def _options(tmp_path: Path) -> BatchOptions:
    """Cheap stages, DICOM SEG only."""
    return BatchOptions(job=Job(output_types=("dicom-seg",)), stages=QUICK, scratch=tmp_path / "scratch")
