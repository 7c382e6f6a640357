"""Every family of networks leaves the notebook: other runtimes, half precision, little memory, several processes."""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from effvit_med.networks import fold_batchnorm
from effvit_med.networks.attention import linear_attention
from effvit_med.networks.efficientvit import EfficientVit
from effvit_med.networks.layers import layers_for
from tests.networks.families import (
    BACKBONE_OF,
    both_ranks,
    every_family,
    make_image,
    make_network,
    quietly,
    relative_error,
)


@pytest.mark.parametrize(("family", "dims"), [*((family, 2) for family in BACKBONE_OF), ("efficientvit_b", 3)])
def test_compiled_network_gives_the_same_without_a_break(family: str, dims: int) -> None:
    """The whole network is one compiled graph, of the eager logits."""
    torch._dynamo.reset()
    network = make_network(family, dims)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    image = make_image(*(35, 41, 24)[:dims])
    with torch.inference_mode():
        assert relative_error(quietly(lambda: compiled(image)), network(image)) < 1e-4


def test_compiled_network_trains() -> None:
    """The compiled graph has the gradients of the eager network."""
    torch._dynamo.reset()
    network = make_network("efficientvit_b", 2).train()
    image = make_image(40, 33, batch=2)
    network(image).square().mean().backward()
    wanted = _gradients(network)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    quietly(lambda: compiled(image).square().mean().backward())
    torch.testing.assert_close(_gradients(network), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor makes C++ of the graph, and there is no compiler g++")
def test_inductor_makes_native_code() -> None:
    """The default compiler turns a stage with attention into native code that gives the same."""
    backbone = make_network("efficientvit_b", 2).backbone
    assert isinstance(backbone, EfficientVit)
    stage = backbone.stages[-1]
    compiled = torch.compile(stage, fullgraph=True)
    x = torch.randn(1, 64, 12, 12)
    with torch.inference_mode():
        assert relative_error(quietly(lambda: compiled(x)), stage(x)) < 1e-4


@every_family
@both_ranks
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(family: str, dims: int, dtype: torch.dtype) -> None:
    """Autocast of values ten times as large as they should be is finite, and differs on average by 5 % at most."""
    network = make_network(family, dims)
    image = 10 * make_image(*((160, 130) if dims == 2 else (33, 34, 35)))
    with torch.inference_mode():
        exact = network(image)
        with torch.autocast("cpu", dtype):
            half = network(image)
    assert half.isfinite().all()
    assert (half.float() - exact).abs().mean() < 0.05 * exact.std()


def test_linear_attention_outlives_the_range_of_float16() -> None:
    """Sums over tokens that pass 65504 are right, as they are made in float32; in float16 none would be finite."""
    q, k, v = (torch.full((1, 1, 16, 4096), value, dtype=torch.float16) for value in (4.0, 8.0, 2.0))
    naive = ((v @ k.mT) @ q) / (k.sum(-1, keepdim=True).mT @ q)
    assert not naive.isfinite().any()
    torch.testing.assert_close(linear_attention(q, k, v, 1e-15), v)


@every_family
@both_ranks
def test_channels_last_weights_give_the_same(family: str, dims: int) -> None:
    """The layout of weights and maps does not matter to the maps that come out."""
    backbone = make_network(family, dims).backbone
    assert isinstance(backbone, nn.Module)
    image = make_image(*(37, 33, 20)[:dims], batch=2)
    with torch.inference_mode():
        innermost = backbone.to(memory_format=layers_for(dims).memory_format).features(image)  # type: ignore[call-overload]
        outermost = backbone.to(memory_format=torch.contiguous_format).features(image)  # type: ignore[call-overload]
    assert max(map(relative_error, innermost, outermost)) < 1e-5


@every_family
@both_ranks
def test_folded_network_gives_the_same(family: str, dims: int) -> None:
    """Every batch normalisation of every family is folded away, and the logits stay."""
    network = make_network(family, dims)
    folded = fold_batchnorm(network)
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in folded.modules())
    image = make_image(*(37, 50, 21)[:dims])
    with torch.inference_mode():
        assert relative_error(folded(image), network(image)) < 1e-4


def _gradients(network: nn.Module) -> Tensor:
    """All gradients in a row, which are forgotten; a parameter without one is an error."""
    missing = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert missing == []
    row = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad()
    return row


@every_family
@pytest.mark.parametrize(("dims", "decoder"), [(2, "high_resolution"), (2, "seg_head"), (3, "high_resolution")])
def test_checkpointing_changes_only_memory(family: str, dims: int, decoder: str) -> None:
    """With and without kept maps, the gradients and the running statistics are the same."""
    kept = make_network(family, dims, decoder).train()
    again = copy.deepcopy(kept)
    again.checkpoint_activations()
    image = make_image(*(34, 33, 9)[:dims], batch=2)
    for network in (kept, again):
        network(image).square().mean().backward()
    torch.testing.assert_close(_gradients(again), _gradients(kept))
    for (name, found), wanted in zip(again.named_buffers(), kept.buffers(), strict=True):
        torch.testing.assert_close(found, wanted, msg=name)


def test_checkpointing_keeps_fewer_maps() -> None:
    """What the backward pass holds on to shrinks to less than half."""

    def held(*, checkpointing: bool) -> int:
        network = make_network("efficientvit_b", 2).train()
        network.checkpoint_activations(checkpointing)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            network(make_image(64, 64, batch=2))
        return sum(sizes)

    assert held(checkpointing=True) < 0.5 * held(checkpointing=False)


def _train_in_one_of_two_processes(rank: int, meeting_point: str) -> None:
    """Two steps of every family, each process with images of its own; raises where the gradients differ."""
    torch.set_num_threads(1)
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2)
    try:
        for family in BACKBONE_OF:
            network = make_network(family, 2).train()
            network.checkpoint_activations(family in ("shvit", "efficientvit_m"))
            parallel = nn.parallel.DistributedDataParallel(network, find_unused_parameters=False)
            for step in range(2):
                torch.manual_seed(10 * step + rank)
                parallel(make_image(33, 40, batch=2)).square().mean().backward()
                mine = _gradients(network)
                of_all = [torch.empty_like(mine) for _ in range(2)]
                distributed.all_gather(of_all, mine)
                torch.testing.assert_close(of_all[0], of_all[1], rtol=0, atol=0, msg=family)
    finally:
        distributed.destroy_process_group()


def test_two_processes_train_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In distributed training every parameter of every family takes part, and both processes get the same gradients."""
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    torch.multiprocessing.spawn(_train_in_one_of_two_processes, args=(str(tmp_path / "meeting"),), nprocs=2)
