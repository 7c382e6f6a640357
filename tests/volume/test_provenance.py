"""The record of how a segmentation was made, there and back."""

from __future__ import annotations

import json

import pytest

from effvit_med.errors import SettingsError
from effvit_med.volume import Provenance
from tests.review.scene import MADE


def test_a_record_comes_back_from_json() -> None:
    """What decides the labels is the same after a way through JSON; folders of source files are not kept."""
    again = Provenance.from_dict(json.loads(json.dumps(MADE.to_dict())))
    assert again.identity() == MADE.identity()
    assert again.source.files[0].path.as_posix() == "a.dcm"
    assert again.findings == MADE.findings


@pytest.mark.parametrize("spoil", [lambda plain: plain.pop("bundle"), lambda plain: plain.update(steps=[{"noun": 1}])])
def test_a_broken_record_is_an_error(spoil) -> None:
    """A record that lacks something, or holds what is unknown, is refused."""
    plain = MADE.to_dict()
    spoil(plain)
    with pytest.raises(SettingsError, match="no record of how"):
        Provenance.from_dict(plain)
