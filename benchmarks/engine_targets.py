"""What the answers of the engine's benchmark say, and which targets hold."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Mapping[str, Mapping[str, Any]]

NETWORK = "network"
ALL = "all"
CANDIDATES = {"ours": "effvit-med", "monai": "MONAI", "nnunet": "nnU-Net"}

OUTSIDE_S = {14: 3.0, 105: 6.0}
"""CPU seconds that everything outside the network may take, by classes."""

PEAK_MIB = 1024.0
SPREAD = 0.10
TIMES_LESS = {14: 5.0, 105: 20.0}
"""How many times less of that time ours is to take than the others, by classes."""

AGREEMENT = 0.999
DICE_LOSS = 0.005
FASTER = 3.0

VERDICT = {True: "holds", False: "MISSED"}


def label_mib(slices: int, shape: Sequence[int]) -> float:
    """MiB of the labels of a scan, one byte a voxel.

    Args:
        slices: of the scan.
        shape: for rows and columns.
    """
    return slices * shape[1] * shape[2] / 2**20


def list_targets(found: Mapping[str, Rows]) -> list[list[str]]:
    """Each target, what was measured and whether it holds; none where its table was not measured.

    Args:
        found: the answers by table and row.
    """
    good = {
        name: {row: values for row, values in rows.items() if "failed" not in values} for name, rows in found.items()
    }
    lines: list[tuple[str, str, bool]] = []
    for name, answers in group_repeats(good.get("path", {})).items():
        if "structured" not in name or "stride4 one" not in name:
            continue
        classes = classes_of(name)
        peak = max(case["peak_mib"] for repeat in answers for case in repeat["cases"][:2])
        lines.append((f"peak at most 1 GiB, {classes} classes", f"{peak:.0f} MiB", peak <= PEAK_MIB))
        if classes in OUTSIDE_S:
            for number, kind in enumerate(("cold", "warm")):
                value, limit = outside_of(answers, number), OUTSIDE_S[classes]
                text = f"outside the network at most {limit:g} CPU s, {classes} classes, {kind}"
                lines.append((text, f"{value:.2f} s", value <= limit))
    lines += _length_targets(good.get("length", {}))
    peers = good.get("peers", {})
    for name, answer in peers.items():
        count, _, candidate = name.partition(" ")
        if candidate != "ours" and f"{count} ours" in peers:
            ratio = outside_of_peer(answer) / outside_of_peer(peers[f"{count} ours"])
            wanted = TIMES_LESS[int(count)]
            text = f"at least {wanted:g} times less outside the network than {CANDIDATES[candidate]}, {count} classes"
            lines.append((text, f"{ratio:.1f}", ratio >= wanted))
    lines += _runtime_targets(good.get("runtimes", {}))
    return [[text, value, VERDICT[holds]] for text, value, holds in lines]


def _length_targets(rows: Rows) -> list[tuple[str, str, bool]]:
    if len(rows) < 2:
        return []
    shape = (0, 512, 512)
    left = [answer["cases"][0]["peak_mib"] - label_mib(int(name), shape) for name, answer in rows.items()]
    spread = max(left) / min(left) - 1
    text = f"peak less the label volume within 10 % for {', '.join(rows)} slices"
    return [(text, f"{100 * spread:.1f} %", spread <= SPREAD)]


def _runtime_targets(rows: Rows) -> list[tuple[str, str, bool]]:
    if "all" not in rows:
        return []
    by_name = {(row["runtime"], row["precision"]): row for row in rows["all"]["rows"] if "cpu_s" in row}
    exact = by_name.get(("eager", "float32"))
    lines = []
    for (runtime, precision), row in by_name.items():
        if precision == "bfloat16":
            value = row["agreement"]
            lines.append((f"{runtime} bfloat16: labels as eager at least 0.999", f"{value:.5f}", value >= AGREEMENT))
        if precision == "int8" and exact:
            loss = max(exact["dice"][name] - value for name, value in row["dice"].items())
            lines.append((f"{runtime} INT8: loss of Dice at most 0.005", f"{loss:.4f}", loss <= DICE_LOSS))
        if (runtime, precision) == ("openvino", "bfloat16") and exact:
            ratio = exact["cpu_s"] / row["cpu_s"]
            lines.append(("openvino bfloat16 at least 3 times as fast as eager", f"{ratio:.2f}", ratio >= FASTER))
    return lines


def group_repeats(rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    """The answers of each bundle, whose rows end in the number of the repeat.

    Args:
        rows: by name.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name, answer in rows.items():
        groups.setdefault(name.rpartition(" ")[0], []).append(answer)
    return groups


def median_of(answers: Sequence[Mapping[str, Any]], case: int, clock: str, step: str) -> float:
    """The median over repeats of a step's time; 0 where a case has not the step.

    Args:
        answers: repeats.
        case: number of the case.
        clock: ``wall`` or ``cpu``.
        step: its name; `REST` for what no step holds.
    """
    return statistics.median(_seconds(answer["cases"][case][clock], step) for answer in answers)


REST = "everything else"


def _seconds(table: Mapping[str, float], step: str) -> float:
    if step == REST:
        return table[ALL] - sum(value for name, value in table.items() if name != ALL)
    return table.get(step, 0.0)


def outside_of(answers: Sequence[Mapping[str, Any]], case: int) -> float:
    """The median over repeats of the CPU time of all but the network.

    Args:
        answers: repeats.
        case: number of the case.
    """
    return statistics.median(
        answer["cases"][case]["cpu"][ALL] - answer["cases"][case]["cpu"][NETWORK] for answer in answers
    )


def outside_of_peer(answer: Mapping[str, Any]) -> float:
    """The CPU time of all but the network.

    Args:
        answer: of one candidate.
    """
    return float(answer["cpu"][ALL] - answer["cpu"][NETWORK])


def classes_of(name: str) -> int:
    """How many classes a bundle has.

    Args:
        name: of the bundle.

    Examples:
        >>> classes_of("structured-105-stride4 one thread")
        105
    """
    found = re.search(r"-(\d+)-", name)
    return int(found.group(1)) if found else 0
