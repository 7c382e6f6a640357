"""What a bundle knows of its training data, so that a result can be held against it: ``configs/quality.json``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effvit_med.engine.settings import describe
from effvit_med.errors import SettingsError

QUALITY_FILE = Path("configs") / "quality.json"
QUALITY_FORMAT = "effvit-med quality reference 1"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Part):
    """How a number is spread over cases."""

    cases: Annotated[int, Field(ge=1)]
    lowest: float
    low: Annotated[float, Field(description="5 % of the cases lie below")]
    median: float
    high: Annotated[float, Field(description="5 % of the cases lie above")]
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of some values, at least one.

        Examples:
            >>> Spread.of([3.0, 1.0, 2.0]).median
            2.0
        """
        lowest, low, median, high, highest = (float(f"{q:.6g}") for q in np.quantile(values, [0, 0.05, 0.5, 0.95, 1]))
        return cls(cases=len(values), lowest=lowest, low=low, median=median, high=high, highest=highest)


class StructureReference(_Part):
    """One structure in the training data."""

    present: Annotated[int, Field(description="training cases that show it")]
    touching: Annotated[int, Field(description="of these, those in which it touches the border of the scan")]
    volume_ml: Annotated[Spread | None, Field(description="where it lies whole in the scan; null if it never does")]
    volume_touching_ml: Annotated[Spread | None, Field(description="where it touches the border")]
    fragments: Annotated[int, Field(description="the most sizeable separate parts in one case", ge=1)] = 1
    share_outside_largest: Annotated[float, Field(description="the largest share of it outside its largest part")]
    hole_share: Annotated[float, Field(description="the largest cavity volume, as a share of its own volume")]
    confidence: Annotated[Spread | None, Field(description="mean confidence over the cases kept for it")] = None


class SideReference(_Part):
    """Two structures of which one lay on the patient's left of the other in every training case."""

    left: str
    right: str
    least_mm: Annotated[float, Field(description="the smallest distance of their centres towards the left")]
    cases: int


class IntensityReference(_Part):
    """How the values of the training scans are spread, as `measure_profile` gives them."""

    kind: Literal["window", "percentile"]
    low: float
    high: float
    mean: Annotated[tuple[float, ...], Field(description="of each number of the profile over the training cases")]
    sd: Annotated[tuple[float, ...], Field(description="its standard deviation over the training cases")]
    training_scores: Annotated[Spread, Field(description="scores of the training cases themselves")]
    unseen_scores: Annotated[Spread, Field(description="scores of cases that were not trained on")]


class QualityReference(_Part):
    """The content of ``configs/quality.json``."""

    format: Literal["effvit-med quality reference 1"] = "effvit-med quality reference 1"
    made_by: Annotated[str, Field(description="the command that made this file")]
    data: Annotated[str, Field(description="which cases it was made from")]
    training_cases: int
    confidence_cases: Annotated[int, Field(description="cases not trained on, from which the confidence comes")] = 0
    weights_sha256: Annotated[str, Field(description="of the weights whose confidence this is")] = ""
    intensity: IntensityReference | None = None
    structures: dict[str, StructureReference]
    sides: tuple[SideReference, ...] = ()


def read_reference(folder: Path) -> QualityReference | None:
    """What a bundle knows of its training data; None if it says nothing.

    Args:
        folder: the bundle's folder.

    Raises:
        SettingsError: if the file is there and cannot be read, or a value is missing, unknown or wrong.
    """
    path = folder / QUALITY_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}. Remove it or make it again.") from error
    try:
        return QualityReference.model_validate_json(text)
    except ValidationError as error:
        raise SettingsError(f"{path}: {describe(error)}") from error
