"""Facts about the list of all models."""

from __future__ import annotations

import pytest

from effvit_med.engine.catalogue import measure_models, model_names
from effvit_med.errors import SettingsError


def test_every_model_is_listed_once_for_images() -> None:
    """Counting alone lists all of them, backbones and SAM, each with parameters and operations."""
    costs = list(measure_models(spatial_dims=(2,), timed=False))
    assert [cost.name for cost in costs] == list(model_names())
    assert all(cost.parameters > 0 and cost.flops > 0 and cost.backbone_s is None for cost in costs)


def test_timing_runs_backbone_and_segmenter() -> None:
    """Both take time, and the whole network more than its backbone does on its own."""
    (cost,) = measure_models(["shvit_s1"], (2,))
    assert cost.backbone_s is not None
    assert cost.segmenter_s is not None
    assert cost.backbone_s > 0
    assert cost.segmenter_s > 0


def test_sam_is_for_images_only() -> None:
    """Asking for volumes gives the backbones alone."""
    names = [cost.name for cost in measure_models(["efficientvit_xl", "efficientvit_sam"], (3,), timed=False)]
    assert names == ["efficientvit_xl0", "efficientvit_xl1"]


def test_unknown_model_is_refused_before_anything_is_measured() -> None:
    """The error names the nearest."""
    with pytest.raises(SettingsError, match="no model 'efficientvit_b7'"):
        next(measure_models(["efficientvit_b7"]))
    with pytest.raises(SettingsError, match="spatial_dims is 4"):
        next(measure_models(spatial_dims=(4,)))
