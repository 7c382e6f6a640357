"""A segmentation network as an ONNX file, the form in which other runtimes take it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

import effvit_med
from effvit_med.engine.runtimes.cache import cache_folder
from effvit_med.engine.runtimes.package import load_package, package_versions, without_notes_on_torchvision
from effvit_med.engine.runtimes.request import RuntimeRequest
from effvit_med.errors import SettingsError
from effvit_med.io.atomic import atomic_path
from effvit_med.networks import SegmentationNetwork
from effvit_med.networks.export import export_onnx


class LogitsOf(nn.Module):
    """A network whose call gives the logits at the output stride, not at the image's full size.

    Args:
        network: any segmentation network.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__()
        self.network = network
        self.spatial_dims = network.spatial_dims
        self.in_channels = network.in_channels

    def forward(self, x: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch classes *less_space"]:
        """The logits at the network's output stride."""
        return self.network.logits(x)


@dataclass(frozen=True)
class Graph:
    """A file with a network and how it is to be run.

    Attributes:
        path: the file.
        device: where tiles are computed.
        precision: ``float32``, ``bfloat16``, ``float16``, or ``int8`` for a file whose network was quantised.
        in_channels: channels of a tile.
        classes: channels of the logits.
        stride: voxels of a tile per voxel of the logits, one per spatial axis.
        window: spatial size of a tile.
        batch_size: most tiles in one call.
        threads: processor threads.
    """

    path: Path
    device: torch.device
    precision: str
    in_channels: int
    classes: int
    stride: tuple[int, ...]
    window: tuple[int, ...]
    batch_size: int
    threads: int

    def in_shape(self, batch: int) -> tuple[int, ...]:
        """The shape of so many tiles."""
        return (batch, self.in_channels, *self.window)

    def out_shape(self, batch: int) -> tuple[int, ...]:
        """The shape of the logits of so many tiles."""
        return (batch, self.classes, *(-(-size // step) for size, step in zip(self.window, self.stride, strict=True)))

    def check_tiles(self, tiles: Tensor) -> None:
        """Nothing, if the tiles have the channels and the window that the runtime was opened for.

        Raises:
            SettingsError: if they have not, or there is none.
        """
        if len(tiles) == 0 or tuple(tiles.shape[1:]) != self.in_shape(1)[1:]:
            raise SettingsError(
                f"The tiles have the shape {tuple(tiles.shape)}; this runtime was opened for {self.in_shape(1)} and "
                "any number of them from 1 on."
            )


def write_graph(network: SegmentationNetwork, path: Path) -> None:
    """Write the logits of a network as an ONNX file with free batch and free sizes.

    Args:
        network: the network; it is not changed.
        path: the file to write; it appears whole or not at all.

    Raises:
        SettingsError: if the packages for ONNX are missing, or the network has no counterpart there.
        OutputError: if the file cannot be written.
    """
    example = torch.zeros(1, network.in_channels, *(64,) * network.spatial_dims)
    with without_notes_on_torchvision(), atomic_path(path) as temporary:
        export_onnx(LogitsOf(network).eval(), temporary, example)
        _remove_traces(temporary)


def _remove_traces(path: Path) -> None:
    """Take out of an ONNX file which line of which Python file an operator came from: it names folders of a machine."""
    onnx = load_package("onnx", "onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.save(model, path)


def cached_graph(request: RuntimeRequest) -> Graph:
    """The network of a request as an ONNX file in the cache folder, written if it is not there.

    Args:
        request: the network and how it is to be run.

    Raises:
        SettingsError: if the packages for ONNX are missing, or the network has no counterpart there.
        OutputError: if the file cannot be written.
    """
    path = cache_folder("graphs") / f"{cache_name(request)}.onnx"
    if not path.is_file():
        write_graph(request.network, path)
    return Graph(
        path=path,
        device=request.device,
        precision=request.precision,
        in_channels=request.network.in_channels,
        classes=request.network.out_channels,
        stride=request.network.output_stride,
        window=request.window,
        batch_size=request.batch_size,
        threads=torch.get_num_threads(),
    )


def cache_name(request: RuntimeRequest, *more: str) -> str:
    """The name under which something made from a network is kept: another for other weights or another version.

    Args:
        request: whose network and weights count.
        more: what else decides the content.
    """
    versions = package_versions("torch", "onnx", "onnxscript")
    identity = [request.key, effvit_med.__version__, versions, *more]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:40]
