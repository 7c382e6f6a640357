"""What keeps a run going where memory runs out in the middle of it.

The engine asks for the scores of tiles and gets them, so nothing that is finished has to be done again: what gives way
is how these scores are computed.
"""

from __future__ import annotations

import gc
import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from effvit_med.engine.tiling import Size, Tiling, blending_weight, place_windows
from effvit_med.errors import EffvitError, RefusedError
from effvit_med.volume import Finding

Predict = Callable[[Tensor], Tensor]
Answer = TypeVar("Answer")

MIB = 2**20

_WORDS = (
    "out of memory",  # CUDA, MPS, oneDNN
    "not enough memory",  # torch's allocator on Windows
    "DefaultCPUAllocator: can't allocate memory",  # and on Linux and macOS
    "std::bad_alloc",  # C++ below torch
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# oneDNN's whole message where it gets no memory for its code or scratch; what it does not support reads longer
_ONEDNN = ("could not create a primitive", "could not create a memory object", "could not execute a primitive")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the processor or on an accelerator.

    Args:
        error: any error.

    Examples:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
        True
        >>> is_out_of_memory(RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"))
        False
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return isinstance(error, RuntimeError) and (message in _ONEDNN or any(words in message for words in _WORDS))


@contextmanager
def refuse_shortage(doing: str) -> Iterator[None]:
    """A block in which running out of memory is said in words.

    Args:
        doing: what the block does, such as ``labelling``.

    Raises:
        RefusedError: ``NOT_ENOUGH_MEMORY``, if memory ran out in it.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise RefusedError(
            "NOT_ENOUGH_MEMORY",
            f"Memory ran out while {doing}.",
            "Close other programs, or set --memory-gb so that the plan leaves room for them.",
        ) from error


def with_room(action: Callable[[], Answer], doing: str) -> Answer:
    """Do something; where memory runs out, give back what nobody needs and do it once more.

    Args:
        action: what to do; doing it twice does no harm.
        doing: in words, for the error.

    Raises:
        RefusedError: ``NOT_ENOUGH_MEMORY``, if memory ran out again.

    Examples:
        >>> with_room(lambda: 7, "counting")
        7
    """
    try:
        return action()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
    gc.collect()
    _free_caches()
    with refuse_shortage(doing):
        return action()


def shrink_window(
    window: tuple[int, ...], smallest: tuple[int, ...], stride: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The next smaller window: its longest axis that is above the smallest is halved; None where none is.

    Args:
        window: sizes, multiples of the stride.
        smallest: what no axis may fall below.
        stride: the sizes stay multiples of it.

    Examples:
        >>> shrink_window((64, 96, 96), (32, 32, 32), (4, 4, 4))
        (64, 48, 96)
        >>> shrink_window((32, 32), (32, 32), (1, 1)) is None
        True
    """
    lowest = [math.ceil(least / step) * step for least, step in zip(smallest, stride, strict=True)]
    axes = [axis for axis, length in enumerate(window) if length > lowest[axis]]
    if not axes:
        return None
    longest = max(axes, key=lambda axis: window[axis])
    half = max(lowest[longest], window[longest] // 2 // stride[longest] * stride[longest])
    return (*window[:longest], half, *window[longest + 1 :])


class Recovering:
    """A network that goes on where memory runs out, by the first of these that helps, and remembers what helped.

    1. Memory that torch keeps for later is given back, and the same tiles are tried again.
    2. Fewer tiles at a time, halved down to one. The scores stay the same.
    3. Smaller overlapping windows within each tile, blended as the engine blends tiles; the longest axis is halved,
       down to the smallest window. The network then sees less around each voxel, so scores can differ.
    4. The fallback, with all tiles at once and whole at first.

    After 2 or 3 the scores lie where the tiles lie, which is usually the processor.

    Args:
        predict: from tiles (batch, channels, *window) to logits (batch, classes, *window / output_stride).
        output_stride: of the network, one number for each axis of its windows.
        smallest_window: what windows must not fall below, one number for each axis; the network's deepest stride.
        fallback: makes a network that needs memory elsewhere, such as on the processor; called at most once, and only
            when nothing else helps.

    Examples:
        >>> def predict(tiles):
        ...     if len(tiles) > 2:
        ...         raise MemoryError
        ...     return 2 * tiles
        >>> recovering = Recovering(predict, (1, 1), (8, 8))
        >>> recovering(torch.ones(4, 1, 16, 16)).unique().tolist()
        [2.0]
        >>> [finding.code for finding in recovering.findings]
        ['MEMORY_SHORT']
    """

    def __init__(
        self,
        predict: Predict,
        output_stride: tuple[int, ...],
        smallest_window: tuple[int, ...],
        fallback: Callable[[], Predict] | None = None,
    ) -> None:
        self._predict = predict
        self._stride = output_stride
        self._smallest = smallest_window
        self._fallback = fallback
        self._batch: int | None = None
        self._window: tuple[int, ...] | None = None
        self._in_force: dict[str, Finding] = {}
        self._findings: dict[str, Finding] = {}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Every kind of remedy that helped, once, with its last figures."""
        return tuple(self._findings.values())

    @property
    def changed_scores(self) -> bool:
        """Whether a remedy helped that can change scores."""
        return not {"windows", "fallback"}.isdisjoint(self._findings)

    @torch.no_grad()
    def __call__(self, tiles: Tensor) -> Tensor:
        """The logits of tiles.

        Args:
            tiles: (batch, channels, *window).

        Raises:
            RefusedError: ``NOT_ENOUGH_MEMORY``, if no remedy helps; the first error is its cause.
        """
        first: BaseException | None = None
        tried_caches = False
        while True:
            try:
                scores = self._score(tiles)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                first = first or error
                traceback.clear_frames(error.__traceback__)  # they hold maps that nobody needs any more
            else:
                self._findings.update(self._in_force)
                return scores
            freed = _free_caches()
            if freed and not tried_caches:
                tried_caches = True
                self._note("caches", f"{freed / MIB:.1f} MiB that torch kept were given back; scores are the same")
            elif not self._give_way(tiles):
                raise RefusedError(
                    "NOT_ENOUGH_MEMORY",
                    f"Memory ran out for a tile of {_times(tiles.shape[2:])} voxels, and no remedy helped.",
                    "Close other programs, or choose smaller windows or another device.",
                ) from first

    def _score(self, tiles: Tensor) -> Tensor:
        """The logits with the remedies that are in force."""
        count = self._batch or len(tiles)
        if self._window is None and count >= len(tiles):
            return self._predict(tiles)
        scores: Tensor | None = None
        for start in range(0, len(tiles), count):
            some = tiles[start : start + count]
            logits = self._predict(some) if self._window is None else self._blend(some, self._window)
            if scores is None:
                scores = torch.empty((len(tiles), *logits.shape[1:]), dtype=logits.dtype, device=tiles.device)
            scores[start : start + count] = logits
            del logits
        return self._predict(tiles) if scores is None else scores

    def _blend(self, tiles: Tensor, window: tuple[int, ...]) -> Tensor:
        """The logits of tiles from smaller windows: their weighted mean, each window's logits as soon as they come."""
        size = _three(tiles.shape[2:])
        part, stride = _three(window), _three(self._stride)
        starts = place_windows(size, Tiling(part), stride)
        nodes = tuple(length // step for length, step in zip(tiles.shape[2:], self._stride, strict=True))
        inner = tuple(length // step for length, step in zip(window, self._stride, strict=True))
        weight = blending_weight(_three(inner)).reshape(inner).to(tiles.device)
        weights = torch.zeros(nodes, device=tiles.device)
        mean: Tensor | None = None
        for each in starts:
            start = each[-len(window) :]
            cut = (slice(s, s + length) for s, length in zip(start, window, strict=True))
            logits = self._predict(tiles[(slice(None), slice(None), *cut)]).to(tiles.device, torch.float32)
            if mean is None:
                mean = torch.zeros((*logits.shape[:2], *nodes), device=tiles.device)
            begin = [s // step for s, step in zip(start, self._stride, strict=True)]
            place = tuple(slice(b, b + length) for b, length in zip(begin, inner, strict=True))
            weights[place] += weight
            seen = mean[(slice(None), slice(None), *place)]
            # the mean so far moves towards each new value, so that equal values stay as they are, bit for bit
            seen += (logits - seen) * (weight / weights[place])
        if mean is None:
            raise AssertionError("a tile has at least one window")
        return mean

    def _give_way(self, tiles: Tensor) -> bool:
        """Whether there is a remedy left; it is in force from now on."""
        count = min(self._batch or len(tiles), len(tiles))
        if count > 1:
            self._batch = count // 2
            self._note("batch", f"{self._batch} of {len(tiles)} tiles went through at a time; scores are the same")
            return True
        whole = tuple(tiles.shape[2:])
        smaller = shrink_window(self._window or whole, self._smallest, self._stride)
        if smaller and not any(length % step for length, step in zip(whole, self._stride, strict=True)):
            self._batch, self._window = 1, smaller
            words = f"tiles of {_times(whole)} voxels went through in windows of {_times(smaller)}"
            self._note("windows", f"{words}, so the network saw less around each voxel and labels can differ")
            return True
        return self._fall_back()

    def _fall_back(self) -> bool:
        make, self._fallback = self._fallback, None
        if make is None:
            return False
        try:
            self._predict = make()
        except EffvitError:  # the runtime cannot do without its device: the shortage is what the user is to hear of
            return False
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        self._batch = self._window = None
        self._in_force.clear()
        self._note("fallback", "the network went on with memory elsewhere, which is slower")
        return True

    def _note(self, kind: str, words: str) -> None:
        self._in_force[kind] = Finding("MEMORY_SHORT", f"Memory ran out in the middle of the run: {words}.")


def _free_caches() -> int:
    """Give back what torch keeps on accelerators for later; how many bytes that were."""
    freed = 0
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        before = sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))
        torch.cuda.empty_cache()
        freed += before - sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))
    if torch.backends.mps.is_available():
        before = torch.mps.driver_allocated_memory()
        torch.mps.empty_cache()
        freed += max(0, before - torch.mps.driver_allocated_memory())
    return freed


def _three(sizes: tuple[int, ...]) -> Size:
    padded = (1, *sizes)[-3:]
    return padded[0], padded[1], padded[2]


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in sizes)
