"""A training run of the comparison: what it is of, and the folder in which it is kept from call to call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.versus_models import NNUNET, build_adapter, find_contender
from benchmarks.versus_recipe import RECIPE
from benchmarks.versus_sets import SETS, Case, LabelledSet, Split, describe_split, list_cases, split_cases
from effvit_med.io.atomic import write_json

RUNS = Path(__file__).parent / "runs"
NNUNET_VERSION = "2.8.1"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        set_name: a name of `benchmarks.versus_sets.SETS`.
        model: a name of `benchmarks.versus_models.CONTENDERS`, or nnU-Net.
        minutes: the budget; to convergence, the most it may take.
        converge: whether it ends when the watched Dice gains no more.
        seed: of weights and crops.
        fold: which part is tested.
        few: only so many cases of each part, to try the way; None for all.
        device: ``cpu`` or ``cuda``; on the processor minutes are those of one thread, on a GPU of the clock.
    """

    set_name: str
    model: str
    minutes: float
    converge: bool = False
    seed: int = 0
    fold: int = 0
    few: int | None = None
    device: str = "cpu"

    @property
    def labelled(self) -> LabelledSet:
        """The set."""
        return SETS[self.set_name]

    @property
    def budget(self) -> str:
        """In words, for tables and folders.

        Examples:
            >>> Run("hippocampus", "UNet 8", 10).budget, Run("hippocampus", "UNet 8", 90, converge=True).budget
            ('10 min', 'convergence within 90 min')
        """
        minutes = f"convergence within {self.minutes:g} min" if self.converge else f"{self.minutes:g} min"
        return minutes if self.device == "cpu" else f"{minutes} of {self.device}"

    def split(self, data: Path) -> Split:
        """Its cases.

        Args:
            data: the folder with ``seg2d`` and ``seg3d``.
        """
        return split_cases(self.labelled, list_cases(self.labelled, data), self.fold, self.few)

    def key(self, split: Split, network: str) -> str:
        """The name of its folder: of another split, recipe or network it is another.

        Args:
            split: its cases.
            network: a digest of what is trained.
        """
        said = [RECIPE, describe_split(split)["digest"], repr(self.labelled), network]
        digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:8]
        few = f"_few{self.few}" if self.few else ""
        return f"{self.budget.replace(' ', '')}_seed{self.seed}_fold{self.fold}{few}_{digest}"


def describe_network(run: Run) -> str:
    """A digest of a network's layers and of its learning rate, so that a changed one is trained anew."""
    if run.model == NNUNET:
        return NNUNET_VERSION
    contender = find_contender(run.model)
    network = build_adapter(contender, run.labelled)
    return hashlib.sha256(f"{network} {contender.learning_rate}".encode()).hexdigest()[:8]


@dataclass
class RunFolder:
    """What a run left so far.

    Attributes:
        run: which.
        network: digest of what is trained.
        data: the folder with the sets.
        runs: folder of all runs.
    """

    run: Run
    network: str
    data: Path
    runs: Path

    @property
    def split(self) -> Split:
        """The cases of the run."""
        return self.run.split(self.data)

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self.model_path / self.run.key(self.split, self.network)

    @property
    def model_path(self) -> Path:
        """The folder of all runs of a model on a set."""
        return self.runs / self.run.set_name / self.run.model.replace(" ", "_")

    @property
    def cache(self) -> Path:
        """Where prepared cases are kept, for all models."""
        return self.runs / "prepared"

    @property
    def time_path(self) -> Path:
        """The file with the times of inference; they do not depend on the budget."""
        few = f"_few{self.run.few}" if self.run.few else ""
        return self.model_path / f"time_{self.network}{few}.json"

    def read(self, name: str) -> dict[str, Any] | None:
        """A file of plain values of the run, or None if it is not there."""
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep plain values; the file appears whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / name, dict(values))

    def request(self) -> dict[str, Any]:
        """As plain values, for a process of its own."""
        return {"run": asdict(self.run), "network": self.network, "data": str(self.data), "runs": str(self.runs)}


def read_request(request: Mapping[str, Any]) -> RunFolder:
    """The inverse of `RunFolder.request`."""
    return RunFolder(Run(**request["run"]), request["network"], Path(request["data"]), Path(request["runs"]))


def groups_of(cases: tuple[Case, ...]) -> dict[str, str]:
    """The group of each case by its name."""
    return {case.name: case.group for case in cases}
