"""Facts about a batch with names in its files: nothing that it writes or says holds one of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from effvit_med.batch import BatchOptions, read_manifest, run_batch
from effvit_med.batch.jobs import plan_jobs
from effvit_med.batch.stages import Finder
from effvit_med.engine import Job
from effvit_med.io import Found, open_input
from effvit_med.volume import Segmentation, Volume
from tests.batch.conftest import QUICK
from tests.batch.stages import Threshold
from tests.io.dicom_cases import make_series, make_slice, save

NAMES = ("DOE JANE 7", "ROE_RICHARD", "mueller", "Muster, Max", "Smith copy", "DOE", "ROE", "Muster", "Smith")
THOROUGH = replace(QUICK, segment="tests.batch.test_privacy:make_thorough")
LONG = "Muster, Max - CT Thorax Abdomen with contrast 3 mm soft tissue kernel B30f recon 2.dcm"


class Thorough(Threshold):
    """Notes what the reader found, as a Segmenter does."""

    def segment(self, volume: Volume, progress: Any, cancelled: Any) -> Segmentation:
        """As a Segmenter does."""
        made = super().segment(volume, progress, cancelled)
        noticed = volume.source.findings if volume.source else ()
        return made.with_provenance(replace(made.provenance, findings=noticed))


class LoudFinder(Finder):
    """Logs the name of a file."""

    def __call__(self, source: Path, *, progress: Callable[[str, int, int], None]) -> Found:
        """The cases of a path."""
        log = logging.getLogger("effvit_med.io")
        log.info("looked at %s", "DOE JANE.dcm")
        log.warning("%s is odd", "DOE JANE.dcm")
        return super().__call__(source, progress=progress)


def make_thorough(options: BatchOptions) -> Thorough:
    return Thorough()


def make_loud_finder(options: BatchOptions) -> LoudFinder:
    return LoudFinder(options)


@dataclass(frozen=True)
class _Told:
    """All that a run left: its files as text by name, its log."""

    files: dict[str, str]
    log: str
    codes: set[str]


def write_named_input(folder: Path) -> Path:
    """A series with damaged files beside it, a localizer in another folder, a second copy and telling names."""
    datasets = make_series(4)
    save(folder / "a", datasets, names=["mueller", "1.dcm", "2.dcm", "3.dcm"])
    for name in ("DOE JANE 7.dcm", LONG):
        (folder / "a" / name).touch()
    save(folder / "c", [datasets[3]], names=["Smith copy.dcm"])
    localizer = make_slice(9, (0.0, 0.0, 0.0))
    localizer.SeriesInstanceUID = datasets[0].SeriesInstanceUID
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(folder / "b", [localizer], names=["ROE_RICHARD.dcm"])
    return folder


@pytest.fixture(name="told", scope="module")
def _told(tmp_path_factory: pytest.TempPathFactory) -> _Told:
    folder = tmp_path_factory.mktemp("named")
    options = BatchOptions(job=Job(output_types=("dicom-seg",)), stages=THOROUGH, scratch=folder / "scratch")
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("effvit_med")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        summary = run_batch(write_named_input(folder / "in"), folder / "out", options)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert summary.exit_code == 0
    (row,) = read_manifest(folder / "out")
    written = (path for path in (folder / "out").rglob("*") if path.is_file())
    files = {str(path.relative_to(folder / "out")): path.read_text("latin-1") for path in written}
    return _Told(files, "\n".join(lines), set(row["findings"]))


def test_the_input_gives_all_findings_that_name_files(told: _Told) -> None:
    """Else the other facts would say nothing."""
    assert told.codes >= {"DAMAGED_FILES_BESIDE", "LOCALIZER", "DUPLICATE_FILE"}


@pytest.mark.parametrize("name", NAMES)
def test_no_written_file_holds_a_name(told: _Told, name: str) -> None:
    """Record, state, manifest, report, outputs, and their own names."""
    assert any(path.endswith("record.json") for path in told.files)
    assert not [path for path, text in told.files.items() if name in text or name in path]


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_the_log_holds_a_name(told: _Told, name: str) -> None:
    """However much is logged."""
    assert "DAMAGED_FILES_BESIDE" in told.log
    assert name not in told.log


def test_a_name_in_the_log_of_the_search_goes_nowhere(
    tmp_path: Path, options: BatchOptions, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning of the search says where it was given, not of which file; what is below a warning is not told."""
    source = tmp_path / "in"
    save(source, make_series(3))
    loud = replace(QUICK, find="tests.batch.test_privacy:make_loud_finder")
    caplog.set_level(logging.DEBUG, "effvit_med")
    run_batch(source, tmp_path / "out", replace(options, stages=loud))
    assert "DOE" not in caplog.text
    assert len([line for line in caplog.messages if "search warns" in line]) == 1


def test_a_task_knows_only_the_names_that_its_findings_mention(tmp_path: Path) -> None:
    """It goes to other processes again and again, and thousands of files may lie beside it."""
    source = write_named_input(tmp_path / "in")
    for number in range(50):
        (source / "b" / f"note {number}.txt").write_text("a text")
    with open_input(source) as found:
        (job,) = plan_jobs(found, source, tmp_path / "out", BatchOptions()).jobs
    assert job.task.hidden == {"DOE JANE 7.dcm", LONG, "ROE_RICHARD.dcm", "Smith copy.dcm"}


def test_names_that_are_kept_need_no_hiding(tmp_path: Path) -> None:
    """With keep_ids, nothing conceals."""
    source = write_named_input(tmp_path / "in")
    with open_input(source) as found:
        (job,) = plan_jobs(found, source, tmp_path / "out", BatchOptions(keep_ids=True)).jobs
    assert job.task.concealment is None
