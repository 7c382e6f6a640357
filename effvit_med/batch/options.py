"""What a batch is told: the model, what to write, which share of the input, and how to go on after a stop."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from effvit_med.engine.results import Job
from effvit_med.engine.settings import Settings
from effvit_med.errors import SettingsError

DONE, FAULTY, SOME_FAILED, NOTHING_TO_DO, TEMPORARY, INTERRUPTED = 0, 1, 2, 3, 75, 130
"""Exit codes: all done; usage or configuration; some failed or refused; no images; run again later; stopped."""

CASE_TIMEOUT_S = 6 * 3600.0
"""Longer than any healthy stage of a case takes, even on one core."""


@dataclass(frozen=True)
class Shard:
    """One of several shares of an input that together make the whole and do not overlap.

    Attributes:
        index: which share, from 1.
        count: of all shares.

    Raises:
        SettingsError: if there is no such share.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise SettingsError(f"The shard is {self.index}/{self.count}; give 1/N to N/N.")

    @classmethod
    def from_text(cls, text: str) -> Self:
        """A shard from a text such as ``2/8``.

        Raises:
            SettingsError: if it is not written so, or there is no such share.

        Examples:
            >>> Shard.from_text("2/8")
            Shard(index=2, count=8)
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
        if not found:
            raise SettingsError(f"The shard is {text!r}; write it as 2/8, the second of eight.")
        return cls(int(found[1]), int(found[2]))

    def holds(self, name: str) -> bool:
        """Whether what has this name belongs to the share; the same on every machine.

        Examples:
            >>> [Shard(index, 2).holds("CT_4_0a1b2c3d") for index in (1, 2)].count(True)
            1
        """
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        return number % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True)
class Stages:
    """The functions that make the stages of a case, each as ``module:function``.

    Each is called once in its own process, with the `BatchOptions`, and gives what is called for every case.
    `effvit_med.batch.stages` holds those that are used where nothing else is asked for, and says what they are given.

    Attributes:
        find: from a path to the cases.
        read: from a case to a scan.
        segment: from a scan to a segmentation.
        write: from both to files.
    """

    find: str = "effvit_med.batch.stages:make_finder"
    read: str = "effvit_med.batch.stages:make_reader"
    segment: str = "effvit_med.batch.stages:make_segmenter"
    write: str = "effvit_med.batch.stages:make_writer"


@dataclass(frozen=True)
class BatchOptions:
    """How to run a batch.

    Attributes:
        bundle: folder of the bundle or exported model; None for the one that comes along.
        settings: how to segment.
        job: what to write and how strictly to read.
        shard: the share of the input to do; None for all.
        keep_ids: whether names of files, NIfTI case names and UIDs stay readable in logs, records and manifests.
        require_deidentified: whether DICOM series that do not say Patient Identity Removed YES are refused.
        resume: whether finished cases stay; False does all anew.
        retry_failed: whether cases that failed or were refused in an earlier run are tried again.
        verify: whether finished cases count as such only if the hashes of their files still hold; else their sizes.
        retry: how often a case is tried again within a run after it has ended its process.
        case_timeout_s: how long one stage of a case may take before its process is killed; None for ever.
        scratch: folder for what goes from process to process; None for the system's folder for temporary files.
        stages: what the processes do.

    Raises:
        SettingsError: if a number is not allowed.
    """

    bundle: Path | None = None
    settings: Settings = field(default_factory=Settings)
    job: Job = field(default_factory=Job)
    shard: Shard | None = None
    keep_ids: bool = False
    require_deidentified: bool = False
    resume: bool = True
    retry_failed: bool = False
    verify: bool = False
    retry: int = 1
    case_timeout_s: float | None = CASE_TIMEOUT_S
    scratch: Path | None = None
    stages: Stages = field(default_factory=Stages)

    def __post_init__(self) -> None:
        if self.retry < 0:
            raise SettingsError(f"retry is {self.retry}; give 0 or more.")
        if self.case_timeout_s is not None and not self.case_timeout_s > 0:
            raise SettingsError(f"case_timeout_s is {self.case_timeout_s}; give more than 0 seconds.")
