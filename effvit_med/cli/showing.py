"""What people see of a run: a progress bar and log lines on stderr, a summary on stdout."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.stopping import stop_if_asked

if TYPE_CHECKING:
    from effvit_med.engine import BatchResult, CaseResult
    from effvit_med.volume.measurements import Measurement
    from effvit_med.volume.quality import CaseQuality


class ProgressBar:
    """One line on stderr: which case, which phase, how far."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._case = ""

    def start_case(self, case_id: str, number: int, cases: int) -> None:
        """Say which case comes now."""
        self._case = f"{case_id} ({number}/{cases})" if cases > 1 else case_id

    def update(self, phase: str, done: int, total: int) -> None:
        """Say how far a phase has come; the place where a wish to stop is heard."""
        stop_if_asked()
        self._bar.set_description_str(f"{self._case} {phase}", refresh=False)
        self._bar.total, self._bar.n = total, done
        self._bar.refresh()


@contextlib.contextmanager
def progress_bar(*, hidden: bool) -> Iterator[ProgressBar]:
    """A progress bar while the block runs; nothing is shown where stderr is no terminal."""
    from tqdm import tqdm

    layout = "{desc}: {percentage:3.0f}%|{bar:30}| {n_fmt}/{total_fmt} {elapsed}"
    with tqdm(total=1, disable=hidden or None, file=sys.stderr, leave=False, bar_format=layout) as bar:
        yield ProgressBar(bar)


def start_logging(quiet: bool, verbose: bool) -> None:
    """Log to stderr: warnings and our own messages; with ``verbose`` all of ours."""
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s", force=True)
    logging.getLogger("effvit_med").setLevel(level)
    logging.getLogger("pydicom").setLevel(logging.ERROR)  # its warnings quote header values, such as patients' names


def summarise(result: BatchResult, output: Path) -> dict[str, Any]:
    """The JSON line: what became of each case."""
    states = [case.status for case in result.cases]
    return {
        "status": _status(result.exit_code, states),
        "output": str(output),
        "segmented": states.count("segmented"),
        "refused": states.count("refused"),
        "failed": states.count("failed"),
        "find_seconds": round(result.find_s, 3),
        "cases": [_case_summary(case) for case in result.cases],
        "set_aside": [{"file": a.path.name, "code": a.code, "reason": a.reason} for a in result.set_aside],
        "notice": NOTICE,
    }


def _status(exit_code: int, states: list[str]) -> str:
    if exit_code and "segmented" in states:
        return "partial"
    return {0: "ok", 1: "failed", 3: "refused"}[exit_code]


def _case_summary(case: CaseResult) -> dict[str, Any]:
    plain: dict[str, Any] = {"case": case.case_id, "input": case.input, "status": case.status}
    if case.status != "segmented":
        return {**plain, "code": case.code, "message": case.message}
    plain["outputs"] = {kind: str(path) for kind, path in case.outputs.items()}
    volumes = {row.structure: row.volume_ml for row in case.measurements}
    if "png" in case.outputs:  # a photograph has no volumes
        plain["pixels"] = {row.structure: row.voxels for row in case.measurements}
        plain["area_mm2"] = {row.structure: row.area_mm2 for row in case.measurements}
    else:
        plain["volume_ml"] = {name: volume if volume is None else round(volume, 3) for name, volume in volumes.items()}
    plain["quality"] = case.quality.to_dict() if case.quality else None
    plain["findings"] = [{"code": f.code, "message": f.message} for f in case.findings]
    return {**plain, "seconds": dict(case.seconds)}


def say_what_was_made(result: BatchResult, dice: dict[str, float] | None = None) -> None:
    """A few lines on stderr for a person."""
    lines = []
    for case in result.cases:
        if case.status != "segmented":
            continue
        lines.append(f"Segmented {case.case_id} in {sum(case.seconds.values()):.1f} s:")
        lines += _verdict_lines(case.quality)
        for row in case.measurements:
            volume = _describe_size(row)
            cut = "  touches the edge of the scan" if row.cut_by_field_of_view else ""
            score = f"  Dice against the phantom's exact labels {dice[row.structure]:.3f}" if dice else ""
            lines.append(f"  {row.structure:14s} {volume:>12s}{score}{cut}")
        lines.extend(f"  {path}" for path in case.outputs.values())
    click.echo("\n".join([*lines, NOTICE]), err=True)


def _describe_size(row: Measurement) -> str:
    """The volume of a structure; of a photograph its area, or its pixels where their size is not known."""
    if row.voxels is None:
        return "not found"
    if row.volume_ml is not None:
        return f"{row.volume_ml:9.1f} mL"
    return f"{row.voxels} pixels" if row.area_mm2 is None else f"{row.area_mm2:.4g} mm2"


def _verdict_lines(quality: CaseQuality | None) -> list[str]:
    """The verdict on a result and what speaks against it."""
    if quality is None:
        return []
    reasons = [
        *quality.reasons,
        *(each for row in quality.structures if row.verdict in ("review", "fail") for each in row.reasons),
    ]
    told = {reason.code: reason.message for reason in reasons}  # one sentence of each kind
    return [f"  quality: {quality.verdict or 'not judged'}", *(f"    {code}: {text}" for code, text in told.items())]
