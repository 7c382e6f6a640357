"""What is made ready before a review is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_effvit_med.opening import warm_up_layer
from tests.plugin.parts import LIVER, make_review


def test_a_structure_that_is_accepted_is_in_no_doubt(tmp_path: Path) -> None:
    """Its voxels are settled, and no others."""
    opened = make_review(tmp_path)
    assert not opened.settled.mask().any()
    opened.session.set_state(LIVER, "accepted")
    assert np.array_equal(opened.settled.mask(), opened.session.labels == LIVER)
    opened.session.close()


def test_napari_is_warmed_up_with_labels_of_the_same_type_and_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It compiles for a type of labels and a kind of colours; those that are shown count."""
    layers = pytest.importorskip("napari.layers", reason="napari is not here: pip install '.[napari]'")
    made: list[tuple[Any, Any]] = []
    monkeypatch.setattr(layers, "Labels", lambda data, colormap: made.append((data.dtype, colormap)))
    warm_up_layer(np.zeros((2, 2, 2), np.uint16), {"colormap": "its colours"})
    assert made == [(np.uint16, "its colours")]
