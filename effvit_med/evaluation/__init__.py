"""How good segmentations are: each against its reference, a model against another, and what its confidence is worth."""

from effvit_med.evaluation.metrics import StructureScore, score_case
from effvit_med.evaluation.pairs import Pair, find_pairs, read_pair
from effvit_med.evaluation.statistics import Comparison, Interval, StructureSummary, compare, mean_interval, summarise

__all__ = [
    "Comparison",
    "Interval",
    "Pair",
    "StructureScore",
    "StructureSummary",
    "compare",
    "find_pairs",
    "mean_interval",
    "read_pair",
    "score_case",
    "summarise",
]
