"""Reviews on the disk are found by their scan, and by nothing else."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effvit_med.review import ReviewSession
from effvit_med.review.existing import IMAGE_DIGEST, digest_image, find_reviews, note_source
from effvit_med.review.journal import JOURNAL_FILE
from effvit_med.volume import Geometry, Segmentation, Source, SourceFile, Volume
from tests.review.scene import MADE, SHAPE, make_automatic


def _volume(*, digest: str = "cd" * 32, source: bool = True, add: float = 0, shift: float = 0) -> Volume:
    affine = make_automatic().geometry.affine.copy()
    affine[0, 3] += shift
    array = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE) + np.float32(add)
    files = (SourceFile(Path("other/name.dcm"), digest, "1.2.3"),)
    made = Source("CT_9", "DICOM", files, "1.2", "1.3") if source else None
    return Volume(array, Geometry(affine, SHAPE), "CT", made)


def _start(root: Path, name: str, volume: Volume, *, source: bool = True) -> Path:
    automatic = make_automatic()
    if not source:
        made = replace(MADE, source=None)
        automatic = Segmentation(automatic.labels, automatic.geometry, automatic.table, made)
    ReviewSession.start(root / name, automatic, note_source(volume)).close()
    return root / name


def test_reviews_are_found_by_the_digests_of_the_files(tmp_path: Path) -> None:
    """Names and folders of the files do not matter; another file is another scan."""
    folder = _start(tmp_path, "one", _volume())
    (found,) = find_reviews(tmp_path, _volume())
    assert (found.folder, found.bundle) == (folder, "demo")
    assert find_reviews(tmp_path, _volume(digest="ee" * 32)) == ()


def test_the_latest_comes_first(tmp_path: Path) -> None:
    """What was written to last, not what was begun last."""
    for number, name in enumerate(("b", "a", "c")):
        folder = _start(tmp_path, name, _volume())
        os.utime(folder / JOURNAL_FILE, (1000 * (5 - number), 1000 * (5 - number)))
    found = find_reviews(tmp_path, _volume())
    assert [each.folder.name for each in found] == ["b", "a", "c"]
    assert [each.changed.timestamp() for each in found] == [5000, 4000, 3000]


@pytest.mark.parametrize("other", [{"add": 1.0}, {"shift": 0.5}])
def test_a_scan_without_files_is_known_by_its_voxels(tmp_path: Path, other: dict[str, float]) -> None:
    """Another value or another place is another scan."""
    volume = _volume(source=False)
    folder = _start(tmp_path, "one", volume, source=False)
    assert [each.folder for each in find_reviews(tmp_path, _volume(source=False))] == [folder]
    assert find_reviews(tmp_path, _volume(source=False, **other)) == ()
    assert find_reviews(tmp_path, _volume()) == ()


def test_only_a_scan_without_files_needs_a_note(tmp_path: Path) -> None:
    """The digests of files stand in the provenance already."""
    assert note_source(_volume()) == {}
    volume = _volume(source=False)
    assert note_source(volume) == {IMAGE_DIGEST: digest_image(volume)}


def test_the_digest_of_a_view_is_that_of_its_copy() -> None:
    """How an array lies in memory says nothing about the scan."""
    volume = _volume(source=False)
    turned = np.asfortranarray(volume.array)
    assert digest_image(replace(volume, array=turned)) == digest_image(volume)


@pytest.mark.parametrize("content", ["", "no json\n", "{}\n", '{"type": "start"}\n', "[1]\n", "\x00\xff\n"])
def test_what_is_no_review_is_passed_over(tmp_path: Path, content: str) -> None:
    """A damaged journal beside a good one costs nothing."""
    good = _start(tmp_path, "good", _volume())
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / JOURNAL_FILE).write_text(content, encoding="utf-8")
    (tmp_path / "file").write_text("x")
    for volume in (_volume(), _volume(source=False)):
        assert {each.folder for each in find_reviews(tmp_path, volume)} <= {good}


def test_a_root_that_is_not_there_has_no_reviews(tmp_path: Path) -> None:
    """Before the first review there is no folder."""
    assert find_reviews(tmp_path / "none", _volume()) == ()
