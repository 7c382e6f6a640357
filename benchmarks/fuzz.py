"""Half an hour of broken files: no crash, no hang, no foreign exception, no memory, no silent wrong place.

``python -m benchmarks.fuzz --minutes 30`` mutates DICOM, NIfTI, zip and DICOMDIR files and reads them as `inspect` does
and as segmenting does, in processes that may die. Coverage guides the choice where atheris is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.fuzz_child import COUNTS, KINDS, STARTED, STATES, TRIED, Setup, kind_of, open_counters, save_offender
from benchmarks.fuzz_seeds import make_directory, siblings, write_corpus
from benchmarks.report import RESULTS, describe_circumstances

HANG_S = 10.0
_POLL_S = 0.2
CHILD = ("-m", "benchmarks.fuzz_child")
RULES = (
    "An offence is: the process dies; more than 10 s; an exception that is not one of ours, or a warning; more than "
    "2 GiB; a file that is neither read, refused nor set aside; a file outside the input; values that are not finite; "
    "or a slice whose corner lies elsewhere than its own header says, by a quarter of a voxel."
)


@dataclass(frozen=True)
class Tried:
    """What a run found.

    Attributes:
        inputs: how many were tried.
        seconds: wall time.
        guided: whether coverage guided the choice.
        seeds: how many files it began with.
        corpus: how many files reached something new.
        restarts: how often the process had to be started again.
        table: counts by kind and by what became of the input.
        offenders: what broke a rule, one line each.
    """

    inputs: int
    seconds: float
    guided: bool
    seeds: int
    corpus: int
    restarts: int
    table: dict[str, dict[str, int]]
    offenders: tuple[dict[str, Any], ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, report, and return 1 if anything broke a rule.

    Args:
        arguments: of the command line.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--inputs", type=int, default=0, help="stop after so many; 0 for none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="no coverage, even where atheris is installed")
    parser.add_argument("--offenders", type=Path, default=Path("fuzz_offenders"), help="folder for what broke a rule")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--try", dest="file", type=Path, help="try one file and say what becomes of it")
    options = parser.parse_args(arguments)
    guided = not options.plain and importlib.util.find_spec("atheris") is not None
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        home = Path(scratch)
        setup = Setup(str(home), str(options.offenders.resolve()), options.seed, guided, options.inputs)
        seeds = prepare(home)
        if options.file:
            print(json.dumps(_try_again(setup, options.file)))
            return 0
        tried = run(setup, options.minutes * 60, seeds)
    report(tried, options.output)
    print(to_markdown(tried))
    return 1 if tried.offenders else 0


def prepare(home: Path, *, real: bool = True) -> int:
    """Lay seeds and what lies beside mutants into a scratch folder; returns the number of seeds.

    Args:
        home: the scratch folder.
        real: whether files of the shared scans are among the seeds.
    """
    count = write_corpus(home / "corpus", real=real)
    (home / "corpus" / "directory").write_bytes(make_directory(home / "medium"))
    (home / "siblings").mkdir()
    for name, content in siblings().items():
        (home / "siblings" / name).write_bytes(content)
    return count + 1


def run(setup: Setup, limit_s: float, seeds: int) -> Tried:
    """Try inputs for some time, starting the process again whenever it dies or hangs.

    Args:
        setup: what the children are told.
        limit_s: wall time.
        seeds: how many files the corpus began with.

    Raises:
        RuntimeError: if the process dies while it tries nothing, so that it would not work again either.
    """
    home, start = Path(setup.home), time.monotonic()
    counters = open_counters(home)
    restarts = -1
    while time.monotonic() - start < limit_s and not (setup.limit and counters[TRIED] >= setup.limit):
        restarts += 1
        config = home / "setup.json"
        left = max(0, setup.limit - int(counters[TRIED]))
        Setup(setup.home, setup.offenders, setup.seed + restarts, setup.guided, left).write(config)
        counters[STARTED] = 0
        with (home / "log").open("wb") as log:
            child = subprocess.Popen([sys.executable, *CHILD, str(config)], stdout=log, stderr=log)
        ended = _watch(child, counters, start + limit_s)
        if ended == "time":
            break
        if counters[STARTED]:
            _judge_death(setup, ended, child.returncode)
        elif child.returncode:
            raise RuntimeError((home / "log").read_text(encoding="utf-8", errors="replace")[-2000:])
    table = _table(counters)
    lines = Path(setup.offenders, "offenders.jsonl")
    offenders = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    return Tried(
        inputs=int(counters[TRIED]),
        seconds=time.monotonic() - start,
        guided=setup.guided,
        seeds=seeds,
        corpus=len(list((home / "corpus").iterdir())),
        restarts=restarts,
        table=table,
        offenders=tuple(offenders),
    )


def _watch(child: subprocess.Popen[bytes], counters: npt.NDArray[np.int64], until: float) -> str:
    """Wait for the end of a child: ``died`` by itself, ``hang``, or ``time``: all time is used."""
    while child.poll() is None:
        time.sleep(_POLL_S)
        since = int(counters[STARTED])
        if since and time.time_ns() - since > HANG_S * 1e9:
            child.send_signal(signal.SIGKILL)
            child.wait()
            return "hang"
        if time.monotonic() > until:
            child.send_signal(signal.SIGKILL)
            child.wait()
            return "time"
    return "died"


def _judge_death(setup: Setup, ended: str, code: int | None) -> None:
    """Try the last input again, alone: on a busy machine a process may be slow or killed for other reasons."""
    content = Path(setup.home, "current").read_bytes()
    again = _try_again(setup, Path(setup.home, "current"))
    if again.get("offence") in ("crash", "hang"):
        detail = f"{again['detail']}; in the run: {ended}, exit code {code}"
        save_offender(Path(setup.offenders), content, kind_of(content), again["offence"], detail)
    elif ended == "died":
        log = Path(setup.home, "log").read_text(encoding="utf-8", errors="replace")[-300:]
        save_offender(Path(setup.offenders), content, kind_of(content), "crash", f"once, not again; {code}: {log}")


def _try_again(setup: Setup, file: Path) -> dict[str, Any]:
    home = Path(setup.home)
    config, copy = home / "again.json", home / "again"
    shutil.copyfile(file, copy)
    Setup(setup.home, setup.offenders, setup.seed, guided=False, limit=0).write(config)
    counters = np.array(open_counters(home))
    command = [sys.executable, *CHILD, str(config), "--try", str(copy)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return {"status": "offence", "offence": "hang", "detail": "more than 60 s alone"}
    finally:
        open_counters(home)[:] = counters
    if done.returncode:
        detail = f"exit code {done.returncode}: {done.stderr.strip()[-200:]}"
        return {"status": "offence", "offence": "crash", "detail": detail}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found["cpu_s"] > HANG_S:
        return {"status": "offence", "offence": "hang", "detail": f"{found['cpu_s']} s of processor"}
    return found


def _table(counters: npt.NDArray[np.int64]) -> dict[str, dict[str, int]]:
    counts = np.asarray(counters[COUNTS:]).reshape(len(KINDS), len(STATES))
    return {
        kind: dict(zip(STATES, map(int, row), strict=True))
        for kind, row in zip(KINDS, counts, strict=True)
        if row.sum()
    }


def report(tried: Tried, folder: Path) -> None:
    """Write ``fuzz.json`` and ``fuzz.md``.

    Args:
        tried: what was found.
        folder: where to.
    """
    circumstances = describe_circumstances("benchmarks.fuzz")
    folder.mkdir(parents=True, exist_ok=True)
    plain = {**tried.__dict__, "offenders": list(tried.offenders), "circumstances": circumstances.__dict__}
    (folder / "fuzz.json").write_text(json.dumps(plain, indent=1, default=dict) + "\n", encoding="utf-8")
    (folder / "fuzz.md").write_text(f"{to_markdown(tried)}\n{circumstances.to_line()}\n", encoding="utf-8")


def to_markdown(tried: Tried) -> str:
    """The table for people.

    Args:
        tried: what was found.
    """
    deaths = sum(each["offence"] in ("crash", "hang") for each in tried.offenders)
    rate = tried.inputs / max(tried.seconds, 1e-9)
    how = "guided by coverage (atheris)" if tried.guided else "plain mutation"
    summary = (
        f"{tried.inputs} inputs in {tried.seconds / 60:.1f} minutes ({rate:.0f} a second), {how}; {tried.seeds} seeds, "
        f"{tried.corpus} files in the corpus at the end; the process was started again {tried.restarts} times. "
        f"{sum(row['offence'] for row in tried.table.values())} inputs were offences, and {deaths} killed the process."
    )
    lines = ["# Fuzzing of the reader", "", summary, "", RULES, ""]
    lines += [
        "| kind | inputs | " + " | ".join(STATES) + " |",
        "|---|---|" + "---|" * len(STATES),
    ]
    for kind, row in tried.table.items():
        lines.append(f"| {kind} | {sum(row.values())} | " + " | ".join(str(row[state]) for state in STATES) + " |")
    lines += ["", "Offenders kept:" if tried.offenders else "No offender."]
    lines += [f"- {each['offence']} ({each['kind']}): {each['detail']} [{each['file']}]" for each in tried.offenders]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
