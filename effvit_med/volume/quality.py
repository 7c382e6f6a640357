"""The verdict on a segmentation: may it be used as it is, should a person look, or has it failed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from effvit_med.volume.volume import Finding

Verdict = Literal["pass", "review", "fail"]

_WORST_FIRST: tuple[Verdict, ...] = ("fail", "review", "pass")


@dataclass(frozen=True)
class StructureQuality:
    """The verdict on one structure.

    Attributes:
        structure: its name in the label table.
        verdict: ``pass``, ``review`` or ``fail``; None where nothing could be judged, such as a structure that was
            not found.
        reasons: what speaks against it, each with a code; where there is no verdict, why.
    """

    structure: str
    verdict: Verdict | None
    reasons: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class CaseQuality:
    """The verdict on a case: the worst of its structures and of what was found about the scan as a whole.

    Attributes:
        verdict: ``pass``, ``review`` or ``fail``; None where nothing could be judged.
        reasons: what was found about the scan as a whole; where there is no verdict, why.
        structures: one verdict per structure of the label table, in its order.
        out_of_distribution: how unlike the training data the intensities are, from 0 (alike) up; None if not measured.
        out_of_distribution_reason: why it was not measured; empty where it was.
    """

    verdict: Verdict | None
    reasons: tuple[Finding, ...] = ()
    structures: tuple[StructureQuality, ...] = ()
    out_of_distribution: float | None = None
    out_of_distribution_reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain values for JSON."""
        return dataclasses.asdict(self)


def worst_verdict(*verdicts: Verdict | None) -> Verdict | None:
    """The worst of several verdicts; None if none of them says anything.

    Examples:
        >>> worst_verdict("pass", None, "review"), worst_verdict(None)
        ('review', None)
    """
    return next((verdict for verdict in _WORST_FIRST if verdict in verdicts), None)
