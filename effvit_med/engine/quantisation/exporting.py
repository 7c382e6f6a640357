"""INT8 as a part of an export: judged on the phantom that comes along, with its report beside the network."""

from __future__ import annotations

from pathlib import Path

from effvit_med.engine.contract import ExportFormat
from effvit_med.engine.export import Quantise
from effvit_med.engine.model import Model
from effvit_med.engine.quantisation.cases import quantise_model, sample_case
from effvit_med.engine.quantisation.options import Progress, QuantisationOptions
from effvit_med.errors import SettingsError
from effvit_med.io.atomic import write_json, write_text

_FILES = {"openvino": ("model.xml", "model.bin"), "onnx": ("model.onnx",)}


def quantiser(largest_dice_loss: float, progress: Progress | None = None) -> Quantise:
    """What `effvit_med.engine.export.ExportOptions` calls to make the INT8 network.

    Args:
        largest_dice_loss: how much Dice any structure of the sample case may lose.
        progress: called as progress(phase, done, total).

    Returns:
        A function that writes the network and its report, ``quantisation.json`` and ``quantisation.md``, and names the
        files.
    """

    def quantise(model: Model, backend: ExportFormat, folder: Path) -> tuple[str, ...]:
        if backend == "program":
            raise SettingsError("A torch program has no INT8; use the format openvino or onnx.")
        options = QuantisationOptions(backend=backend, largest_dice_loss=largest_dice_loss)
        report = quantise_model(model, [sample_case()], folder, options, progress)
        write_json(folder / "quantisation.json", report.to_dict())
        write_text(folder / "quantisation.md", report.to_markdown())
        return (*_FILES[backend], "quantisation.json", "quantisation.md")

    return quantise
