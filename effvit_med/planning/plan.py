"""The plan of a training: everything that was found and decided about a data set, in one value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from effvit_med.errors import InputError
from effvit_med.planning.checks import Examination
from effvit_med.planning.choice import Choice, Chooser
from effvit_med.planning.colours import choose_colours
from effvit_med.planning.fingerprint import Fingerprint, choose_orientation, take_fingerprint
from effvit_med.planning.grid_choices import choose_grid, choose_modality
from effvit_med.planning.network_choices import FEWEST_PATCHES, Budget, NetworkPlan, choose_network
from effvit_med.planning.splitting import Split, split_cases
from effvit_med.planning.training_choices import TrainingPlan, choose_training
from effvit_med.planning.training_set import TrainingSet
from effvit_med.volume import Finding, LabelTable


@dataclass(frozen=True)
class SplitOptions:
    """How the cases are divided; see `effvit_med.planning.splitting.split_cases`.

    Attributes:
        folds: how many; None for five, or as many as there are groups.
        test: cases to hold out, a number or a share.
        seed: decides which.
    """

    folds: int | None = None
    test: float = 0
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """What was found and decided.

    Attributes:
        training_set: the cases.
        fingerprint: what they are like.
        split: which learn, validate and test.
        choices: every decision with its reason.
        network: the network and its patches.
        training: the schedule.
        budget: what training may take.
        findings: what is odd about the data, and what a person should check.
        seed: of the split.
    """

    training_set: TrainingSet
    fingerprint: Fingerprint
    split: Split
    choices: tuple[Choice, ...]
    network: NetworkPlan
    training: TrainingPlan
    budget: Budget
    findings: tuple[Finding, ...] = ()
    seed: int = 0
    values: Mapping[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", {choice.name: choice.value for choice in self.choices})

    @property
    def table(self) -> LabelTable:
        """The structures that are learnt."""
        return self.training_set.table or LabelTable(())


def make_plan(
    examination: Examination,
    budget: Budget,
    split: SplitOptions | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """Decide everything about a training.

    Args:
        examination: of the data set, without problems.
        budget: what training may take.
        split: how the cases are divided.
        overrides: what a person decides, as `effvit_med.planning.choice.read_overrides` gives it.

    Raises:
        InputError: if the label maps mark nothing at all.
        RefusedError: if a case has a problem.
        SettingsError: if what a person decided is impossible, or memory or cases are too few.
    """
    examination.require_sound()
    split = split or SplitOptions()
    training_set, facts = examination.training_set, examination.facts
    if training_set.table is None or not any(row.value in each.counts for each in facts for row in training_set.table):
        raise InputError("No label map marks anything, so there is nothing to learn.")
    divided = split_cases(training_set, split.folds, split.test, split.seed)
    chooser = Chooser(overrides or {})
    photographs = all(each.is_photograph for each in facts)
    lowest = min(each.lowest for each in facts)
    modality = choose_modality(chooser, training_set.modality, lowest, photographs)
    orientation = chooser.choose("orientation", *choose_orientation(facts))
    fingerprint = take_fingerprint(training_set, facts, orientation, modality)
    grid = choose_grid(chooser, fingerprint)
    if photographs:
        choose_colours(chooser, training_set.cases, training_set.ignore)
    classes = len(training_set.head.names(training_set.table))
    network = choose_network(chooser, grid, fingerprint, classes, budget)
    training = choose_training(chooser, grid, fingerprint, training_set.table, network, budget)
    while training.is_hasty and network.batch_size > FEWEST_PATCHES and not chooser.is_set("batch_size"):
        budget = replace(budget, most_patches=max(FEWEST_PATCHES, network.batch_size // 2))
        network = choose_network(chooser, grid, fingerprint, classes, budget)
        training = choose_training(chooser, grid, fingerprint, training_set.table, network, budget)
    return Plan(
        training_set=training_set,
        fingerprint=fingerprint,
        split=divided,
        choices=chooser.choices,
        network=network,
        training=training,
        budget=replace(budget, most_patches=None),
        findings=(*examination.findings, *_note_split(training_set, divided)),
        seed=split.seed,
    )


def _note_split(training_set: TrainingSet, split: Split) -> Iterable[Finding]:
    if len({case.group for case in training_set.cases}) == len(training_set.cases) and not split.given:
        text = (
            "Every case counts as a patient of its own. If some belong together, say so with --group, "
            "or what is measured on one tells nothing new about the other."
        )
        yield Finding("NO_GROUPS", text)
