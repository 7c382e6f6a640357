"""A training run of a bundle in a process of its own: just what ``python -m monai.bundle run`` does."""

from __future__ import annotations

import difflib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import yaml
from safetensors import SafetensorError, safe_open

from effvit_med.engine.model import read_model
from effvit_med.errors import EffvitError, InputError, SettingsError
from effvit_med.training.data import is_on
from effvit_med.training.placing import weights_place

TRAIN_FILE = Path("configs") / "train.yaml"
_NEEDED = ("monai", "ignite", "fire", "tensorboard")
_KEPT_BYTES = 1 << 16
_PATIENCE_S = 60
_RAISED = re.compile(r"effvit_med\.errors\.\w+: (.+)")


@dataclass(frozen=True)
class RunOptions:
    """What is changed of a bundle's training.

    Attributes:
        fold: whose cases validate.
        resume: go on from the newest checkpoint.
        epochs: in place of the planned number; None for that.
        values: other keys of ``train.yaml`` by name, as MONAI takes them on its command line.
    """

    fold: int = 0
    resume: bool = False
    epochs: int | None = None
    values: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunResult:
    """What a training reached.

    Attributes:
        weights: where the best weights are.
        score: the best validation metric; None if the file does not say it.
        run: the folder of the run.
    """

    weights: Path
    score: float | None
    run: Path


def training_command(bundle: Path, options: RunOptions) -> list[str]:
    """The command that trains a bundle.

    Args:
        bundle: the bundle's folder.
        options: what is changed.

    Raises:
        InputError: if the folder has no ``configs/train.yaml``.
        SettingsError: if a key is not in it.

    Examples:
        >>> training_command(Path("."), RunOptions(epochs=3))[-4:]
        ['--fold', '0', '--epochs', '3']
    """
    config = bundle / TRAIN_FILE
    known = list(_read_config(config))
    values = dict(options.values)
    for name in values:
        if name.partition("::")[0].partition("#")[0] not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            raise SettingsError(f"{config} has no key {name!r}. Did you mean {near[0]!r}?")
    values = {"fold": str(options.fold), **values}
    if options.epochs is not None:
        values["epochs"] = str(options.epochs)
    if options.resume:
        values["resume"] = "true"
    changes = [part for name, value in values.items() for part in (f"--{name}", value)]
    start = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config), "--bundle_root", str(bundle)]
    return [*start, *changes]


def _read_config(config: Path) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load(config.read_text(encoding="utf-8")))
    except OSError as error:
        text = f"{config.parent.parent} is no bundle to train: {config} cannot be read ({error.strerror})."
        raise InputError(f"{text} Make one with: effvit-med plan DATA -o {config.parent.parent}") from error
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise InputError(f"{config} is no YAML file with names and values.") from error


def train_bundle(bundle: Path, options: RunOptions, on_output: Callable[[bytes], Any]) -> RunResult:
    """Train a bundle to the end.

    Args:
        bundle: the bundle's folder.
        options: what is changed.
        on_output: called with what the run says, as it comes.

    Raises:
        InputError: if the folder is no bundle to train.
        SettingsError: if a value in it, or a key to change, is wrong.
        EffvitError: if MONAI is not installed, or the run fails; with its own error where it has one.
        KeyboardInterrupt: if the user stops it; the last whole epoch can be gone on from.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise EffvitError(
            f'Training needs {", ".join(missing)}, not installed here. Install it with: pip install "effvit-med[train]"'
        )
    model = read_model(bundle)
    command = training_command(bundle, options)
    _run(command, on_output)
    run = Path(options.values.get("output_dir", bundle / "runs" / "train"))
    placed = options.values.get("place_weights", _read_config(bundle / TRAIN_FILE).get("place_weights", True))
    place = weights_place(model.weights, options.fold)
    if not is_on(placed):
        place = run / "model.safetensors"
    if not place.is_file():
        raise EffvitError(f"The run ended without weights in {place}; was it shorter than one validation?")
    return RunResult(place, _read_score(place), run)


def _run(command: Sequence[str], on_output: Callable[[bytes], Any]) -> None:
    with subprocess.Popen(  # noqa: S603  our own interpreter
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            said = _follow(process.stdout, on_output)
        except BaseException:
            _stop(process)
            raise
    if process.returncode:
        raised = _RAISED.findall(said.decode("utf-8", "replace"))
        why = raised[-1] if raised else f"it ended with exit code {process.returncode}; its last words stand above."
        raise EffvitError(f"The training failed: {why}")


def _follow(stream: IO[bytes] | None, on_output: Callable[[bytes], Any]) -> bytes:
    """Pass on what is said, and keep the end of it."""
    kept = b""
    while stream is not None:
        part: bytes = stream.read1(1 << 12)  # type: ignore[attr-defined]
        if not part:
            break
        on_output(part)
        kept = (kept + part)[-_KEPT_BYTES:]
    return kept


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a run as Ctrl+C would, and wait until it has gone."""
    if os.name == "nt":
        process.terminate()  # no signal of Ctrl+C reaches a single process there
    else:
        process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _read_score(weights: Path) -> float | None:
    try:
        with safe_open(weights, "numpy") as file:
            told = (file.metadata() or {}).get("key_metric")
    except (OSError, SafetensorError):
        return None
    return float(told) if told else None
