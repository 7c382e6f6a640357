"""Temporary bundles whose labels look like organs, or like noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import engine_bundle
from benchmarks.engine_bundle import Kind, cut_into_parts, take_shared_weights, write_bundle
from benchmarks.engine_case import describe_labels
from benchmarks.scans import make_large_scan
from effvit_med.engine import Segmenter, Settings, read_model
from effvit_med.networks import build_network


@pytest.fixture(name="bundles", scope="module")
def _bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_bundle, "COUNT", (1, 3, 3))
        return {kind: write_bundle(folder, Kind(14, 4, kind, 48), [7001]) for kind in (True, False)}


def test_structured_labels_are_compact_and_random_ones_are_not(bundles: dict[bool, Path]) -> None:
    """On an unseen phantom most of the structured labels' cells have no border; random weights have far more."""
    scan = make_large_scan((48, 288, 288), (2.0, 1.25, 1.25), seed=3)[0]
    looks = {}
    for kind, folder in bundles.items():
        segmenter = Segmenter(read_model(folder), Settings.from_values(device="cpu"))
        looks[kind] = describe_labels(segmenter.segment(scan).labels)
    assert looks[True]["classes"] > 5
    assert looks[True]["foreground"] < 0.3
    assert 2 * looks[True]["border"] < looks[False]["border"]


def test_a_bundle_that_is_there_is_not_made_again(bundles: dict[bool, Path]) -> None:
    """The same bundle is made once for all measurements."""
    weights = bundles[True] / "models" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    assert write_bundle(bundles[True].parent, Kind(14, 4, True, 48), [7001]) == bundles[True]
    assert weights.stat().st_mtime_ns == before


def test_shared_weights_are_the_trained_ones() -> None:
    """A network of another stride and number of classes has the trained backbone, and its own last layer."""
    trained = read_model().load_network()
    torch.manual_seed(0)
    network = build_network(3, 1, 14, "efficientvit_b0", decoder_stride=4)
    last = {name: value.clone() for name, value in network.state_dict().items() if name.startswith("head.classify")}
    take_shared_weights(network, trained)
    own, theirs = network.state_dict(), trained.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in own if name.startswith("backbone."))
    assert last
    assert all(torch.equal(own[name], value) for name, value in last.items())


@pytest.mark.parametrize(("classes", "body"), [(3, False), (14, False), (105, True)])
def test_parts_cover_organs_and_with_many_classes_the_body(classes: int, body: bool) -> None:
    """Air is background, every organ voxel has a class, and the rest of the body has one only among many classes."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 4, generator=generator)
    places = torch.arange(4000) % 4
    parts = cut_into_parts(features, places, classes)
    assert (parts[places == 0] == 0).all()
    assert (parts[places > 1] > 0).all()
    assert bool((parts[places == 1] > 0).all()) is body
    assert parts.max() < classes


def test_border_cells_and_foreground_are_counted() -> None:
    """Half a volume of one label: half of it is foreground, and one layer of cells has the border."""
    labels = np.zeros((30, 40, 40), np.uint8)
    labels[:15] = 1
    look = describe_labels(labels)
    assert (look["classes"], look["foreground"]) == (2, 0.5)
    assert look["border"] == pytest.approx(1 / 4)
