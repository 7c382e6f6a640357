"""How long the network will take, from windows that were timed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from effvit_med.engine import Segmenter, Settings, estimating, read_model
from effvit_med.engine.estimating import estimate_windows
from effvit_med.engine.planning import Plan
from effvit_med.engine.scoring import HeldRows, Scoring, stream_scores
from effvit_med.engine.tiling import Tiling
from effvit_med.networks import save_weights
from effvit_med.training.phantom import make_case
from effvit_med.transforms import Preprocess
from effvit_med.volume import Geometry, Volume

CASE = make_case(3, spacing_mm=(8.0, 6.0, 6.0), shape=(20, 60, 60))
SCAN = Volume(CASE.hu, Geometry(CASE.affine_lps, (20, 60, 60)), "CT")
CPU = torch.device("cpu")
PLAN = Plan(CPU, CPU, (8, 8, 8), 0.5, 1, (), {}, (), (8, 8, 8), 3)


def _network_total(segmenter: Segmenter) -> int:
    """The total of the last progress report of the network."""
    calls: list[tuple[str, int, int]] = []
    segmenter.segment(SCAN, progress=lambda *call: calls.append(call))
    return [total for phase, _, total in calls if phase == "network"][-1]


@pytest.mark.parametrize(
    "chosen", [{}, {"batch_size": 3}, {"overlap": 0.25}, {"overlap": 0.8, "mirror": True}], ids=str
)
def test_windows_are_those_of_the_run(tiny_bundle: Path, chosen: dict[str, Any]) -> None:
    """The estimate counts what the progress of a real run counts to, and multiplies by it."""
    segmenter = Segmenter(read_model(tiny_bundle), Settings(device="cpu", **chosen))
    found = segmenter.estimate(SCAN)
    assert found.windows == _network_total(segmenter)
    assert found.seconds_per_window > 0
    assert found.seconds == pytest.approx(found.windows * found.seconds_per_window)
    assert not found.at_most


@pytest.mark.parametrize("slices", [1, 5])
def test_windows_of_slices_are_those_of_the_run(tiny_bundle: Path, tmp_path: Path, slices: int) -> None:
    """For a network of slices with neighbours, too."""
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    path = copy / "configs" / "model.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["network"] |= {"spatial_dims": 2, "in_channels": 3}
    content["preprocess"] |= {"spatial_dims": 2, "neighbours": 1}
    content["tiling"]["window"] = [slices, 32, 32]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    model = read_model(copy)
    save_weights(model.build_network(), model.weights, {})
    segmenter = Segmenter(model, Settings(device="cpu"))
    assert segmenter.estimate(SCAN).windows == _network_total(segmenter)


def test_an_estimate_does_not_change_the_result(tiny_bundle: Path) -> None:
    """Labels, confidence and identity are those of a segmenter that never estimated."""
    first, second = (Segmenter(read_model(tiny_bundle), Settings(device="cpu")) for _ in range(2))
    second.estimate(SCAN)
    plain, after = first.segment(SCAN), second.segment(SCAN)
    np.testing.assert_array_equal(after.labels, plain.labels)
    assert plain.confidence is not None
    assert after.confidence is not None
    np.testing.assert_array_equal(after.confidence, plain.confidence)
    assert after.provenance.identity() == plain.provenance.identity()
    assert [step.name for step in after.provenance.steps] == [step.name for step in plain.provenance.steps]


def test_a_region_is_at_most_the_whole(tiny_bundle: Path) -> None:
    """How large the box is nobody knows before; the run takes no more windows than were said."""
    segmenter = Segmenter(read_model(tiny_bundle), Settings(device="cpu", region="body"))
    found = segmenter.estimate(SCAN)
    assert found.at_most
    assert _network_total(segmenter) <= found.windows


def _watch_shapes(shapes: list[tuple[int, ...]], stride: int) -> Callable[[Tensor], Tensor]:
    def predict(tiles: Tensor) -> Tensor:
        shapes.append(tuple(tiles.shape))
        return torch.zeros(len(tiles), 2, *(size // stride for size in tiles.shape[2:]))

    return predict


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize(("batch", "overlap"), [(1, 0.5), (3, 0.5), (2, 0.3), (4, 0.7), (3, 0.9), (99, 0.0)])
def test_the_windows_timed_are_like_those_of_the_run(batch: int, overlap: float, stride: int) -> None:
    """Twice as many together as the run takes at most together, and nothing else goes through the network."""
    shape = (50, 20, 200)
    scoring = Scoring(Preprocess((1.0, 1.0, 1.0)), Tiling((20, 20, 20), overlap), (stride, stride, stride), batch)
    timed: list[tuple[int, ...]] = []
    ran: list[tuple[int, ...]] = []
    found = estimate_windows(shape, _watch_shapes(timed, stride), scoring, PLAN)
    for _ in stream_scores(HeldRows(torch.zeros(1, *shape)), _watch_shapes(ran, stride), scoring):
        pass
    assert timed == [max(ran)] * 2
    assert found.windows == sum(tiles[0] for tiles in ran)


def test_the_first_time_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that takes 100 s at first and 6 s then, for three windows at a time, takes 2 s for one."""
    now, left = [0.0], [100.0, 6.0]
    monkeypatch.setattr(estimating, "perf_counter", lambda: now[0])

    def predict(tiles: Tensor) -> Tensor:
        now[0] += left.pop(0)
        return torch.zeros(len(tiles), 2, *tiles.shape[2:])

    found = estimate_windows(
        (8, 8, 24), predict, Scoring(Preprocess((1.0, 1.0, 1.0)), Tiling((8, 8, 8), 0.0), (1, 1, 1), 3), PLAN
    )
    assert (found.seconds_per_window, found.windows, found.seconds) == (2.0, 3, 6.0)
