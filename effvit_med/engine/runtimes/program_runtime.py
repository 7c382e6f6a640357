"""An exported torch program: the operators of the network without its Python code, in float32."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from effvit_med.engine.runtimes.graph import Graph
from effvit_med.engine.runtimes.package import package_versions
from effvit_med.errors import SettingsError, WeightsError


class ProgramRuntime:
    """A program of ``torch.export``, loaded from its file.

    Args:
        graph: a ``.pt2`` file and how it is to be run. Such a file may run code when it is loaded: load only what you
            exported yourself or trust.

    Raises:
        SettingsError: if the precision is not float32.
        WeightsError: if the file is damaged.
    """

    name = "program"

    def __init__(self, graph: Graph) -> None:
        if graph.precision != "float32":
            raise SettingsError(f"A torch program computes in float32, not in {graph.precision}.")
        self.precision = graph.precision
        self._graph = graph
        try:
            program = torch.export.load(graph.path)
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            raise WeightsError(f"torch cannot read {graph.path}: {error}. Export it again.") from error
        self._module = program.module().to(graph.device)

    @torch.inference_mode()
    def predict(self, tiles: Float[Tensor, "batch channels *window"]) -> Float[Tensor, "batch classes *out"]:
        """The float32 logits of tiles, at the network's output stride, on the device of the graph.

        Raises:
            SettingsError: if the tiles are not of the size that the runtime was opened for.
        """
        self._graph.check_tiles(tiles)
        logits: Tensor = self._module(tiles.to(self._graph.device, torch.float32))
        return logits

    def describe(self) -> dict[str, str]:
        """Versions, device and arithmetic, for the record."""
        return {
            "runtime": self.name,
            "precision": self.precision,
            "device": str(self._graph.device),
            **package_versions("torch"),
        }
