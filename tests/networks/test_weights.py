"""Weights: saving, loading, folding."""

from __future__ import annotations

import argparse
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from effvit_med.errors import OutputError, WeightsError
from effvit_med.networks import SegmentationNetwork, build_network, fold_batchnorm, load_weights, save_weights
from effvit_med.networks.attention import LiteMLA
from effvit_med.networks.efficientvit_m import EfficientVitM
from effvit_med.networks.presets.efficientvit_m import EFFICIENTVIT_M
from effvit_med.networks.weights import read_tensors, unwrap_checkpoint

M0 = EFFICIENTVIT_M["efficientvit_m0"]


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


def _changed_eps(seed: int) -> SegmentationNetwork:
    """A network whose normalisations and attention have other eps than it was built with."""
    network = _network(seed=seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.01
        if isinstance(module, LiteMLA):
            module.kind = replace(module.kind, eps=0.5)
    return network


def test_saved_eps_comes_back(tmp_path: Path) -> None:
    """The eps of normalisations and of attention is saved too, so that the outputs are the same bit for bit."""
    network, other, image = _changed_eps(1), _network(seed=2), torch.randn(1, 1, 64, 64)
    save_weights(network, tmp_path / "a.safetensors", {"preset": "efficientvit_b0"})
    assert load_weights(other, tmp_path / "a.safetensors") == {"preset": "efficientvit_b0"}
    assert {module.eps for module in other.modules() if isinstance(module, nn.BatchNorm2d)} == {0.01}
    assert {module.kind.eps for module in other.modules() if isinstance(module, LiteMLA)} == {0.5}
    with torch.inference_mode():
        torch.testing.assert_close(other(image), network(image), atol=0, rtol=0)


def test_file_without_eps_leaves_it(tmp_path: Path) -> None:
    """A safetensors file of another program changes weights only."""
    network = _changed_eps(1)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "a.safetensors")
    other = _changed_eps(2)
    assert load_weights(other, tmp_path / "a.safetensors") == {}
    assert {module.eps for module in other.modules() if isinstance(module, nn.BatchNorm2d)} == {0.01}


def test_eps_of_no_such_module_is_passed_over(tmp_path: Path) -> None:
    """Where all weights fit, a module that the network has not, or that has no eps, is no reason to refuse them."""
    layer = nn.BatchNorm2d(1)
    words = {"effvit_med.eps": json.dumps({"0.25": ["", "other"]})}
    save_file(layer.state_dict(), tmp_path / "a.safetensors", words)
    load_weights(layer, tmp_path / "a.safetensors")
    assert layer.eps == 0.25
    plain = nn.Linear(1, 1)
    save_file(plain.state_dict(), tmp_path / "b.safetensors", words)
    load_weights(plain, tmp_path / "b.safetensors")
    assert not hasattr(plain, "eps")


@pytest.mark.parametrize(
    "text",
    ["{", "[1]", "7", "[" * 100_000, '{"a": []}', '{"nan": ["bn"]}', '{"-1": ["bn"]}', '{"1": 3}', '{"1": [{}]}'],
)
def test_malformed_eps_is_refused_and_nothing_changes(tmp_path: Path, text: str) -> None:
    """A header that is no table of numbers and names is told by its key, and no weight is loaded."""
    save_file(nn.BatchNorm2d(2).state_dict(), tmp_path / "a.safetensors", {"effvit_med.eps": text})
    layer = nn.BatchNorm2d(2)
    nn.init.zeros_(layer.weight)
    with pytest.raises(WeightsError, match=r"a\.safetensors has a header whose effvit_med\.eps cannot be read"):
        load_weights(layer, tmp_path / "a.safetensors")
    assert layer.weight.tolist() == [0, 0]


@pytest.mark.parametrize("with_decoder", [True, False])
def test_adopted_windows_and_kernels_come_back(tmp_path: Path, with_decoder: bool) -> None:
    """An EfficientViT-M with the windows and kernels of a published file is saved, and loads into a fresh one."""
    shapes = {
        name: tuple(value.shape)
        for name, value in EfficientVitM(M0, 2, 1, window_size=5, q_kernel_sizes=(7, 5, 3, 3)).state_dict().items()
    }

    def build() -> tuple[nn.Module, EfficientVitM]:
        network = build_network(2, 1, 3, "efficientvit_m0").eval()
        backbone = network.backbone
        assert isinstance(backbone, EfficientVitM)
        return (network if with_decoder else backbone), backbone

    network, backbone = build()
    assert len(backbone.adopt(shapes)) == 2
    other, _ = build()
    save_weights(network, tmp_path / "a.safetensors")
    load_weights(other, tmp_path / "a.safetensors")
    assert _same_weights(network, other)
    image = torch.randn(1, 1, 160, 130)
    with torch.inference_mode():
        torch.testing.assert_close(other(image), network(image), atol=0, rtol=0)


def test_refused_weights_leave_windows_and_kernels(tmp_path: Path) -> None:
    """Where windows could be taken on but another weight does not fit, the network stays as it was."""
    donor = EfficientVitM(M0, 2, 3, window_size=5)
    save_weights(donor, tmp_path / "a.safetensors")
    network = EfficientVitM(M0, 2, 1)
    before = {name: value.shape for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError, match="1 have another shape, first 'patch_embed"):
        load_weights(network, tmp_path / "a.safetensors")
    assert {name: value.shape for name, value in network.state_dict().items()} == before


@pytest.mark.parametrize(
    "text", ["weights", "the weights are elsewhere", "]", "N.0", "<html>not found</html>", "version 1"]
)
def test_text_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    """A text, such as a page or a pointer in the place of the file, is refused by its name whatever it says."""
    (tmp_path / "a.pt").write_text(text)
    with pytest.raises(WeightsError, match=r"a\.pt is not a torch file of tensors only"):
        read_tensors(tmp_path / "a.pt")


def test_settings_of_a_training_program_are_passed_over(tmp_path: Path) -> None:
    """An `argparse.Namespace` beside the weights, as in many published files, is no reason to refuse them."""
    torch.save({"model": {"a": torch.ones(1)}, "args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pt")
    assert list(read_tensors(tmp_path / "a.pt")) == ["a"]
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_what_was_refused_is_named(tmp_path: Path) -> None:
    """A file with a number of numpy is refused by what it asks for, without advice to load it all the same."""
    torch.save({"model": {"a": torch.ones(1)}, "best": np.float64(0.5)}, tmp_path / "a.pt")
    with pytest.raises(
        WeightsError, match=r"it names numpy\.\w+\.multiarray\.scalar, which may run code\. It was"
    ) as told:
        read_tensors(tmp_path / "a.pt")
    assert "weights_only" not in str(told.value)


@pytest.mark.parametrize("path", [(), ("state_dict",), ("model",), ("model_state_dict",), ("network",), ("ema",)])
def test_weights_are_found_where_programs_put_them(path: tuple[str, ...]) -> None:
    """Each entry that training programs use is looked into, beside other entries and within another too."""
    weights = {"a": torch.ones(1), "b": torch.zeros(2)}
    content: dict[str, Any] = dict(weights)
    for entry in path:
        content = {"epoch": 3, entry: content}
    assert list(unwrap_checkpoint(content, "it")) == ["a", "b"]
    assert list(unwrap_checkpoint({"model": content, 7: "x"}, "it")) == ["a", "b"]


@pytest.mark.parametrize("average", ["state_dict_ema", "model_ema", "ema"])
def test_average_is_used_only_where_there_is_nothing_else(average: str) -> None:
    """Weights averaged over the steps are taken where they alone are there."""
    both = {average: {"a": torch.ones(1)}, "model": {"b": torch.ones(1)}}
    assert list(unwrap_checkpoint(both, "it")) == ["b"]
    assert list(unwrap_checkpoint({average: both[average], "epoch": 1}, "it")) == ["a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "it holds a list; a table of named tensors is needed"),
        ({"model": {3: torch.ones(1)}}, "it names an entry 3, a int; the names must be text"),
        ({"model": {"a": [1]}}, "it holds a list named 'a'; only tensors belong there"),
        ({"model": [1]}, "it holds a list named 'model'"),
    ],
)
def test_what_is_no_table_of_tensors_is_refused(content: object, message: str) -> None:
    """Anything but tensors by names of text is told by what it is."""
    with pytest.raises(WeightsError, match=message):
        unwrap_checkpoint(content, "it")


def test_table_that_holds_itself_is_refused() -> None:
    """A table within itself has no end, and looking into it has."""
    content: dict[str, Any] = {}
    content["model"] = content
    with pytest.raises(WeightsError, match="it holds a dict named 'model'"):
        unwrap_checkpoint(content, "it")


def test_a_text_file_is_no_torch_file(tmp_path: Path) -> None:
    """A text that bears the name of a torch file is refused in words, not with a number of the unpickler."""
    (tmp_path / "a.pt").write_text("epoch 3: loss 0.2")
    with pytest.raises(WeightsError, match=r"a\.pt is not .*: it is damaged, or no such file"):
        read_tensors(tmp_path / "a.pt")


def test_saving_below_a_file_is_refused(tmp_path: Path) -> None:
    """A folder that is a file gives our error, with its name."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="taken"):
        save_weights(_network(), tmp_path / "taken" / "a.safetensors")
