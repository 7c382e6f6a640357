"""What the panel knows, without a window."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from effvit_med.errors import CancelledError, InputError
from effvit_med.io.inspection import inspect_input
from napari_effvit_med.state import Countdown, describe_seconds, read_card, rows_of
from napari_effvit_med.tasks import Failed, Finished, Progressed, Task
from tests.conftest import ROOT

MODULES = [
    f"napari_effvit_med.{path.stem}"
    for path in sorted((ROOT / "napari_plugin" / "napari_effvit_med").glob("*.py"))
    if path.stem != "__init__" and "from qtpy" not in path.read_text(encoding="utf-8")
]


def test_nothing_heavy_is_loaded_at_import() -> None:
    """All modules that draw no window load without torch, highdicom, scipy, napari and Qt."""
    heavy = "{'torch', 'highdicom', 'pydicom', 'nibabel', 'scipy', 'napari', 'qtpy'}"
    code = f"import sys, {', '.join(MODULES)}; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'napari_plugin'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_the_list_says_what_can_be_opened(sample_data: Path, tmp_path: Path) -> None:
    """A good series comes first with its size; a refused one says why and what to do."""
    shutil.copytree(sample_data / "ct_missing_slice", tmp_path / "a")
    shutil.copytree(sample_data / "ct_nonsquare", tmp_path / "b")
    good, bad = rows_of(inspect_input(tmp_path))
    assert good.can_open
    assert "20 × 112 × 144 voxels of 8 × 3 × 2.4 mm" in good.title
    assert not bad.can_open
    assert "missing" in bad.details
    assert "gaps" in bad.details


def test_the_shipped_model_is_described_without_loading_it() -> None:
    """Name, structures and weights stand in the card."""
    card = read_card()
    assert card.name == "abdomen-phantom"
    assert "kidney_left" in card.structures
    assert card.has_weights
    assert card.doubt("CT") == ""
    assert "not on MR" in card.doubt("MR")


@pytest.mark.parametrize("text", ["", "[1, 2]", "name: x", "labels: 3\nweights: a\nname: b\nversion: 1", "a: [", None])
def test_another_folder_is_no_model(tmp_path: Path, text: str | None) -> None:
    """Whatever is wrong with the file, the error names it."""
    if text is not None:
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "model.yaml").write_text(text)
    with pytest.raises(InputError, match=r"model\.yaml"):
        read_card(tmp_path)


def test_the_countdown_goes_by_windows() -> None:
    """Loading does not count, and the mean time of a window is what is left for each of the others."""
    countdown = Countdown()
    assert countdown.update("prepare", 0, 1, 0.0) is None
    assert countdown.update("network", 0, 20, 50.0) is None
    assert countdown.update("network", 5, 20, 60.0) == pytest.approx(30.0)
    assert countdown.update("network", 20, 20, 90.0) == 0
    assert describe_seconds(61) == "1 min 1 s left"


def test_a_task_reports_and_gives_its_result() -> None:
    """Reports of one phase are joined, and the result comes last."""

    def work(report) -> int:
        for number in range(5):
            report("count", number, 5)
        return 7

    task = Task("counting", work).start()
    task.wait()
    assert task.poll() == [Progressed("count", 4, 5), Finished(7)]
    assert task.poll() == []


def test_a_task_stops_when_asked() -> None:
    """The next report after the wish raises, and the end says that it was wanted."""
    begun, asked = threading.Event(), threading.Event()

    def work(report) -> None:
        report("work", 0, 2)
        begun.set()
        asked.wait(60)
        report("work", 1, 2)

    task = Task("working", work).start()
    begun.wait(60)
    task.stop()
    asked.set()
    task.wait()
    assert task.poll()[-1] == Failed("Stopped.", cancelled=True)


@pytest.mark.parametrize(
    ("error", "words"),
    [(InputError("no such file"), "no such file"), (MemoryError(), "memory"), (ValueError("odd"), "ValueError: odd")],
)
def test_a_task_never_raises(error: Exception, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """Errors become words for the user."""

    def work(_) -> None:
        raise error

    (event,) = Task("working", work).run_here().poll()
    assert isinstance(event, Failed)
    assert words in event.message
    assert not event.cancelled
    assert CancelledError is not type(error)
