"""What memory a network needs before it runs, and what memory a machine has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from effvit_med.engine.memory import (
    MIB,
    MachineMemory,
    _read_cgroups,
    allocator_bytes,
    machine_memory,
    network_memory,
    process_bytes,
    training_memory,
)
from effvit_med.networks import SegmentationNetwork, build_network, fold_batchnorm

NETWORKS = [
    ("efficientvit_b0", 2, 1, (1, 1, 128, 128)),
    ("efficientvit_b1", 2, 4, (2, 3, 128, 96)),
    ("efficientvit_l1", 2, 2, (1, 1, 128, 128)),
    ("efficientvit_b0", 3, 1, (1, 1, 32, 48, 48)),
    ("efficientvit_b1", 3, 2, (2, 1, 32, 48, 48)),
    ("efficientvit_l0", 3, 1, (1, 1, 16, 64, 64)),  # its last convolution is one that torch unfolds
]


def _network(preset: str, spatial_dims: int, stride: int, channels: int) -> SegmentationNetwork:
    network = build_network(spatial_dims, channels, 5, preset=preset, decoder_stride=stride)
    return fold_batchnorm(network.eval())


def _allocated(network: SegmentationNetwork, tile: Tensor) -> int:
    """The largest sum of what torch's allocator gave out during one call."""
    with torch.inference_mode():
        network.logits(tile)
        return _peak_of(lambda: network.logits(tile))


def _peak_of(call: Callable[[], object]) -> int:
    def walk(event: object) -> None:
        if event.tag.name == "Allocation":
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
        for child in event.children:
            walk(child)

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    changes: list[tuple[int, int]] = []
    for event in profiler.profiler.kineto_results.experimental_event_tree():
        walk(event)
    live = peak = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        live += change
        peak = max(peak, live)
    return peak


@pytest.mark.filterwarnings("ignore")  # the profiler's own
@pytest.mark.parametrize(("preset", "spatial_dims", "stride", "shape"), NETWORKS)
def test_network_memory_is_what_torch_allocates(
    preset: str, spatial_dims: int, stride: int, shape: tuple[int, ...]
) -> None:
    """The largest sum of live tensors, found without running, is what the allocator gives out when it runs."""
    network = _network(preset, spatial_dims, stride, shape[1])
    found = network_memory(network, shape, "float32").activations_bytes
    truth = _allocated(network, torch.rand(shape))
    assert truth - 2.5 * MIB <= found <= truth * 1.01, (found, truth)


def test_half_precision_needs_about_half() -> None:
    """In bfloat16 the maps take half of the memory; only the attention and the interpolation are wider."""
    network = _network("efficientvit_b0", 3, 1, 1)
    full = network_memory(network, (1, 1, 32, 48, 48), "float32")
    half = network_memory(network, (1, 1, 32, 48, 48), "bfloat16")
    assert 0.4 < half.activations_bytes / full.activations_bytes < 0.7
    assert half.weights_bytes == full.weights_bytes


def test_network_memory_grows_with_the_batch() -> None:
    """Twice the tiles hold twice the activations, and the weights stay."""
    network = _network("efficientvit_b0", 2, 1, 1)
    one = network_memory(network, (1, 1, 128, 128), "float32")
    two = network_memory(network, (2, 1, 128, 128), "float32")
    assert two.activations_bytes == pytest.approx(2 * one.activations_bytes, rel=0.01)
    assert two.weights_bytes == one.weights_bytes == sum(4 * p.numel() for p in network.parameters())


def test_network_memory_allocates_nothing() -> None:
    """A tile that no machine could hold is followed all the same, and the process does not grow by it."""
    network = _network("efficientvit_b0", 3, 1, 1)
    network_memory(network, (1, 1, 32, 32, 32), "float32")  # imports
    before = process_bytes()
    found = network_memory(network, (64, 1, 1024, 1024, 1024), "float32")
    assert found.activations_bytes > 2**40
    assert process_bytes() - before < 64 * MIB


def test_network_memory_leaves_the_network_alone() -> None:
    """Looking at a network changes neither its weights nor what it computes."""
    network = _network("efficientvit_b0", 2, 1, 1)
    tile = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        before = network.logits(tile)
        network_memory(network, (1, 1, 64, 64), "float32")
        assert torch.equal(network.logits(tile), before)
    assert all(p.device.type == "cpu" and type(p) is nn.Parameter for p in network.parameters())


def test_dead_maps_do_not_count() -> None:
    """A chain of layers holds two maps at a time, however long it is."""
    layers = [nn.Sequential(nn.AvgPool2d(3, 1, 1)) for _ in range(6)]
    found = network_memory(nn.Sequential(*layers), (1, 1, 256, 256), "float32")
    assert found.activations_bytes == 2 * 256 * 256 * 4


def test_kept_memory_costs_more_than_returned_memory() -> None:
    """A process that keeps what it freed needs more room for holes; an accelerator has none of glibc's."""
    returned, kept = (allocator_bytes(200 * MIB, True, keeps) for keeps in (False, True))
    assert returned < kept
    assert allocator_bytes(200 * MIB, False, False) == allocator_bytes(200 * MIB, False, True)


def test_machine_memory_of_the_processor() -> None:
    """Free memory lies within the total, which is at most what the machine has."""
    memory = machine_memory(torch.device("cpu"))
    assert 0 < memory.free_bytes <= memory.total_bytes <= psutil.virtual_memory().total


def test_machine_memory_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch keeps for later on an accelerator counts as free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _device: 12)
    assert machine_memory(torch.device("cuda")) == MachineMemory(100, 28)


def _group(folder: Path, names: tuple[str, str], limit: str, used: int, stat: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip((*names, "memory.stat"), (limit, str(used), stat), strict=True):
        (folder / name).write_text(text + "\n", encoding="utf-8")


def test_control_groups_of_version_2(tmp_path: Path) -> None:
    """Every group above the process limits it; ``max`` is no limit; droppable file contents are not in use."""
    own = tmp_path / "cgroup"
    own.write_text("0::/jobs/one\n", encoding="utf-8")
    names = ("memory.max", "memory.current")
    _group(tmp_path / "jobs", names, "1000", 400, "anon 300\ninactive_file 100")
    _group(tmp_path / "jobs" / "one", names, "max", 300, "inactive_file 0")
    assert list(_read_cgroups(tmp_path, own)) == [(1000, 300)]


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    """The memory controller of version 1 is read where it is mounted, also where only its root is there."""
    own = tmp_path / "cgroup"
    own.write_text("5:devices:/\n4:memory:/docker/abc\n0::/\n", encoding="utf-8")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    _group(tmp_path / "memory", names, "5000", 900, "cache 3\ntotal_inactive_file 200")
    assert list(_read_cgroups(tmp_path, own)) == [(5000, 700)]


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    """Where there are no control groups nothing limits the process."""
    assert list(_read_cgroups(tmp_path, tmp_path / "none")) == []


@pytest.mark.filterwarnings("ignore")  # the profiler's own
@pytest.mark.parametrize(("spatial_dims", "shape"), [(2, (2, 1, 64, 48)), (3, (2, 1, 32, 40, 40))])
def test_the_memory_of_a_training_step_is_what_torch_allocates(spatial_dims: int, shape: tuple[int, ...]) -> None:
    """Followed without content, a step holds within a tenth what a real one does.

    Patches are large beside the weights, which oneDNN copies into a layout of its own for a moment.
    """
    network = build_network(spatial_dims, 1, 3, preset="fullres_tiny")
    found = training_memory(network, shape)
    patch = torch.zeros(shape)
    target = torch.zeros((shape[0], *shape[2:]), dtype=torch.int64)

    def step() -> None:
        logits = network(patch)
        shares = logits.softmax(1)
        loss = nn.functional.cross_entropy(logits, target) + (shares * shares).sum() / shares.sum()
        loss.backward()

    step()
    network.zero_grad(set_to_none=True)
    peak = _peak_of(step)
    assert found.activations_bytes == pytest.approx(peak, rel=0.1)
    assert found.weights_bytes == sum(p.numel() * 4 for p in network.parameters())
