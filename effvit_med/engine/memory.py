"""What memory a network needs before it runs, and what memory a machine has."""

from __future__ import annotations

import copy
import re
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

MIB = 2**20

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")

_traced_bytes: list[int] = []  # what each call of `network_memory` has added to the process

_PRODUCTS = {torch.ops.aten.conv2d, torch.ops.aten.conv3d, torch.ops.aten.linear}
_ACTIVATIONS = {torch.ops.aten.gelu, torch.ops.aten.hardswish, torch.ops.aten.hardswish_, torch.ops.aten.relu}
_ACTIVATIONS |= {torch.ops.aten.relu_}


@dataclass(frozen=True)
class NetworkMemory:
    """What one call of a network holds.

    Attributes:
        weights_bytes: parameters and buffers.
        activations_bytes: the largest sum of all tensors that live at the same time between the input, which is not
            counted, and the output, which is.
        tracing_bytes: what finding this out, for any network so far, has added to the process, torch's tools for it
            most of all (70 MiB); it stays. 0 where the answer was known.
    """

    weights_bytes: int
    activations_bytes: int
    tracing_bytes: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True)
class MachineMemory:
    """What memory a processor or an accelerator has for this process.

    Attributes:
        total_bytes: all of it.
        free_bytes: what can be had now without pushing anything out; what the process already holds is not in it.
    """

    total_bytes: int
    free_bytes: int


def network_memory(network: nn.Module, tile_shape: tuple[int, ...], precision: str) -> NetworkMemory:
    """What one call of a network holds, found without running it and without allocating anything.

    The network is followed on tensors that have a size but no content. Every block of memory is counted from its birth
    to its death, so maps that share one, and sums and activations written in place, count once. On a processor in
    float32 the activation after a convolution is taken as fused with it, as `effvit_med.networks` does.

    It is the sum of torch's own tensors. Not in it is what the allocator holds on top of it and what the libraries
    below use for themselves; `allocator_bytes` bounds both.

    Args:
        network: on its device, in eval mode, as it will run (batch normalisations folded or not); called by its
            ``logits``, or itself where it has none.
        tile_shape: (batch, channels, *window).
        precision: ``float32``, or the name of the half precision of autocast such as ``bfloat16``.

    Examples:
        >>> network = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        >>> network_memory(network, (1, 1, 32, 32), "float32")
        NetworkMemory(weights_bytes=144, activations_bytes=16384)
    """
    before = process_bytes()
    from torch._subclasses.fake_tensor import FakeTensorMode

    kept = [*network.parameters(), *network.buffers()]
    kind = kept[0].device.type if kept else "cpu"
    empty = FakeTensorMode(allow_non_fake_inputs=True)
    known: dict[int, Any] = {id(tensor): empty.from_tensor(tensor) for tensor in kept}
    weights = {_storage_of(tensor): tensor.untyped_storage().nbytes() for tensor in known.values()}
    hollow = copy.deepcopy(network, known)  # deepcopy takes what it finds in its memo for a copy it has already made
    call: Callable[[Tensor], object] = getattr(hollow, "logits", hollow)
    fused = kind == "cpu" and precision == "float32" and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    half = None if precision == "float32" else getattr(torch, precision)
    with empty, torch.inference_mode(), torch.autocast(kind, dtype=half, enabled=half is not None):
        tile = torch.empty(tile_shape, device=kind)
        with _Living({*weights, _storage_of(tile)}, fused=fused) as living:
            call(tile)
    _traced_bytes.append(max(0, process_bytes() - before))
    return NetworkMemory(sum(weights.values()), living.peak_bytes, sum(_traced_bytes))


def training_memory(network: nn.Module, patch_shape: tuple[int, ...], precision: str = "float32") -> NetworkMemory:
    """What one training step of a network holds, found without running it and without allocating anything.

    Forward, Dice and cross-entropy, and backward are followed as `network_memory` follows a call. What the optimiser
    keeps of each weight is not in it.

    Args:
        network: on the processor, as it is trained; called itself.
        patch_shape: (batch, channels, *patch).
        precision: ``float32``, or the name of the half precision of autocast such as ``bfloat16``.

    Returns:
        Weights, and the largest sum of all other tensors that live at the same time: what the backward pass needs, and
        the gradients of weights.

    Examples:
        >>> network = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        >>> training_memory(network, (1, 1, 32, 32)).weights_bytes
        144
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    half = None if precision == "float32" else getattr(torch, precision)
    empty = FakeTensorMode(allow_non_fake_inputs=True)
    kept = [*network.parameters(), *network.buffers()]
    known: dict[int, Any] = {id(tensor): empty.from_tensor(tensor) for tensor in kept}
    weights = {_storage_of(tensor): tensor.untyped_storage().nbytes() for tensor in known.values()}
    hollow = copy.deepcopy(network, known).train()
    with empty:
        patch = torch.empty(patch_shape)
        target = torch.empty((patch_shape[0], *patch_shape[2:]), dtype=torch.int64)
        with _Living({*weights, _storage_of(patch)}, fused=False) as living:
            with torch.autocast("cpu", dtype=half, enabled=half is not None):
                logits = hollow(patch)
            shares = logits.float().softmax(1)
            loss = nn.functional.cross_entropy(logits.float(), target) + (shares * shares).sum() / shares.sum()
            loss.backward()
    return NetworkMemory(sum(weights.values()), living.peak_bytes)


class _Living(TorchDispatchMode):
    """Follows every block of memory that operations make, from its birth to its death.

    Args:
        others: blocks that do not count.
        fused: whether an activation right after a product is done within it, as on a processor.
    """

    def __init__(self, others: set[int], *, fused: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._peak_bytes = 0
        self._live_bytes = 0
        self._bytes: dict[int, int] = {}
        self._products: set[int] = set()
        self._others = others
        self._fused = fused
        self._plain: tuple[int, int] | None = None

    @property
    def peak_bytes(self) -> int:
        """The largest sum so far."""
        return max(self._peak_bytes, self._plain[1] if self._plain else 0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        operation = func.overloadpacket
        source = _storage_of(args[0]) if operation in _ACTIVATIONS else None
        if self._plain and self._plain[0] != source:
            self._peak_bytes = self.peak_bytes
        self._plain = None
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, Tensor):
                self._welcome(tensor, source)
        if self._fused and operation in _PRODUCTS:
            self._products.add(_storage_of(out))
            self._plain = (_storage_of(out), self._live_bytes + _unfolded_bytes(args[0], args[1], out))
        return out

    def _welcome(self, tensor: Tensor, source: int | None) -> None:
        block = _storage_of(tensor)
        if block in self._bytes or block in self._others:
            return
        if source in self._products and source in self._bytes:
            self._bytes[block], self._bytes[source] = self._bytes[source], 0
        else:
            self._bytes[block] = tensor.untyped_storage().nbytes()
            self._live_bytes += self._bytes[block]
            self._peak_bytes = max(self._peak_bytes, self._live_bytes)
        weakref.finalize(tensor.untyped_storage(), self._farewell, block)

    def _farewell(self, block: int) -> None:
        self._live_bytes -= self._bytes.pop(block)
        self._products.discard(block)


def _unfolded_bytes(x: Tensor, weight: Tensor, out: Tensor) -> int:
    """Scratch memory of a 3D convolution that torch does not leave to oneDNN: every voxel with all its neighbours.

    That is one without activation, for one small map: its rule multiplies the sizes of all axes but the last.
    """
    if weight.dim() != 5 or len(x) > 1 or len(weight) != out.shape[1] or weight.shape[1] != x.shape[1]:
        return 0  # no 3D, a batch, or groups
    if x.shape[1:4].numel() > 20480 or min(weight.shape[-2:]) > 3 or weight.shape[2:].numel() == 1:
        return 0
    return weight[0].numel() * out.shape[2:].numel() * x.element_size()


def _storage_of(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # noqa: SLF001  data_ptr is 0 for all tensors without content


def allocator_bytes(activations_bytes: int, on_processor: bool, keeps_freed_memory: bool) -> int:
    """What the allocator and the libraries below torch hold at most, on top of a network's own tensors.

    Measured with 1 and 2 threads as growth of the process during three calls of B0, B1 and L1, 2D and 3D, with 25 to
    310 MiB of activations, on glibc 2.36:

    - oneDNN's code and scratch memory: 20 MiB, where every freed block went back at once; with the pages of torch's
      libraries that the first call reads 32 to 36 MiB, for which 40 MiB are taken.
    - Holes between the blocks of glibc's heap: up to 2.3 times the activations and up to 120 MiB, as it gives back only
      blocks above 32 MiB. So 2 times the activations and at most 128 MiB are taken, beside these.
    - With `effvit_med.engine.allocation.keep_freed_memory` no block goes back: 0.8 to 2.9 times the activations. So 3
      times are taken.

    On an accelerator it is a quarter and 256 MiB, for the workspaces of cuDNN and the rounding of torch's allocator;
    this was not measured.

    Args:
        activations_bytes: of `network_memory`.
        on_processor: whether the network runs on the processor.
        keeps_freed_memory: what `effvit_med.engine.allocation.keep_freed_memory` returned.

    Examples:
        >>> allocator_bytes(100 * MIB, True, False) // MIB
        168
    """
    if not on_processor:
        return activations_bytes // 4 + 256 * MIB
    holes = 3 * activations_bytes if keeps_freed_memory else min(2 * activations_bytes, 128 * MIB)
    return 40 * MIB + holes


def process_bytes() -> int:
    """What this process holds of the machine's memory now."""
    held: int = psutil.Process().memory_info().rss
    return held


def machine_memory(device: torch.device) -> MachineMemory:
    """What memory a device has, and how much of it is free now.

    For the processor, limits of the container or the job (control groups, both versions) count as the machine's end;
    file contents that the system keeps but can drop count as free.

    Args:
        device: the processor, a CUDA device or Apple's MPS.

    Examples:
        >>> memory = machine_memory(torch.device("cpu"))
        >>> 0 < memory.free_bytes <= memory.total_bytes
        True
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return MachineMemory(total, min(total, free + cached))
    if device.type == "mps":
        total = torch.mps.recommended_max_memory()
        return MachineMemory(total, max(0, total - torch.mps.driver_allocated_memory()))
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    for limit, used in _read_cgroups(_CGROUPS, _OWN_CGROUPS):
        total, free = min(total, limit), min(free, max(0, limit - used))
    return MachineMemory(total, free)


def _read_cgroups(mounted: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of every control group that this process is in: its own and all above it."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return  # no Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = mounted / "memory" if controllers else mounted
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
        folder = root / path.lstrip("/")
        # inside a container the path may be the host's, of which only the root is mounted here
        for group in dict.fromkeys([*(each for each in (folder, *folder.parents) if each.is_relative_to(root)), root]):
            limit, used = _read_number(group / names[0]), _read_number(group / names[1])
            if limit is not None and used is not None:
                yield limit, max(0, used - (_read_number(group / "memory.stat", names[2]) or 0))


def _read_number(path: Path, name: str = "") -> int | None:
    """The number in a file, or after a name at the start of one of its lines; None where there is none (``max``)."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{re.escape(name)}\s*(\d+)\s*$", text, re.MULTILINE)
    return int(found[1]) if found else None
