"""Files are there whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from effvit_med.errors import InputError, OutputError
from effvit_med.io.atomic import atomic_path, write_json, write_text


def test_file_appears_at_the_end_only(tmp_path: Path) -> None:
    """Inside the block the old file is untouched; after it the new one is there and nothing else."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "new")]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, InputError])
def test_any_exception_leaves_the_old_file_and_no_other(tmp_path: Path, error: type[BaseException]) -> None:
    """Whatever interrupts the block, the folder is as it was and the exception goes on."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:  # noqa: PT012 - both lines are the point
        temporary.write_text("half")
        raise error("stop")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]


@pytest.mark.parametrize("name", ["labels.nii.gz", "overlay.png", "1.2.840.dcm"])
def test_temporary_name_ends_like_the_real_one(tmp_path: Path, name: str) -> None:
    """Writers that look at the suffix choose the right format, and the file lies in the same folder."""
    with atomic_path(tmp_path / name) as temporary:
        assert temporary.name.endswith(name)
        assert temporary.parent == tmp_path
        assert temporary.name != name
        temporary.touch()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    """A folder that is not there gives an OutputError with the path and the remedy."""
    with pytest.raises(OutputError, match=r"gone/a\.txt could not be written: the folder does not exist; make it"):
        write_text(tmp_path / "gone" / "a.txt", "text")


def test_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    """A path through a file gives an OutputError."""
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="a part of the path is a file"):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_folder_in_the_way_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    """A folder of the same name is not replaced."""
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match="a folder of that name is in the way"):
        write_text(tmp_path / "a.txt", "text")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    """A writer that silently makes no file is found out."""
    with pytest.raises(OutputError, match="no file was made"), atomic_path(tmp_path / "a.txt"):
        pass


def test_too_long_name_is_told(tmp_path: Path) -> None:
    """A name that the file system refuses gives an OutputError."""
    with pytest.raises(OutputError, match="the name is too long"):
        write_text(tmp_path / ("x" * 300), "text")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_full_disk_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    """A device without space gives an OutputError that says so."""
    with pytest.raises(OutputError, match="disk is full"), atomic_path(tmp_path / "a.txt") as temporary:  # noqa: PT012
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"x" * 100_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no limit on file sizes")
def test_refused_growth_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    """A file that may not grow gives an OutputError in the middle of writing, and the half file is removed."""
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from effvit_med.errors import OutputError\n"
        "from effvit_med.io.atomic import write_text\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_text(Path(sys.argv[1]), 'x' * 5000)\n"
        "except OutputError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.txt")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": _root()}
    )
    assert "grew larger than this system allows" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="the superuser may write everywhere")
def test_forbidden_folder_is_told(tmp_path: Path) -> None:
    """A folder without permission gives an OutputError."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="no permission"):
            write_text(tmp_path / "a.txt", "text")
    finally:
        tmp_path.chmod(0o700)


def test_json_takes_paths_and_numpy(tmp_path: Path) -> None:
    """Paths, numpy numbers and arrays become plain JSON, and letters stay readable."""
    write_json(tmp_path / "a.json", {"path": Path("a/b"), "n": np.int16(3), "x": np.array([0.5]), "name": "Größe"})
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert json.loads(text) == {"path": "a/b", "n": 3, "x": [0.5], "name": "Größe"}
    assert "Größe" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_json_refuses_what_has_no_place_in_it(tmp_path: Path, value: object) -> None:
    """A value that is no JSON gives an OutputError and no file."""
    with pytest.raises(OutputError, match="does not fit into JSON"):
        write_json(tmp_path / "a.json", {"value": value})
    assert list(tmp_path.iterdir()) == []


def _root() -> str:
    return str(Path(__file__).parents[2])
