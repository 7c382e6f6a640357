"""Facts about `effvit_med.io.settling`: files that are still being copied are waited for, without real time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from effvit_med.errors import SettingsError
from effvit_med.io import find
from effvit_med.io.find import ReadOptions, find_cases, open_input
from effvit_med.io.settling import Clock, wait_until_settled
from tests.io.dicom_cases import make_series, save

START_S = 1_000_000.0


class _Time:
    """A clock whose sleep moves it on, and lets something happen."""

    def __init__(self, event: Callable[[float], None] = lambda _: None) -> None:
        self.elapsed_s = 0.0
        self.naps: list[float] = []
        self._event = event

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.elapsed_s += seconds
        self._event(self.elapsed_s)

    def clock(self) -> Clock:
        return Clock(lambda: START_S + self.elapsed_s, lambda: self.elapsed_s, self.sleep)


def _touch(path: Path, at_s: float, size: int = 10) -> Path:
    path.write_bytes(b"0" * size)
    os.utime(path, (at_s, at_s))
    return path


def test_old_files_are_not_waited_for(tmp_path: Path) -> None:
    """Files that changed long ago cost no time."""
    path, time = _touch(tmp_path / "a", START_S - 5), _Time()
    assert wait_until_settled(lambda: [path], 2, 60, time.clock()) == frozenset()
    assert time.naps == []


def test_growing_file_is_waited_for(tmp_path: Path) -> None:
    """A file is settled two seconds after its last change."""
    path = _touch(tmp_path / "a", START_S)
    time = _Time(lambda now_s: None if now_s > 4 else _touch(path, START_S + now_s, 10 + int(now_s)) and None)
    assert wait_until_settled(lambda: [path], 2, 60, time.clock()) == frozenset()
    assert time.elapsed_s == 6


def test_new_files_count(tmp_path: Path) -> None:
    """A file that appears while we wait is waited for too."""
    paths = [_touch(tmp_path / "a", START_S)]
    time = _Time(lambda now_s: paths.append(_touch(tmp_path / "b", START_S + 1)) if now_s == 1 else None)
    assert wait_until_settled(lambda: paths, 2, 60, time.clock()) == frozenset()
    assert time.elapsed_s == 3


def test_clock_of_a_server_may_be_ahead(tmp_path: Path) -> None:
    """A file from the future is settled once it stood still for as long as we looked."""
    path, time = _touch(tmp_path / "a", START_S + 1e6), _Time()
    assert wait_until_settled(lambda: [path], 2, 60, time.clock()) == frozenset()
    assert time.elapsed_s == 2


def test_endless_change_is_told(tmp_path: Path) -> None:
    """What changes until the time is up is named."""
    path = _touch(tmp_path / "a", START_S)
    time = _Time(lambda now_s: _touch(path, START_S + now_s) and None)
    assert wait_until_settled(lambda: [path], 2, 5, time.clock()) == {path}
    assert time.elapsed_s == 5


def test_vanished_file_is_no_reason_to_wait(tmp_path: Path) -> None:
    """A file that is gone does not count."""
    time = _Time()
    assert wait_until_settled(lambda: [tmp_path / "gone"], 2, 5, time.clock()) == frozenset()


def test_half_copied_series_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice that changes until the time is up refuses its series, and no other."""
    moving = save(tmp_path / "a", make_series(3))[1]
    save(tmp_path / "b", make_series(3, series=2))
    monkeypatch.setattr(find, "wait_until_settled", lambda *_: frozenset({moving}))
    found = find_cases(tmp_path, ReadOptions(settle_s=2))
    assert [case.code for case in found.refused] == ["STILL_COPIED"]
    assert len(found.cases) == 1


def test_half_copied_nifti_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NIfTI file that still changes is not read."""
    path = tmp_path / "a.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4)), path)
    monkeypatch.setattr(find, "wait_until_settled", lambda *_: frozenset({path}))
    found = find_cases(tmp_path, ReadOptions(settle_s=2))
    assert (found.cases, [aside.code for aside in found.set_aside]) == ((), ["STILL_COPIED"])


def test_settled_input_is_read(tmp_path: Path) -> None:
    """A folder whose files are older than the time to settle is read at once."""
    for path in save(tmp_path, make_series(3)):
        os.utime(path, (1, 1))
    with open_input(tmp_path, ReadOptions(settle_s=2)) as found:
        assert len(found.cases) == 1


def test_negative_time_is_refused() -> None:
    """A time below 0 makes no sense."""
    with pytest.raises(SettingsError, match="settle_s is -1"):
        ReadOptions(settle_s=-1)
