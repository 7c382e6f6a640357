"""What keeps a run going where memory runs out in the middle of it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import weakref
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from effvit_med.engine import recovery
from effvit_med.engine.recovery import Recovering, is_out_of_memory, shrink_window, with_room
from effvit_med.errors import RefusedError, SettingsError

Predict = Callable[[Tensor], Tensor]


class _Limited:
    """A network that runs out of memory above a number of voxels; it answers with the mean of each block."""

    def __init__(self, voxels: int, stride: int = 2, error: BaseException | None = None) -> None:
        self.voxels = voxels
        self.stride = stride
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, tiles: Tensor) -> Tensor:
        self.calls.append((len(tiles), *tiles.shape[2:]))
        if tiles.numel() > self.voxels:
            raise self.error
        return self.answer(tiles)

    def answer(self, tiles: Tensor) -> Tensor:
        pool = functional.avg_pool2d if tiles.dim() == 4 else functional.avg_pool3d
        means = pool(tiles, self.stride)
        return torch.cat([means, -3 * means], dim=1)


@given(
    st.integers(1, 5),
    st.lists(st.integers(4, 12).map(lambda n: 2 * n), min_size=2, max_size=3),
    st.integers(10, 13),
)
def test_remedies_give_exactly_the_scores(batch: int, window: list[int], log_voxels: int) -> None:
    """A network that sees each block alone gives the same scores, bit for bit, however its tiles are cut up."""
    predict = _Limited(2**log_voxels)
    tiles = torch.randn(batch, 1, *window)
    dims = len(window)
    recovering = Recovering(predict, (2,) * dims, (8,) * dims)
    assert torch.equal(recovering(tiles), predict.answer(tiles))
    short = tiles.numel() > 2**log_voxels
    assert bool(recovering.findings) == short


def test_without_trouble_the_network_is_called_once() -> None:
    """Where memory suffices the tiles go through as they are, and nothing is found."""
    predict = _Limited(10**6)
    recovering = Recovering(predict, (2, 2), (8, 8))
    recovering(torch.zeros(4, 1, 16, 16))
    assert predict.calls == [(4, 16, 16)]
    assert recovering.findings == ()


def test_the_smaller_batch_is_remembered() -> None:
    """Tiles that came after go through at once as few as helped before, without another failure."""
    predict = _Limited(2 * 256)
    recovering = Recovering(predict, (2, 2), (8, 8))
    recovering(torch.zeros(5, 1, 16, 16))
    assert [call[0] for call in predict.calls] == [5, 2, 2, 1]
    recovering(torch.zeros(4, 1, 16, 16))
    assert [call[0] for call in predict.calls[4:]] == [2, 2]
    (finding,) = recovering.findings
    assert finding.code == "MEMORY_SHORT"
    assert "2 of 5 tiles went through at a time" in finding.message


def test_smaller_windows_come_after_single_tiles() -> None:
    """A tile that is too large alone is cut into windows no smaller than allowed, and the user is told of labels."""
    predict = _Limited(16 * 8)
    recovering = Recovering(predict, (2, 2), (8, 8))
    recovering(torch.zeros(2, 1, 16, 16))
    assert predict.calls[:3] == [(2, 16, 16), (1, 16, 16), (1, 8, 16)]
    assert {call[1:] for call in predict.calls[2:]} == {(8, 16)}
    messages = [finding.message for finding in recovering.findings]
    assert any("tiles of 16 x 16 voxels went through in windows of 8 x 16" in message for message in messages)
    assert any("labels can differ" in message for message in messages)


def test_the_fallback_is_made_once_and_only_when_needed() -> None:
    """When the smallest windows fail too, another network takes over for good, with whole tiles in one batch."""
    made: list[_Limited] = []

    def make() -> Predict:
        made.append(_Limited(10**6))
        return made[-1]

    predict = _Limited(10)
    recovering = Recovering(predict, (2, 2), (8, 8), make)
    tiles = torch.randn(2, 1, 16, 16)
    for _ in range(3):
        assert torch.equal(recovering(tiles), predict.answer(tiles))
    assert len(made) == 1
    assert made[0].calls == [(2, 16, 16)] * 3
    assert len(recovering.findings) == 1
    assert "memory elsewhere" in recovering.findings[0].message


def test_a_fallback_short_of_memory_has_its_own_remedies() -> None:
    """The network that takes over goes on with fewer tiles where it runs out of memory in turn."""
    fallback = _Limited(256)
    recovering = Recovering(_Limited(10), (2, 2), (8, 8), lambda: fallback)
    tiles = torch.randn(4, 1, 16, 16)
    assert torch.equal(recovering(tiles), fallback.answer(tiles))
    assert fallback.calls[-1] == (1, 16, 16)


def test_when_nothing_helps_the_first_error_is_the_cause() -> None:
    """The case is refused with the tile's size, from the error that came first."""
    first = MemoryError("the first")
    predict = _Limited(10, error=first)
    with pytest.raises(RefusedError, match="NOT_ENOUGH_MEMORY: Memory ran out for a tile of 16 x 16 voxels") as caught:
        Recovering(predict, (2, 2), (8, 8))(torch.zeros(2, 1, 16, 16))
    assert caught.value.__cause__ is first


def test_a_fallback_that_cannot_be_made_is_no_remedy() -> None:
    """If memory is short for the other network too, the case is refused."""

    def make() -> Predict:
        raise MemoryError

    with pytest.raises(RefusedError, match="no remedy helped"):
        Recovering(_Limited(10), (2, 2), (8, 8), make)(torch.zeros(1, 1, 16, 16))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ValueError("out of memory"),
        KeyError("x"),
    ],
)
def test_other_errors_pass(error: Exception) -> None:
    """An error that is not about memory is raised as it is, at the first call."""
    predict = _Limited(10, error=error)
    with pytest.raises(type(error)) as caught:
        Recovering(predict, (2, 2), (8, 8))(torch.zeros(4, 1, 16, 16))
    assert caught.value is error
    assert len(predict.calls) == 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_errors_about_memory_are_known(error: BaseException) -> None:
    """What torch says on each system when memory runs out is recognised."""
    assert is_out_of_memory(error)


def test_caches_are_given_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """If an accelerator kept memory for later, the same tiles are tried again before any are split, once a call."""
    predict = _Limited(10**6)

    def free() -> int:
        predict.voxels = 10**6
        return 5 * recovery.MIB

    monkeypatch.setattr(recovery, "_free_caches", free)
    predict.voxels = 10
    recovering = Recovering(predict, (2, 2), (8, 8))
    recovering(torch.zeros(4, 1, 16, 16))
    assert predict.calls == [(4, 16, 16)] * 2
    assert ["5.0 MiB" in finding.message for finding in recovering.findings] == [True]
    monkeypatch.setattr(recovery, "_free_caches", lambda: 1)
    predict.voxels = 10
    with pytest.raises(RefusedError, match="NOT_ENOUGH_MEMORY"):
        recovering(torch.zeros(4, 1, 16, 16))


def test_the_maps_of_a_failed_call_are_gone() -> None:
    """What a call had made before it ran out of memory is free when the next remedy is tried."""
    alive: list[weakref.ref[Tensor]] = []

    def predict(tiles: Tensor) -> Tensor:
        assert not any(each() is not None for each in alive)
        activations = tiles.clone()
        alive.append(weakref.ref(activations))
        if len(tiles) > 1:
            raise MemoryError
        return tiles

    Recovering(predict, (1, 1), (8, 8))(torch.zeros(4, 1, 16, 16))
    assert len(alive) > 4


@given(
    st.lists(st.integers(1, 30), min_size=2, max_size=3),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([8, 16, 18]),
)
def test_windows_shrink_to_the_smallest_and_stop(counts: list[int], step: int, least: int) -> None:
    """Each window is smaller than the one before, of whole strides, and never below the smallest."""
    stride, smallest = (step,) * len(counts), (least,) * len(counts)
    window: tuple[int, ...] | None = tuple(step * count for count in counts)
    while window:
        smaller = shrink_window(window, smallest, stride)
        if smaller is None:
            assert all(length < least + step for length in window)
        else:
            assert sum(smaller) < sum(window)
            assert all(length % step == 0 for length in smaller)
            assert all(new >= min(old, least) for new, old in zip(smaller, window, strict=True))
        window = smaller


_HEAD = """
    import resource
    import sys

    import torch

    from effvit_med.engine.recovery import Recovering, is_out_of_memory
    from effvit_med.networks import build_network, fold_batchnorm

    torch.manual_seed(0)
    torch.set_num_threads(1)

    _, most = resource.getrlimit(resource.RLIMIT_AS)

    def leave(mib):
        with open("/proc/self/statm") as status:
            mapped = int(status.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + mib * 2**20, most))

    def fails(predict, tiles):
        try:
            predict(tiles)
        except RuntimeError as error:
            return is_out_of_memory(error)
        return False
"""
_BATCH = """
    network = fold_batchnorm(build_network(3, 1, 4, decoder_stride=2).eval())

    @torch.inference_mode()
    def predict(tiles):
        return network.logits(tiles)

    tiles = torch.rand(96, 1, 48, 48, 48)
    expected = torch.cat([predict(tile[None]) for tile in tiles])
    leave(420)
    failed = fails(predict, tiles)
    recovering = Recovering(predict, network.output_stride, (32, 32, 32))
    scores = recovering(tiles)
"""
_WINDOWS = """
    def predict(tiles):
        return torch.nn.functional.avg_pool3d(tiles.repeat(1, 32, 1, 1, 1), 2)[:, :2].clone()

    tiles = torch.rand(1, 1, 160, 160, 160)
    expected = torch.nn.functional.avg_pool3d(tiles, 2).repeat(1, 2, 1, 1, 1)
    leave(300)
    failed = fails(predict, tiles)
    recovering = Recovering(predict, (2, 2, 2), (32, 32, 32))
    scores = recovering(tiles)
"""
_TAIL = """
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    same = torch.allclose(scores, expected, rtol=0, atol=1e-4)
    print(failed, same, recovering.findings[0].message)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process by RLIMIT_AS")
@pytest.mark.parametrize(
    ("body", "words"),
    [(_BATCH, "of 96 tiles went through at a time"), (_WINDOWS, "of 160 x 160 x 160 voxels went through in windows")],
    ids=["batch", "windows"],
)
def test_a_run_that_truly_runs_out_of_memory_finishes(body: str, words: str) -> None:
    """With too little memory torch fails in earnest, and the remedies give the scores that memory enough would give."""
    script = "".join(textwrap.dedent(part) for part in (_HEAD, body, _TAIL))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True True Memory ran out in the middle of the run:"), done.stdout
    assert words in done.stdout


def test_a_fallback_that_cannot_be_made_leaves_the_shortage_to_be_told() -> None:
    """A runtime that needs its device is no remedy; the user hears of memory, not of devices."""

    def never(tiles: Tensor) -> Tensor:
        raise MemoryError

    def make() -> Predict:
        raise SettingsError("The runtime tensorrt needs a CUDA device; the device is cpu.")

    with pytest.raises(RefusedError, match="NOT_ENOUGH_MEMORY"):
        Recovering(never, (1, 1), (8, 8), make)(torch.zeros(1, 1, 8, 8))


def test_what_fails_once_for_memory_is_done_again() -> None:
    """After what nobody needs was given back; the second failure is a refusal that says what was being done."""
    failures = iter([MemoryError(), None, MemoryError(), MemoryError()])

    def act() -> int:
        error = next(failures)
        if error:
            raise error
        return 7

    assert with_room(act, "counting") == 7
    with pytest.raises(RefusedError, match=r"NOT_ENOUGH_MEMORY.*while counting"):
        with_room(act, "counting")


def test_other_errors_are_not_tried_again() -> None:
    """An error that is none of memory comes through at once."""
    calls: list[int] = []

    def act() -> None:
        calls.append(1)
        raise RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")

    with pytest.raises(RuntimeError, match="must match"):
        with_room(act, "counting")
    assert calls == [1]
