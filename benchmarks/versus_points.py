"""From finished runs to points of the tables: a network on a set within a budget, over its seeds and folds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.versus_models import NNUNET, NNUNET_USUAL, find_contender
from benchmarks.versus_prediction import read_scores
from benchmarks.versus_runs import RunFolder, groups_of
from benchmarks.versus_timing import best_runtime
from effvit_med.evaluation import Comparison, Interval, StructureScore, compare, mean_interval

Scores = Mapping[str, Sequence[StructureScore]]

MIRRORED = f"{NNUNET}, mirrored"


@dataclass(frozen=True)
class Point:
    """One network on one set within one budget.

    Attributes:
        set_name: of the set.
        budget: such as ``10 min``.
        model: as in the tables.
        family: its curve.
        scores: by group of cases (patient), each the mean over its cases and over seeds.
        cases: how many images were scored.
        seed_means: mean Dice of each seed.
        results: of the runs, as they were kept.
        times: a row for each runtime; empty if it was not timed.
    """

    set_name: str
    budget: str
    model: str
    family: str
    scores: Scores
    cases: int
    seed_means: tuple[float, ...]
    results: tuple[Mapping[str, Any], ...]
    times: Mapping[str, Mapping[str, Any]]

    @property
    def is_ours(self) -> bool:
        """Whether it is one of our networks."""
        return self.family == "ours"

    @property
    def usual(self) -> str:
        """How long its authors train."""
        return NNUNET_USUAL if self.family == NNUNET else find_contender(self.model).usual

    @property
    def runtime(self) -> str | None:
        """The fastest runtime that labels rightly."""
        return best_runtime(self.times)

    @property
    def cpu_s(self) -> float | None:
        """CPU seconds of a case on one thread in that runtime."""
        return self.times[self.runtime]["cpu_s"] if self.runtime else None

    def metric(self, name: str, structure: str | None = None) -> Interval:
        """A metric over groups, of one structure or of the mean over structures.

        Args:
            name: ``dice`` or ``nsd``.
            structure: its name; None for the mean.
        """
        found = []
        for rows in self.scores.values():
            values = [v for r in rows if structure in (None, r.structure) and (v := getattr(r, name)) is not None]
            found += [statistics.fmean(values)] if values else []
        return mean_interval(found)

    def mean_of(self, name: str) -> float:
        """The mean over runs of a number that they kept."""
        return statistics.fmean(float(result[name]) for result in self.results)


def gather_points(folders: Sequence[RunFolder], times: Mapping[str, Mapping[str, Any]]) -> list[Point]:
    """The points of finished runs, nnU-Net's with mirroring as a second one.

    Args:
        folders: of runs with a result.
        times: rows of runtimes by the path of `RunFolder.time_path`.
    """
    together: dict[tuple[str, str, str], list[RunFolder]] = {}
    for folder in folders:
        together.setdefault((folder.run.set_name, folder.run.budget, folder.run.model), []).append(folder)
    points = []
    for (set_name, budget, model), mine in together.items():
        rows = times.get(str(mine[0].time_path), {})
        for kept in ("scores", "scores_mirrored"):
            results = [result for each in mine if (result := each.read("result.json")) and kept in result]
            if not results:
                continue
            mirrored = kept == "scores_mirrored"
            chosen = rows
            if model == NNUNET:
                # its network alone in another runtime counts as its own: it is the network that is compared
                chosen = {name: row for name, row in rows.items() if name.endswith(", mirrored") == mirrored}
            seeds = sorted({each.run.seed for each in mine})
            of_seed = [
                {
                    name: rows_of
                    for each, result in zip(mine, results, strict=True)
                    if each.run.seed == seed
                    for name, rows_of in read_scores(result[kept]).items()
                }
                for seed in seeds
            ]
            groups = {k: v for each in mine for k, v in groups_of(each.split.test).items()}
            points.append(
                Point(
                    set_name,
                    budget,
                    MIRRORED if mirrored else model,
                    NNUNET if model == NNUNET else find_contender(model).family,
                    average(of_seed, groups),
                    len({name for each in of_seed for name in each}),
                    tuple(mean_dice(each) for each in of_seed),
                    tuple(results),
                    chosen,
                )
            )
    return points


def average(of_seed: Sequence[Scores], groups: Mapping[str, str]) -> dict[str, tuple[StructureScore, ...]]:
    """Scores by group: Dice and surface Dice are means over the group's cases and over seeds.

    Args:
        of_seed: scores by case of each seed.
        groups: the group of each case; two eyes of a child are no two children.
    """
    together: dict[str, dict[str, list[StructureScore]]] = {}
    for scores in of_seed:
        for case, rows in scores.items():
            for row in rows:
                together.setdefault(groups[case], {}).setdefault(row.structure, []).append(row)
    return {
        group: tuple(
            replace(rows[0], dice=_mean([r.dice for r in rows]), nsd=_mean([r.nsd for r in rows]))
            for rows in structures.values()
        )
        for group, structures in together.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def mean_dice(scores: Scores) -> float:
    """Over structures, then over cases."""
    per_case = [[row.dice for row in rows if row.dice is not None] for rows in scores.values()]
    return statistics.fmean(statistics.fmean(values) for values in per_case if values)


def compare_points(first: Point, second: Point) -> Comparison:
    """Mean Dice of the second minus that of the first, paired over the groups that both have."""
    return compare(first.scores, second.scores)[-1]


def rival_of(point: Point, ours: Sequence[Point]) -> Point | None:
    """Which of ours a point is to be measured by: the best that is no slower, else our fastest; None if none is timed.

    Args:
        point: any; if it is ours, itself is left out.
        ours: our points on the same set within the same budget.
    """
    timed = [each for each in ours if each.cpu_s is not None and each is not point]
    if not timed or point.cpu_s is None:
        return None
    quick = [each for each in timed if (each.cpu_s or 0.0) <= point.cpu_s]
    if quick:
        return max(quick, key=lambda each: each.metric("dice").mean)
    return min(timed, key=lambda each: each.cpu_s or 0.0)


def find_dominating(points: Sequence[Point]) -> list[tuple[Point, Point, Comparison]]:
    """Pairs of a peer and one of ours that it leaves behind: faster, and better beyond the interval.

    Args:
        points: of one set and one budget.
    """
    ours = [each for each in points if each.is_ours and each.cpu_s is not None]
    found = []
    for peer in points:
        if peer.is_ours or peer.cpu_s is None:
            continue
        for each in ours:
            if peer.cpu_s < (each.cpu_s or 0.0):
                comparison = compare_points(each, peer)
                found += [(peer, each, comparison)] if comparison.low > 0 else []
    return found


def find_even(points: Sequence[Point]) -> list[tuple[Point, Point, Comparison]]:
    """Pairs of a peer and one of ours where the peer is faster and neither is better beyond the interval.

    Args:
        points: of one set and one budget.
    """
    ours = [each for each in points if each.is_ours and each.cpu_s is not None]
    found = []
    for peer in points:
        for each in ours:
            if not peer.is_ours and peer.cpu_s is not None and peer.cpu_s < (each.cpu_s or 0.0):
                comparison = compare_points(each, peer)
                found += [(peer, each, comparison)] if comparison.low <= 0 <= comparison.high else []
    return found
