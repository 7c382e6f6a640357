"""Weights: saving, loading, folding."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from effvit_med.errors import OutputError, WeightsError
from effvit_med.networks import SegmentationNetwork, build_network, fold_batchnorm, load_weights, save_weights


def _network(out_channels: int = 3, seed: int = 0, **settings: str) -> SegmentationNetwork:
    torch.manual_seed(seed)
    network = build_network(2, 1, out_channels, **settings)
    for module in network.modules():  # statistics as after training
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.uniform_(module.weight, 0.3, 2.0)
            nn.init.normal_(module.bias, std=0.3)
    return network.eval()


def _same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_saved_weights_come_back(tmp_path: Path) -> None:
    """What is saved is loaded bit for bit, and the words in the header too."""
    network, other = _network(seed=1), _network(seed=2)
    assert not _same_weights(network, other)
    save_weights(network, tmp_path / "a.safetensors", {"preset": "efficientvit_b0"})
    assert load_weights(other, tmp_path / "a.safetensors") == {"preset": "efficientvit_b0"}
    assert _same_weights(network, other)


@pytest.mark.parametrize("wrapped", [True, False])
def test_torch_files_load(tmp_path: Path, wrapped: bool) -> None:
    """A torch file is read too, also where the weights stand under state_dict."""
    network, other = _network(seed=1), _network(seed=2)
    state = network.state_dict()
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "a.pt")
    assert load_weights(other, tmp_path / "a.pt") == {}
    assert _same_weights(network, other)


def test_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    """A pickle that calls a function is refused, and the function is not called."""

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    torch.save({"a": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(WeightsError, match=r"trap\.pt is not a torch file of tensors only"):
        load_weights(_network(), tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", pickle.dumps([1], protocol=2)])
def test_broken_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes) -> None:
    """A file cut short or of another kind is refused by its name."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        load_weights(_network(), tmp_path / name)


def test_absent_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(WeightsError, match=r"There is no weights file .*none\.safetensors"):
        load_weights(_network(), tmp_path / "none.safetensors")


def test_torch_file_of_other_things_is_refused(tmp_path: Path) -> None:
    """An entry that is no tensor is named with its type."""
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="holds a int named 'epoch'"):
        load_weights(_network(), tmp_path / "a.pt")


def test_other_shape_is_told_and_nothing_changes(tmp_path: Path) -> None:
    """Weights for another number of classes are refused with both shapes, and the network stays as it was."""
    save_weights(_network(5, seed=1), tmp_path / "a.safetensors")
    network, before = _network(3, seed=2), _network(3, seed=2)
    total = len(network.state_dict())
    wanted = rf"{total - 2} of {total} weights match; 2 have another shape, first 'head.classify.conv.weight' "
    with pytest.raises(WeightsError, match=wanted + r"\(\(5, 16, 1, 1\) in the file, \(3, 16, 1, 1\) in the network\)"):
        load_weights(network, tmp_path / "a.safetensors")
    assert _same_weights(network, before)


def test_other_names_are_told(tmp_path: Path) -> None:
    """Weights of another decoder are refused with the first missing and the first unexpected name."""
    save_weights(_network(decoder="seg_head"), tmp_path / "a.safetensors")
    pattern = r"are missing, first 'head\.deepest\.conv\.weight'; \d+ are unexpected, first 'head\.input_ops\.0"
    with pytest.raises(WeightsError, match=pattern):
        load_weights(_network(), tmp_path / "a.safetensors")


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last step fails, the old file is whole and no other file is left."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match=r"cannot be written to .*a\.safetensors.*No space left"):
        save_weights(_network(), path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]
    assert path.read_bytes() == b"old"


def test_save_into_no_folder_is_refused(tmp_path: Path) -> None:
    """A folder that does not exist is told as an output error."""
    with pytest.raises(OutputError, match="cannot be written"):
        save_weights(_network(), tmp_path / "none" / "a.safetensors")


@pytest.mark.parametrize("decoder", ["high_resolution", "seg_head"])
@pytest.mark.parametrize("preset", ["efficientvit_b0", "efficientvit_l0"])
def test_folding_keeps_the_outputs(decoder: str, preset: str) -> None:
    """Folding is exact up to rounding, 1e-5 of the standard deviation, and leaves the network as it was."""
    network = _network(decoder=decoder, preset=preset)
    folded = fold_batchnorm(network)
    x = torch.randn(1, 1, 64, 48)
    before = network(x).detach()
    difference = (folded(x).detach() - before).double().square().mean().sqrt()
    assert float(difference / before.std()) <= 1e-5
    assert not [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    torch.testing.assert_close(network(x), before, atol=0, rtol=0)


def test_folding_is_exact_in_double_precision() -> None:
    """In float64 the folded network differs only by rounding of 64 bits, so the algebra is exact."""
    network = _network().double()
    x = torch.randn(1, 1, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(fold_batchnorm(network)(x), network(x), atol=1e-10, rtol=1e-10)


def test_instance_norm_is_not_folded() -> None:
    """Instance normalisation depends on the image and stays."""
    network = _network(norm="instance")
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(fold_batchnorm(network)(x), network(x), atol=0, rtol=0)
