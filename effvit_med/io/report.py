"""The record beside every result: how it was made, what was written, and what it must not be used for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from effvit_med.errors import OutputError
from effvit_med.io.atomic import write_json
from effvit_med.io.overlay import write_overlay
from effvit_med.io.tables import measurement_row
from effvit_med.volume.measurements import Measurement
from effvit_med.volume.provenance import Provenance

__all__ = ["RECORD_FORMAT", "write_overlay", "write_record"]

RECORD_FORMAT = "effvit-med record 1"


def write_record(
    path: Path,
    provenance: Provenance,
    outputs: Mapping[str, Path],
    measurements: Sequence[Measurement] | None = None,
    *,
    conceal: Callable[[Any], Any] | None = None,
) -> None:
    """Write record.json: the provenance, every output with its SHA-256 and size, and the notice.

    Only names of files are written, no folders: a folder may hold a patient's name.

    Args:
        path: the file to write.
        provenance: how the segmentation was made.
        outputs: the files that were written, by kind, such as ``{"dicom_seg": Path("out/labels.dcm")}``.
        measurements: one row per structure; None leaves them out.
        conceal: what the plain content goes through before it is written, such as to hash names of files.

    Raises:
        OutputError: if the record could not be written, or an output is not there.
    """
    content: dict[str, Any] = {"format": RECORD_FORMAT, **provenance.to_dict()}
    content["outputs"] = {kind: _describe(kind, file) for kind, file in outputs.items()}
    if measurements is not None:
        content["measurements"] = [measurement_row(measurement) for measurement in measurements]
    write_json(path, conceal(content) if conceal else content)


def _describe(kind: str, file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"file": file.name, "bytes": file.stat().st_size, "sha256": digest}
    except OSError as error:
        raise OutputError(f"The {kind} {file} cannot be put on record: {error.strerror or error}.") from error
