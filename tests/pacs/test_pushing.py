"""Facts about `effvit_med.pacs.pushing`: what of an output folder is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from effvit_med.batch.journal import Journal
from effvit_med.pacs.pushing import find_results
from tests.pacs.parts import make_seg


@pytest.mark.parametrize(("status", "sent"), [("done", 1), ("refused", 0), ("failed", 0)])
def test_results_of_an_earlier_state_of_a_scan_are_not_sent(tmp_path: Path, status: str, sent: int) -> None:
    """A case that was done, and then refused because a slice had come, keeps its files; no PACS gets them."""
    make_seg(tmp_path, "CT_1_0a1b2c3d")
    journal = Journal(tmp_path / "out")
    journal.open()
    journal.write({"case_id": "CT_1_0a1b2c3d", "status": status})
    assert len(find_results(tmp_path / "out")) == sent
