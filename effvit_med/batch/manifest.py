"""The manifest of an output folder: one row per case, as JSON lines for programs and as CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from effvit_med.batch.journal import Journal
from effvit_med.engine.concealment import Concealment, conceal_file, digest
from effvit_med.errors import InputError, OutputError
from effvit_med.io import SetAside
from effvit_med.io.atomic import write_text
from effvit_med.io.batch_report import REPORT_FILE, write_batch_report

JSON_NAME = "manifest.jsonl"
CSV_NAME = "manifest.csv"
SET_ASIDE_NAME = "set_aside.jsonl"

_COLUMNS = (
    "case_id", "status", "code", "message", "findings", "quality", "quality_reason", "kind", "modality", "shape",
    "spacing_mm", "input", "study", "series", "input_files", "inputs_sha256", "key", "identity", "bundle",
    "bundle_version", "weights_sha256", "device", "attempts", "run", "shard", "started", "ended",
)  # fmt: skip


def collect_manifest(output: Path) -> Path:
    """Make ``manifest.jsonl``, ``manifest.csv`` and ``report.html`` from the states of all cases of all runs.

    Args:
        output: the folder of all results.

    Returns:
        The JSON lines; the table and the page lie beside them.

    Raises:
        InputError: if there is no journal in the folder.
        OutputError: if a file cannot be written.
    """
    if not (output / "journal" / "jobs").is_dir():
        raise InputError(f"{output} holds no journal of a batch; give the folder that was its --output.")
    journal = Journal(output)
    try:
        with FileLock(journal.folder / "manifest.lock"):
            for name in (JSON_NAME, CSV_NAME, REPORT_FILE):
                for half in output.glob(f".*.part-{name}"):  # of a run that was killed as it wrote
                    half.unlink(missing_ok=True)
            rows = list(journal.states())
            write_text(output / JSON_NAME, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            write_text(output / CSV_NAME, to_csv(rows))
            write_batch_report(rows, output)
    except OSError as error:
        raise OutputError(f"The manifest in {output} cannot be written: {error.strerror or error}.") from error
    return output / JSON_NAME


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """The rows of a manifest.

    Args:
        path: the JSON lines, or the folder that holds them.

    Raises:
        InputError: if they are not there or damaged.
    """
    file = path / JSON_NAME if path.is_dir() else path
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{file} is no manifest of a batch: {error}.") from error


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a column for each structure's volume and each file's hash.

    Args:
        rows: of the manifest.
    """
    structures = _union(row.get("volumes_ml") for row in rows)
    kinds = _union(row.get("outputs") for row in rows)
    stages = _union(row.get("seconds") for row in rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *_COLUMNS,
            *(f"{name} ml" for name in structures),
            *(f"{name} s" for name in stages),
            *(f"{kind} sha256" for kind in kinds),
        ]
    )
    for row in rows:
        outputs = row.get("outputs") or {}
        writer.writerow(
            [
                *(_cell(name, row.get(name)) for name in _COLUMNS),
                *((row.get("volumes_ml") or {}).get(name) for name in structures),
                *((row.get("seconds") or {}).get(name) for name in stages),
                *(outputs[kind]["sha256"] if kind in outputs else None for kind in kinds),
            ]
        )
    return text.getvalue()


def write_set_aside(output: Path, files: Iterable[SetAside], hidden: Concealment | None) -> int:
    """Write which files were no images to segment, and why; how many there were.

    Args:
        output: the folder of all results.
        files: with reasons.
        hidden: what hides names; None to keep them.

    Raises:
        OutputError: if the file cannot be written.
    """
    rows = []
    for each in files:
        row = {"file": each.path.name, "code": each.code, "reason": each.reason}
        if hidden is not None:
            row = {
                "file": conceal_file(each.path.name),
                "folder": f"folder_{digest(str(each.path.parent))}",
                "code": each.code,
                "reason": hidden.text(each.reason),
            }
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text(output / SET_ASIDE_NAME, "".join(rows))
    return len(rows)


def _union(groups: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """All keys, in the order in which they first come."""
    return list(dict.fromkeys(name for group in groups for name in group or {}))


def _cell(name: str, value: Any) -> Any:
    if name == "quality":
        return (value or {}).get("verdict")
    if isinstance(value, list):
        return " ".join(str(each) for each in value)
    return value
