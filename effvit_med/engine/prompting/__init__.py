"""Promptable segmentation: points, scribbles, boxes and lassos in, structures out; start at `PromptSession`."""

from effvit_med.engine.prompting.answering import Answerer, FeatureCache
from effvit_med.engine.prompting.carrying import StopRule, carry
from effvit_med.engine.prompting.log import Event, read_log, write_log
from effvit_med.engine.prompting.model import PromptModel, read_prompt_model
from effvit_med.engine.prompting.session import PromptSession
from effvit_med.engine.prompting.speaking import MapSpeaker, SamSpeaker, Speaker
from effvit_med.engine.prompting.steps import StructureState

__all__ = [
    "Answerer",
    "Event",
    "FeatureCache",
    "MapSpeaker",
    "PromptModel",
    "PromptSession",
    "SamSpeaker",
    "Speaker",
    "StopRule",
    "StructureState",
    "carry",
    "read_log",
    "read_prompt_model",
    "write_log",
]
