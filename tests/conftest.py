"""What every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("effvit", deadline=None, max_examples=30)
settings.load_profile("effvit")

ROOT = Path(__file__).parents[1]


@pytest.fixture(name="shared_data", scope="session")
def _shared_data() -> Path:
    """The folder of real scans, which is not part of the repository."""
    folder = Path(os.environ.get("EFFVIT_MED_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip("the real scans are not here: set EFFVIT_MED_SHARED to the folder that holds them")
    return folder


@pytest.fixture(name="sample_data", scope="session")
def _sample_data() -> Path:
    """The phantoms that ship with the repository."""
    return ROOT / "sample_data"
