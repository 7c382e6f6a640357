"""Every case of a data set looked at: what is wrong with it, what is odd, and what lies on both sides of a split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from effvit_med.errors import EffvitError, RefusedError
from effvit_med.planning.case_facts import CaseFacts, measure_case
from effvit_med.planning.training_set import TrainingCase, TrainingSet, make_table
from effvit_med.volume import Finding, LabelTable

MANY = 20
"""So many problems are listed one by one; more are counted."""

MOSTLY = 0.9
"""A structure that is marked in a smaller share of the cases is worth a question."""

OnCase = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Problem:
    """Why a case, or a pair of cases, cannot be trained on.

    Attributes:
        code: a short machine-readable word.
        case_id: of the case; of a pair, the second.
        message: what is wrong, with the file.
        remedy: what to do about it.
    """

    code: str
    case_id: str
    message: str
    remedy: str


@dataclass(frozen=True)
class Examination:
    """What a look at every case gave.

    Attributes:
        training_set: the cases without a problem, grouped so that copies of one image share a group.
        facts: what was measured of them, in the same order.
        problems: of the others.
        findings: what is odd.
    """

    training_set: TrainingSet
    facts: tuple[CaseFacts, ...]
    problems: tuple[Problem, ...]
    findings: tuple[Finding, ...]

    def require_sound(self) -> None:
        """Do nothing if no case has a problem.

        Raises:
            RefusedError: ``DAMAGED_DATA``, with every problem and its remedy.
        """
        if not self.problems:
            return
        rows = [f"  {p.code} {p.case_id}: {p.message} {p.remedy}" for p in self.problems[:MANY]]
        if len(self.problems) > MANY:
            rows.append(f"  and {len(self.problems) - MANY} more")
        cases = len({problem.case_id for problem in self.problems})
        total = cases + len(self.facts)
        text = "\n".join([f"{cases} of {total} cases cannot be trained on:", *rows])
        raise RefusedError("DAMAGED_DATA", text, "\nMend them, or leave them out with --leave-out-damaged.")

    def without_problems(self) -> Examination:
        """The same, with every problem turned into a finding: the cases are left out.

        Raises:
            RefusedError: ``DAMAGED_DATA`` if no case would be left.
        """
        if not self.facts:
            self.require_sound()
        told = tuple(Finding("LEFT_OUT", f"{p.case_id} is left out. {p.code}: {p.message}") for p in self.problems)
        return replace(self, problems=(), findings=(*self.findings, *told))


def examine(training_set: TrainingSet, on_case: OnCase | None = None) -> Examination:
    """Look at every case of a data set. A damaged case does not hide the next.

    Args:
        training_set: as `effvit_med.planning.layouts.find_training_set` gives it.
        on_case: called with name, number from 1, and number of cases before each.

    Raises:
        RefusedError: ``INSTANCES``, if label maps number single objects, whatever the other cases are like.
    """
    facts: list[CaseFacts] = []
    problems: list[Problem] = []
    known = _known_values(training_set)
    for number, case in enumerate(training_set.cases, start=1):
        if on_case:
            on_case(case.case_id, number, len(training_set.cases))
        try:
            facts.append(measure_case(case, known, training_set.ignore))
        except RefusedError as error:
            problems.append(Problem(error.code, case.case_id, error.message, error.remedy))
        except EffvitError as error:
            problems.append(Problem("UNREADABLE", case.case_id, str(error), "Replace the file, or leave it out."))
    _require_structures(problems)
    problems += _find_contradictions(facts)
    wrong = {problem.case_id for problem in problems}
    facts = [each for each in facts if each.case_id not in wrong]
    cases, copies = _join_copies([case for case in training_set.cases if case.case_id not in wrong], facts)
    sound = replace(training_set, cases=tuple(cases), table=training_set.table or _table_of(facts, training_set.ignore))
    problems += _find_leaks(sound)
    findings = [*training_set.findings, *copies, *_gather(facts), *_find_unmarked(sound, facts)]
    return Examination(sound, tuple(facts), tuple(problems), tuple(findings))


def _require_structures(problems: Iterable[Problem]) -> None:
    numbered = [problem for problem in problems if problem.code == "INSTANCES"]
    if numbered:
        more = f" So do {len(numbered) - 1} others." if len(numbered) > 1 else ""
        raise RefusedError("INSTANCES", numbered[0].message + more, numbered[0].remedy)


def _known_values(training_set: TrainingSet) -> frozenset[int] | None:
    if training_set.table is None:
        return None
    extra = set() if training_set.ignore is None else {training_set.ignore}
    return frozenset({0, *(label.value for label in training_set.table), *extra})


def _table_of(facts: Iterable[CaseFacts], ignore: int | None) -> LabelTable | None:
    values = {value for each in facts for value in each.counts if value not in (0, ignore)}
    return make_table({value: f"label {value}" for value in values})


def _find_contradictions(facts: Iterable[CaseFacts]) -> list[Problem]:
    """The same image with other labels: nobody can learn both."""
    problems = []
    for alike in _same_images(facts):
        for other in alike[1:]:
            if other.label_digest != alike[0].label_digest:
                text = f"has the same image as {alike[0].case_id}, but other labels."
                remedy = "Keep the labels of one reader, or merge them."
                problems.append(Problem("CONTRADICTING_LABELS", other.case_id, text, remedy))
    return problems


def _same_images(facts: Iterable[CaseFacts]) -> list[list[CaseFacts]]:
    by_digest: defaultdict[str, list[CaseFacts]] = defaultdict(list)
    for each in facts:
        by_digest[each.image_digest].append(each)
    return [alike for alike in by_digest.values() if len(alike) > 1]


def _join_copies(cases: list[TrainingCase], facts: list[CaseFacts]) -> tuple[list[TrainingCase], list[Finding]]:
    """Cases of one image share a group, so that no split tears them apart."""
    groups = {case.case_id: case.group for case in cases}
    leader = {case.group: case.group for case in cases}

    def find(group: str) -> str:
        while leader[group] != group:
            group = leader[group]
        return group

    findings = []
    for alike in _same_images(facts):
        names = [each.case_id for each in alike]
        first = find(groups[names[0]])
        for name in names[1:]:
            leader[find(groups[name])] = first
        text = f"{', '.join(names)} hold the same image; they stay on one side of every split. Remove the copies."
        findings.append(Finding("COPIES", text))
    return [replace(case, group=find(case.group)) for case in cases], findings


def _find_leaks(training_set: TrainingSet) -> list[Problem]:
    """Groups on both sides of the split that the data set brings along."""
    held = training_set.given_split
    learnt_groups = {case.group: case.case_id for case in training_set.cases if case.case_id not in held}
    problems = []
    for case in training_set.cases:
        if case.case_id in held and case.group in learnt_groups:
            text = f"is for validation, but shares an image or a group with {learnt_groups[case.group]} for training."
            problems.append(Problem("LEAKAGE", case.case_id, text, "Move one of them to the other's side."))
    return problems


def _gather(facts: Iterable[CaseFacts]) -> list[Finding]:
    """Findings of cases, one of a kind with the number of cases."""
    by_code: defaultdict[str, list[tuple[str, Finding]]] = defaultdict(list)
    for each in facts:
        for finding in each.findings:
            by_code[finding.code].append((each.case_id, finding))
    gathered = []
    for code, found in by_code.items():
        more = f" ({len(found)} cases in all)" if len(found) > 1 else ""
        gathered.append(Finding(code, f"{found[0][1].message}{more}"))
    return gathered


def _find_unmarked(training_set: TrainingSet, facts: Iterable[CaseFacts]) -> list[Finding]:
    """Structures that no case marks, or only some of the cases in which they were looked for."""
    looked_for = {case.case_id: case.annotated for case in training_set.cases}
    findings = []
    for label in training_set.table or ():
        asked = [f for f in facts if looked_for[f.case_id] is None or label.name in (looked_for[f.case_id] or ())]
        marked = [each for each in asked if label.value in each.counts]
        if not marked:
            text = f"No case marks {label.name}: it cannot be learnt, and stays unfound."
            findings.append(Finding("NEVER_MARKED", text))
        elif len(marked) < MOSTLY * len(asked):
            example = next(each.case_id for each in asked if label.value not in each.counts)
            text = (
                f"{label.name} is marked in {len(marked)} of {len(asked)} cases, not in {example}. Where it is there "
                "but was not drawn, the network learns that it is background: list in dataset.json what was drawn "
                '("annotated").'
            )
            findings.append(Finding("SELDOM_MARKED", text))
    return findings
