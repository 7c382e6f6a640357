"""Acceptance case 28, the round trip through Orthanc, and the list of all cases.

tests/pacs/inside holds case 28 against a real Orthanc in a network of its own. What is tested elsewhere is named here,
so that no case can be lost without notice.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

HERE = Path(__file__).parent

ELSEWHERE = {
    23: ("tests/io/test_settling.py", ()),
    25: ("tests/benchmarks/test_dicom_outputs.py", ()),
    28: (
        "tests/pacs/inside/test_loop.py",
        (
            "test_what_arrives_in_orthanc_comes_back_segmented",
            "test_a_labelmap_that_orthanc_refuses_is_kept_and_named_with_the_remedy",
            "test_a_labelmap_goes_by_stow",
            "test_results_wait_on_disk_while_the_pacs_is_down",
        ),
    ),
    29: (
        "tests/batch/test_killing.py",
        ("test_a_killed_batch_goes_on_where_it_was", "test_two_shards_in_two_processes_share_an_output"),
    ),
    30: ("tests/plugin/test_review_session.py", ("test_case_30_a_whole_review",)),
}
"""Files and tests elsewhere that hold a case, or a part of it."""


def _tests_in(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]


def test_every_case_has_a_test() -> None:
    """Each of the thirty cases is held by a test of this folder or by one that is named above."""
    names = [name for path in HERE.glob("test_*.py") for name in _tests_in(path)]
    numbers = {int(found[1]) for name in names if (found := re.match(r"test_case_(\d\d)_", name))}
    assert numbers | set(ELSEWHERE) == set(range(1, 31))


@pytest.mark.parametrize("number", sorted(ELSEWHERE))
def test_what_is_tested_elsewhere_is_there(number: int) -> None:
    """The named file has the named tests."""
    file, wanted = ELSEWHERE[number]
    found = _tests_in(ROOT / file)
    assert found
    assert set(wanted) <= set(found)
