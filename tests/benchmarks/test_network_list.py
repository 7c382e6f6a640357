"""The networks that are compared."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn

from benchmarks.network_list import NETWORKS, OUT_CHANNELS, REFERENCE, Entry, FullSize, prepare
from benchmarks.network_report import TARGETS
from effvit_med.networks.blocks import ConvNorm


def test_names_are_unique() -> None:
    """Measurements are kept by the number of axes and the name."""
    counts = Counter((entry.spatial_dims, entry.name) for entry in NETWORKS)
    assert set(counts.values()) == {1}


def test_references_and_targets_are_in_the_list() -> None:
    """A network that is renamed in one place only would leave the headlines empty."""
    names = {(entry.spatial_dims, entry.name): entry.is_ours for entry in NETWORKS}
    assert [names[dims, name] for dims, name in REFERENCE.items()] == [True, True]
    assert [names[target.spatial_dims, target.peer] for target in TARGETS] == [False] * 4


@pytest.mark.parametrize("entry", [e for e in NETWORKS if e.is_ours], ids=lambda e: f"{e.spatial_dims}D {e.name}")
def test_ours_give_full_size(entry: Entry) -> None:
    """Every network of ours gives 14 classes at the image's own size, with nothing left to fold."""
    network, parameters = prepare(entry, 32)
    with torch.inference_mode():
        output = network(torch.zeros(1, 1, *(32,) * entry.spatial_dims))
    assert output.shape == (1, OUT_CHANNELS, *(32,) * entry.spatial_dims)
    assert parameters > 500_000
    assert all(module.norm is None for module in network.modules() if isinstance(module, ConvNorm))


@pytest.mark.parametrize("name", ["MONAI UNet", "MONAI SegResNet-32", "MONAI UNETR"])
@pytest.mark.parametrize("dims", [2, 3])
def test_peers_give_full_size(name: str, dims: int) -> None:
    """A peer gives 14 classes at the image's own size, in eval mode; all are held to it again when they are timed."""
    pytest.importorskip("monai")
    entry = next(each for each in NETWORKS if (each.name, each.spatial_dims) == (name, dims))
    network, _ = prepare(entry, 32)
    assert not network.training
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, *(32,) * dims)).shape == (1, OUT_CHANNELS, *(32,) * dims)


def test_coarse_logits_are_interpolated_to_full_size() -> None:
    """SegFormer's logits of stride 4 are brought to the size of the image, within what is timed."""

    class Answer:
        logits = torch.arange(4.0).reshape(1, 1, 2, 2)

    class Coarse(nn.Module):
        def forward(self, x: torch.Tensor) -> Answer:
            return Answer()

    output = FullSize(Coarse())(torch.zeros(1, 1, 8, 8))
    assert output.shape == (1, 1, 8, 8)
    assert output.mean() == pytest.approx(1.5)
