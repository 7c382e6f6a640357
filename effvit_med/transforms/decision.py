"""How the scores of a voxel become one number."""

from __future__ import annotations

from enum import IntEnum


class Decision(IntEnum):
    """How the scores of a voxel become one number, and how sure that is.

    Attributes:
        HIGHEST: the number of the highest score, the lowest of equal ones; the margin is its lead over the next.
        LAST: 1 + the number of the last score above 0, or 0 where none is; the margin is the smallest distance from 0
            of that score and of those after it, which could have changed it.
        EACH: the sum of 2 to the power of the number of every score above 0; the margin is the smallest distance from
            0 of any score.
    """

    HIGHEST = 0
    LAST = 1
    EACH = 2

    def outcomes(self, scores: int) -> int:
        """How many numbers can come of so many scores.

        Examples:
            >>> [decision.outcomes(3) for decision in Decision]
            [3, 4, 8]
        """
        return {Decision.HIGHEST: scores, Decision.LAST: scores + 1, Decision.EACH: 1 << scores}[self]
