"""Rows of a batch's manifest as the report shows them: whatever they lack is left out, nothing is guessed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from effvit_med.errors import InputError

STATES = ("fail", "failed", "refused", "review", "not judged", "pass", "running", "pending", "skipped")
"""What can have become of a case, worst first: the verdict where it is done, else its status."""

MEANINGS = {
    "fail": "segmented, and the result must not be used",
    "failed": "could not be segmented: a fault, or a file that cannot be used",
    "refused": "can be read, but is not safe to segment as it is",
    "review": "segmented; a person should look at what was found",
    "not judged": "segmented; the bundle keeps nothing to judge it by",
    "pass": "segmented, and nothing was found against it",
    "running": "was being worked on when this page was made",
    "pending": "was waiting when this page was made",
    "skipped": "left out",
}

_DONE = frozenset({"done", "segmented"})


@dataclass(frozen=True)
class ReportCase:
    """One case as the page shows it.

    Attributes:
        case_id: its name.
        state: one of `STATES`.
        message: a sentence on why it was not segmented, where no code stands for it; else empty.
        against: what speaks against the result, each with ``code`` and ``message``.
        notes: sentences on what was not judged.
        findings: what was found while reading and segmenting, as ``against``.
        structures: one mapping per structure with ``name``, ``volume``, ``verdict`` and ``reasons``.
        score: how unlike the training data the intensities are.
        seconds: wall time of the case.
        phases: the wall time by step, as a sentence.
        files: the outputs, each with ``kind`` and ``href``.
        overlay: the picture's path below the folder of the report, or empty.
        trace: where in the program a fault lies; empty if there was none.
    """

    case_id: str
    state: str
    message: str
    against: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    findings: tuple[dict[str, str], ...]
    structures: tuple[dict[str, Any], ...]
    score: float | None
    seconds: float | None
    phases: str
    files: tuple[dict[str, str], ...]
    overlay: str
    trace: str = ""

    @property
    def rank(self) -> int:
        """The place of its state, the worst first."""
        return STATES.index(self.state)

    @property
    def codes(self) -> list[str]:
        """The codes of all that was found, what speaks against it first."""
        return list(dict.fromkeys(reason["code"] for reason in (*self.against, *self.findings)))

    @property
    def structures_total(self) -> int:
        """How many structures were looked for."""
        return len(self.structures)

    @property
    def structures_found(self) -> int:
        """How many were found."""
        return sum(row["volume"] is not None for row in self.structures)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``manifest.jsonl``.

    Args:
        path: the file.

    Raises:
        InputError: if it cannot be read, or a line is no JSON object.
    """
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The manifest {path} cannot be read: {error}.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"Line {number} of {path} is no JSON: {error}. Make the manifest again.") from error
        if not isinstance(row, dict):
            raise InputError(f"Line {number} of {path} holds no case but a {type(row).__name__}.")
        rows.append(row)
    return rows


def to_case(row: Mapping[str, Any]) -> ReportCase:
    """One row of the manifest as the page shows it.

    Args:
        row: with some or all of ``case_id``, ``status``, ``code``, ``message``, ``findings``, ``quality``,
            ``volumes_ml``, ``seconds`` and ``outputs``.

    Examples:
        >>> case = to_case({"case_id": "CT_1", "status": "refused", "code": "MISSING_SLICES"})
        >>> case.state, case.codes, case.seconds
        ('refused', ['MISSING_SLICES'], None)
    """
    quality = _mapping(row.get("quality"))
    volumes = {str(name): _number(value) for name, value in _mapping(row.get("volumes_ml")).items()}
    judged = [_mapping(each) for each in _items(quality.get("structures"))]
    code, message = str(row.get("code") or ""), str(row.get("message") or "")
    against = [{"code": code, "message": message.removeprefix(f"{code}: ")}] if code else []
    against += _reasons(quality.get("reasons"))
    notes = []
    if quality and quality.get("out_of_distribution") is None and quality.get("out_of_distribution_reason"):
        notes.append(f"Intensities: {quality['out_of_distribution_reason']}.")
    for each in judged:
        against += [r for r in _reasons(each.get("reasons")) if each.get("verdict") in ("review", "fail")]
    seconds = row.get("seconds")
    phases = {str(name): _number(value) for name, value in _mapping(seconds).items()}
    case_id = str(row.get("case_id") or "")
    outputs = {str(kind): _relative(path, case_id) for kind, path in _mapping(row.get("outputs")).items()}
    verdict = quality.get("verdict", row.get("verdict"))
    return ReportCase(
        case_id=case_id or "(no name)",
        state=_state(str(row.get("status", "")), verdict),
        message="" if code or str(row.get("status")) in _DONE else message,
        against=tuple({(r["code"], r["message"]): r for r in against if r["code"] not in _NOT_AGAINST}.values()),
        notes=tuple(notes + [r["message"] for r in against if r["code"] in _NOT_AGAINST]),
        findings=tuple(r for r in _reasons(row.get("findings")) if r["code"] not in {each["code"] for each in against}),
        structures=tuple(_structures(volumes, judged)),
        score=_number(quality.get("out_of_distribution")),
        seconds=sum(value for value in phases.values() if value is not None) if phases else _number(seconds),
        phases=", ".join(f"{name} {value:.1f}" for name, value in phases.items() if value is not None),
        files=tuple({"kind": kind, "href": quote(path)} for kind, path in outputs.items() if path),
        overlay=outputs.get("overlay", ""),
        trace=str(row.get("trace") or ""),
    )


_NOT_AGAINST = frozenset({"NO_REFERENCE", "VOLUME_NOT_JUDGED", "CONFIDENCE_NOT_JUDGED"})


def _state(status: str, verdict: object) -> str:
    if status in _DONE:
        return str(verdict) if verdict in ("fail", "review", "pass") else "not judged"
    return status if status in STATES else "pending"


def _structures(volumes: Mapping[str, float | None], judged: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    verdicts = {str(each.get("structure")): each for each in judged}
    for name in dict.fromkeys((*volumes, *verdicts)):
        volume, verdict = volumes.get(name), verdicts.get(name, {})
        yield {
            "name": name,
            "volume": None if volume is None else f"{volume:.3g}" if volume < 100 else f"{volume:.0f}",
            "verdict": verdict.get("verdict"),
            "reasons": _reasons(verdict.get("reasons")),
        }


def _reasons(value: object) -> list[dict[str, str]]:
    """Findings as code and message; a bare text is a code."""
    found = []
    for each in _items(value):
        if isinstance(each, Mapping):
            found.append({"code": str(each.get("code", "")), "message": str(each.get("message", ""))})
        else:
            found.append({"code": str(each), "message": ""})
    return found


def _relative(output: object, case_id: str) -> str:
    """An output's path below the folder of the report, with plain slashes; empty if it does not lie there.

    A mapping names a file in the case's own folder, a text is a path below the folder of the report.
    """
    path = output
    if isinstance(output, Mapping):
        path = f"{case_id}/{output['file']}" if case_id and output.get("file") else ""
    if not isinstance(path, str) or not path:
        return ""
    parts = PurePosixPath(path.replace("\\", "/"))
    return "" if parts.is_absolute() or ".." in parts.parts or ":" in parts.parts[0] else str(parts)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: object) -> list[Any]:
    """The elements of a list; a text is split at spaces and semicolons, as tables have it."""
    if isinstance(value, str):
        return value.replace(";", " ").split()
    return list(value) if isinstance(value, list | tuple) else []


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
