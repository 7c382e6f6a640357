"""What is asked of a runtime, and what every runtime can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.errors import SettingsError
from effvit_med.networks import SegmentationNetwork
from effvit_med.transforms.decision import Decision

RuntimeName = Literal["eager", "compile", "onnx", "openvino", "tensorrt"]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The arithmetic a runtime may be asked for."""


@dataclass(frozen=True, eq=False)
class RuntimeRequest:
    """A network and how it is to be run.

    Attributes:
        network: in eval mode, its batch normalisations folded, on the CPU; a runtime on another device takes a copy.
        device: where tiles are computed.
        precision: ``float32``, ``bfloat16`` or ``float16``.
        window: spatial size of a tile as the network gets it: 3 numbers for a 3D network, 2 for a 2D one.
        batch_size: most tiles in one call; slices for a 2D network.
        key: identifies weights and network (a SHA-256), for what is kept from run to run.
        decision: how the logits at a voxel become a label, to compare runtimes by.

    Raises:
        SettingsError: if the precision is unknown, the window has not the network's axes, or a size is below 1.
    """

    network: SegmentationNetwork
    device: torch.device
    precision: str
    window: tuple[int, ...]
    batch_size: int
    key: str
    decision: Decision = Decision.HIGHEST

    def decide(self, logits: Float[Tensor, "batch classes *out"]) -> Tensor:
        """What the logits say, of a kind that can be compared: the highest class, or which are above 0."""
        return logits.argmax(dim=1) if self.decision == Decision.HIGHEST else logits > 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise SettingsError(f"The precision is {self.precision!r}; use {', '.join(PRECISIONS)}.")
        dims = self.network.spatial_dims
        if len(self.window) != dims or min(self.window) < 1:
            raise SettingsError(f"The window is {self.window}; this network takes {dims} sizes of at least 1.")
        if self.batch_size < 1:
            raise SettingsError(f"The batch size is {self.batch_size}; it must be at least 1.")


class Runtime(Protocol):
    """Something that runs one network on tiles of one size.

    Attributes:
        name: of the runtime.
        precision: of its arithmetic.
    """

    name: str
    precision: str

    def predict(self, tiles: Float[Tensor, "batch channels *window"]) -> Float[Tensor, "batch classes *out"]:
        """The float32 logits of tiles, at the network's output stride, on the device of the request."""
        ...

    def describe(self) -> dict[str, str]:
        """Versions, device and arithmetic, for the record."""
        ...


def split_batch(tiles: Float[Tensor, "batch channels *window"], size: int) -> Iterator[tuple[slice, Tensor]]:
    """Tiles in parts of two sizes only, for runtimes that prepare for each size: whole batches, then single tiles.

    Args:
        tiles: any number of tiles.
        size: of a whole batch.

    Yields:
        The place of each part in the batch, and its tiles.

    Examples:
        >>> [(place.start, len(part)) for place, part in split_batch(torch.zeros(6, 1, 2, 2), 4)]
        [(0, 4), (4, 1), (5, 1)]
    """
    start = 0
    while start < len(tiles):
        count = size if len(tiles) - start >= size else 1
        yield slice(start, start + count), tiles[start : start + count]
        start += count
