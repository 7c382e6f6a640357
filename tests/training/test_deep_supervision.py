"""Heads on the coarser maps, while a network learns."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss

from effvit_med.errors import SettingsError
from effvit_med.networks import build_network
from effvit_med.training.deep_supervision import DeepSupervision, halving_weights


def _network(**details: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(3, 1, 3, preset="fullres_tiny", norm="instance", **details)


def test_in_evaluation_it_is_the_network() -> None:
    """Evaluation gives the network's own logits."""
    network, image = _network(), torch.randn(1, 1, 16, 24, 16)
    module = DeepSupervision(network, 3).eval()
    assert torch.equal(module(image), network(image))


def test_the_first_of_the_list_is_what_the_network_gives() -> None:
    """In training the finest logits are the network's own, the others as large as the decoder's coarser maps."""
    network, image = _network(), torch.randn(2, 1, 16, 24, 16)
    full, coarser, coarsest = DeepSupervision(network, 3).train()(image)
    assert torch.equal(full, network(image))
    assert (coarser.shape[2:], coarsest.shape[2:]) == ((4, 6, 4), (2, 3, 2))


def test_a_coarser_decoder_still_gives_full_size() -> None:
    """Where the decoder stops at stride 2 the finest logits are interpolated to the image."""
    network = build_network(2, 1, 3, decoder_stride=2)
    full, coarser = DeepSupervision(network, 2).train()(torch.randn(1, 1, 64, 64))
    assert (full.shape[2:], coarser.shape[2:]) == ((64, 64), (16, 16))


def test_only_the_heads_are_new() -> None:
    """The network has the same weights with and without; the heads stand beside it."""
    network = _network()
    names = set(network.state_dict())
    module = DeepSupervision(network, 3)
    assert set(network.state_dict()) == names
    assert {name for name in module.state_dict() if not name.startswith("network.")} == {
        f"heads.{number}.{part}" for number in range(2) for part in ("weight", "bias")
    }


def test_every_weight_learns() -> None:
    """MONAI's loss over the list sends a gradient to each head and to the network."""
    module = DeepSupervision(_network(), 3).train()
    loss = DeepSupervisionLoss(DiceCELoss(to_onehot_y=True, softmax=True), weights=halving_weights(3))
    loss(module(torch.randn(1, 1, 16, 16, 16)), torch.randint(0, 3, (1, 1, 16, 16, 16)).float()).backward()
    assert all(weight.grad is not None and float(weight.grad.abs().sum()) > 0 for weight in module.heads.parameters())
    assert all(weight.grad is not None for weight in module.network.parameters())


def test_one_level_adds_nothing() -> None:
    """With one level training gives plain logits, from any decoder."""
    network = build_network(2, 1, 3, decoder="seg_head")
    module = DeepSupervision(network, 1).train()
    assert isinstance(module(torch.randn(1, 1, 64, 64)), torch.Tensor)
    assert not list(module.heads.parameters())


@pytest.mark.parametrize(("levels", "words"), [(0, "is 0"), (9, "3 maps at most"), (2, "no coarser maps")])
def test_levels_that_cannot_be_are_refused(levels: int, words: str) -> None:
    """The error says what is wrong and how many levels there are."""
    network = build_network(2, 1, 3, decoder="seg_head") if levels == 2 else _network()
    with pytest.raises(SettingsError, match=words):
        DeepSupervision(network, levels)
