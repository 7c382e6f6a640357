"""How a result was made: enough to make it again and to say what it must not be used for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effvit_med import NOT_FOR_CLINICAL_USE
from effvit_med.errors import SettingsError
from effvit_med.volume.volume import Finding, Source, SourceFile


@dataclass(frozen=True)
class Step:
    """One thing that was done to the data, with its parameters and how long it took.

    Attributes:
        name: a verb phrase such as ``resample``.
        seconds: wall time.
        detail: plain values: sizes, spacings, counts.
        cpu_seconds: processor time of all threads of the process meanwhile; 0 where it was not measured.
    """

    name: str
    seconds: float
    detail: Mapping[str, Any] = field(default_factory=dict)
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Provenance:
    """How a segmentation was made.

    Attributes:
        bundle: name of the bundle.
        bundle_version: its version.
        weights_sha256: hex digest of the weights file.
        settings: every setting that changes the result, as plain values.
        versions: versions of effvit-med and of the libraries that compute.
        device: such as ``cpu`` or ``cuda:0 NVIDIA H200``.
        started: when the run began, ISO 8601 with the offset from UTC.
        source: the input, with UIDs and SHA-256 of every file.
        steps: what was done, in order.
        findings: warnings of reading and of every guess made on the way.
        notice: that the result is not for clinical use.
    """

    bundle: str
    bundle_version: str
    weights_sha256: str
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    device: str
    started: str
    source: Source | None = None
    steps: tuple[Step, ...] = ()
    findings: tuple[Finding, ...] = ()
    notice: str = NOT_FOR_CLINICAL_USE

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", dict(self.settings))
        object.__setattr__(self, "versions", dict(self.versions))

    def identity(self) -> str:
        """A hex digest of all that decides the labels: input bytes, weights, settings and our version.

        Two runs of the same job have the same identity, whatever their time and place.
        """
        source = self.source
        decisive = {
            "inputs": [_identify(file) for file in source.files] if source else [],
            "bundle": [self.bundle, self.bundle_version, self.weights_sha256],
            "settings": dict(self.settings),
            "effvit-med": self.versions.get("effvit-med", ""),
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True, default=str).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values for JSON."""
        plain = {name.name: getattr(self, name.name) for name in dataclasses.fields(self)}
        plain["settings"], plain["versions"] = dict(self.settings), dict(self.versions)
        plain["steps"] = [
            {
                "name": s.name,
                "seconds": round(s.seconds, 4),
                "cpu_seconds": round(s.cpu_seconds, 4),
                "detail": dict(s.detail),
            }
            for s in self.steps
        ]
        plain["findings"] = [dataclasses.asdict(finding) for finding in self.findings]
        plain["source"] = _source_to_dict(self.source) if self.source else None
        plain["identity"] = self.identity()
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Provenance:
        """The record that `to_dict` gave, also after a way through JSON; paths of source files are names only.

        Args:
            plain: what `to_dict` returned.

        Raises:
            SettingsError: if the values are not such a record.

        Examples:
            >>> made = Provenance("demo", "1", "", {"window": [8, 8, 8]}, {}, "cpu", "2024-01-01T00:00:00+00:00")
            >>> Provenance.from_dict(made.to_dict()) == made
            True
        """
        names = [each.name for each in dataclasses.fields(cls)]
        try:
            values = {name: plain[name] for name in names}
            values["steps"] = tuple(Step(**step) for step in values["steps"])
            values["findings"] = tuple(Finding(**finding) for finding in values["findings"])
            values["source"] = _source_from_dict(values["source"]) if values["source"] else None
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(f"This is no record of how a segmentation was made: {error!r}.") from error


def _identify(file: SourceFile) -> list[str | int]:
    frame = [file.frame] if file.frame else []  # several volumes may come from one file
    return [file.sop_instance_uid, file.sha256, *frame]


def _source_to_dict(source: Source) -> dict[str, Any]:
    plain = dataclasses.asdict(source)
    for file in plain["files"]:
        file["path"] = file["path"].name  # a record carries no folder names: they may hold patient names
    return plain


def _source_from_dict(plain: Mapping[str, Any]) -> Source:
    files = tuple(SourceFile(**{**file, "path": Path(file["path"])}) for file in plain["files"])
    return Source(**{**plain, "files": files, "findings": tuple(Finding(**each) for each in plain["findings"])})
