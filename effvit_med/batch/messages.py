"""What parent and children tell each other, and how it is framed on a pipe."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from effvit_med.batch.options import BatchOptions

_LENGTH = struct.Struct(">Q")


@dataclass(frozen=True)
class Start:
    """To a child, once: what it is.

    Attributes:
        factory: ``module:function``, called with the options.
        options: of the batch.
        trace_file: where a fatal signal leaves the Python stack.
        log_level: below this nothing is told.
    """

    factory: str
    options: BatchOptions
    trace_file: Path
    log_level: int


@dataclass(frozen=True)
class Order:
    """To a child: do one case.

    Attributes:
        arguments: the first arguments of the stage.
        parcels: folders that hold its further arguments.
        parcel: folder for what it gives; None where the answer carries it.
    """

    arguments: tuple[Any, ...]
    parcels: tuple[Path, ...] = ()
    parcel: Path | None = None


@dataclass(frozen=True)
class Ready:
    """From a child: it can work.

    Attributes:
        about: what it says of itself, such as the model's hash.
    """

    about: Mapping[str, Any]


@dataclass(frozen=True)
class Unfit:
    """From a child: it cannot even start.

    Attributes:
        message: why.
        is_ours: whether that is a plain error of the configuration, not a fault.
    """

    message: str
    is_ours: bool


@dataclass(frozen=True)
class Note:
    """From a child: a log line."""

    level: int
    text: str


@dataclass(frozen=True)
class Step:
    """From a child: how far it is."""

    phase: str
    done: int
    total: int


Verdict = Literal["ok", "refused", "failed", "stop", "device"]


@dataclass(frozen=True)
class Answer:
    """From a child: what became of an order.

    Attributes:
        verdict: ``ok``; ``refused`` or ``failed`` for this case only; ``stop`` for what would meet every case;
            ``device`` if the device has to be opened anew.
        value: what the stage gave, unless it went into a parcel.
        code: a machine-readable word; empty if ok.
        message: a sentence; empty if ok.
        trace: where it happened; empty if ok.
        wall_s: time of the stage, with its arrays.
        cpu_s: processor time of it.
        peak_mb: the most memory of the process so far, in MiB.
    """

    verdict: Verdict
    value: Any = None
    code: str = ""
    message: str = ""
    trace: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_mb: float = 0.0


@dataclass(frozen=True)
class Ended:
    """From the parent's thread that listens to a child: it is gone."""


def send(stream: BinaryIO, message: object) -> None:
    """Write one message.

    Raises:
        OSError: if the other side is gone.
    """
    content = pickle.dumps(message, protocol=5)
    stream.write(_LENGTH.pack(len(content)) + content)
    stream.flush()


def receive(stream: BinaryIO) -> Any:
    """The next message.

    Raises:
        EOFError: if the other side is gone.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    content = stream.read(length)
    if len(content) < length:
        raise EOFError
    return pickle.loads(content)  # noqa: S301 - written by our own process at the other end of a private pipe
