"""INT8 after training, block by block: calibrated on a bundle's own tiles, judged by Dice, refused where it hurts."""

from effvit_med.engine.quantisation.cases import (
    ReferenceCase,
    dice_judge,
    quantise_model,
    sample_case,
)
from effvit_med.engine.quantisation.network import quantise_network
from effvit_med.engine.quantisation.options import Judge, Predict, Progress, QuantisationOptions
from effvit_med.engine.quantisation.report import BlockChoice, QuantisationReport, dice_loss
from effvit_med.engine.quantisation.tiles import calibration_tiles

__all__ = [
    "BlockChoice",
    "Judge",
    "Predict",
    "Progress",
    "QuantisationOptions",
    "QuantisationReport",
    "ReferenceCase",
    "calibration_tiles",
    "dice_judge",
    "dice_loss",
    "quantise_model",
    "quantise_network",
    "sample_case",
]
