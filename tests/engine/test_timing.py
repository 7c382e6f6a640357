"""Facts about `effvit_med.engine.timing`."""

from __future__ import annotations

from pathlib import Path

import pytest

from effvit_med.engine import Segmenter, Settings, open_model
from effvit_med.engine.timing import CaseTimes, time_case
from effvit_med.errors import InputError


@pytest.fixture(name="times", scope="module")
def _times(tiny_bundle: Path, sample_data: Path) -> CaseTimes:
    segmenter = Segmenter(open_model(tiny_bundle), Settings(device="cpu"))
    return time_case(sample_data / "ct_nonsquare", segmenter, runs=2)


def test_every_step_from_files_to_files_is_there(times: CaseTimes) -> None:
    """Finding, reading, preparing, the network, labels and every file that is written."""
    steps = {row.step for row in times.rows}
    assert {"start program", "find", "read", "load model", "prepare", "network", "stitch", "label"} <= steps
    assert {"measure", "write dicom-seg", "write nifti", "write tables", "write overlay"} <= steps


def test_the_sums_are_those_of_the_steps(times: CaseTimes) -> None:
    """``all`` is every step, ``outside network`` every step but one."""
    rows = {row.step: row for row in times.rows}
    steps = [row for row in times.rows if row.step not in ("all", "outside network")]
    assert rows["all"].warm_cpu_s == pytest.approx(sum(row.warm_cpu_s for row in steps))
    assert rows["all"].cold_wall_s - rows["network"].cold_wall_s == pytest.approx(rows["outside network"].cold_wall_s)


def test_only_the_first_run_loads_the_model(times: CaseTimes) -> None:
    """Cold has the start of the program and the loading of the model; warm has neither."""
    rows = {row.step: row for row in times.rows}
    for step in ("start program", "load model"):
        assert rows[step].cold_cpu_s > 0
        assert rows[step].warm_cpu_s == 0


def test_a_case_that_is_refused_cannot_be_timed(tiny_bundle: Path, sample_data: Path) -> None:
    """The error says why it was refused."""
    segmenter = Segmenter(open_model(tiny_bundle), Settings(device="cpu"))
    with pytest.raises(InputError, match=r"ct_missing_slice cannot be timed: .*slice"):
        time_case(sample_data / "ct_missing_slice", segmenter, runs=2)
