"""The process that tries inputs, guided by coverage (atheris) or not. It may die; its parent sees."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.fuzz_mutations import MAX_BYTES, mutate
from benchmarks.fuzz_seeds import SERIES

KINDS = ("slice", "compressed slice", "alone", "multi-frame", "NIfTI", "packed NIfTI", "zip", "DICOMDIR", "other")
STATES = ("read", "findings", "refused", "set aside", "offence")
STARTED, CPU, TRIED, COUNTS = 0, 1, 2, 3
LENGTH = COUNTS + len(KINDS) * len(STATES)
MEMORY_BYTES = 2 * 2**30
FRESH = 0.4
"""Part of the inputs that are one step away from a good file of our own, whatever coverage says."""
KEEP = 3
"""Reproducers of one offence."""


@dataclass(frozen=True)
class Setup:
    """What a child is told.

    Attributes:
        home: scratch folder with the corpus, the slices that lie beside a mutant and the counters.
        offenders: where reproducers go.
        seed: of chance.
        guided: whether atheris chooses.
        limit: inputs after which to stop; 0 for none.
    """

    home: str
    offenders: str
    seed: int
    guided: bool
    limit: int = 0

    @classmethod
    def read(cls, path: Path) -> Setup:
        """From a JSON file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        """To a JSON file."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def open_counters(home: Path) -> npt.NDArray[np.int64]:
    """The counters that parent and child share; they outlive the child.

    Args:
        home: the scratch folder.
    """
    path = home / "counters"
    if not path.exists():
        np.zeros(LENGTH, np.int64).tofile(path)
    return np.memmap(path, np.int64, "r+", shape=(LENGTH,))


def kind_of(content: bytes) -> str:
    """Which kind of input the bytes are.

    Args:
        content: of the file.
    """
    head = content[:700]
    is_dicom = content[128:132] == b"DICM" or content[:2] in (b"\x08\x00", b"\x02\x00")
    rules = (
        (content[:2] == b"PK", "zip"),
        (content[:2] == b"\x1f\x8b", "packed NIfTI"),
        (content[344:348] in (b"n+1\x00", b"ni1\x00") or content[4:8] == b"n+2\x00", "NIfTI"),
        (not is_dicom, "other"),
        (b"1.2.840.10008.1.3.10" in head, "DICOMDIR"),
        (b"\x00\x52\x30\x92" in content or b"\x00\x52\x29\x92" in content, "multi-frame"),
        (SERIES not in content, "alone"),
        (b"1.2.840.10008.1.2.4." in head or b"1.2.840.10008.1.2.5" in head, "compressed slice"),
    )
    return next((kind for applies, kind in rules if applies), "slice")


class Bench:
    """Lays an input where it belongs, tries it and counts what became of it.

    Args:
        setup: what the child is told.
    """

    def __init__(self, setup: Setup) -> None:
        from benchmarks.fuzz_oracle import judge_input  # after atheris has put its hooks into the imports

        self._judge: Callable[[Path, Path], Any] = judge_input
        self._setup, self._home = setup, Path(setup.home)
        self.counters = open_counters(self._home)
        self._seen: dict[str, int] = {}
        self._places = {kind: self._make_place(kind) for kind in KINDS}

    def _make_place(self, kind: str) -> tuple[Path, Path]:
        """The folder of a kind, fresh, and the file in it that is replaced; then what is opened."""
        folder = self._home / "run" / kind.replace(" ", "_")
        beside = {"slice": "siblings", "compressed slice": "siblings", "DICOMDIR": "medium"}.get(kind)
        shutil.rmtree(folder, ignore_errors=True)
        if beside:
            shutil.copytree(self._home / beside, folder)
        else:
            folder.mkdir(parents=True)
        names = {"NIfTI": "scan.nii", "packed NIfTI": "scan.nii.gz", "zip": "scan.zip", "DICOMDIR": "DICOMDIR"}
        file = folder / names.get(kind, "mutant")
        return file, folder if beside == "siblings" else file

    def run(self, content: bytes) -> Any:
        """Try one input.

        Args:
            content: of the file.
        """
        kind = kind_of(content)
        file, opened = self._places[kind]
        file.write_bytes(content)
        shutil.copyfile(file, self._home / "current")
        self.counters[CPU] = int(time.process_time() * 1e9)
        self.counters[STARTED] = time.time_ns()
        outcome = self._judge(opened, file.parent)
        self.counters[STARTED] = 0
        self.counters[TRIED] += 1
        self.counters[COUNTS + KINDS.index(kind) * len(STATES) + STATES.index(outcome.status)] += 1
        if outcome.offence:
            self.keep(content, kind, outcome)
        return outcome

    def keep(self, content: bytes, kind: str, outcome: Any) -> None:
        """Save the bytes of an offender with what was wrong, if it is one of the first of its sort.

        Args:
            content: of the file.
            kind: of input.
            outcome: what was wrong.
        """
        place = outcome.detail.split(":")[0] if outcome.offence == "exception" else kind
        sort = f"{outcome.offence} {place}".split("0x")[0]
        self._seen[sort] = self._seen.get(sort, 0) + 1
        if self._seen[sort] <= KEEP:
            save_offender(Path(self._setup.offenders), content, kind, outcome.offence, outcome.detail)


def save_offender(folder: Path, content: bytes, kind: str, offence: str, detail: str) -> None:
    """Keep a reproducer and a line about it.

    Args:
        folder: of the offenders.
        content: of the file.
        kind: of input.
        offence: what kind of offence.
        detail: where and what.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{offence}-{hashlib.sha256(content).hexdigest()[:12]}"
    (folder / name).write_bytes(content)
    line = json.dumps({"file": name, "kind": kind, "offence": offence, "detail": detail})
    with (folder / "offenders.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def limit_memory() -> None:
    """No more address space than what is mapped now and 2 GiB."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES, resource.RLIM_INFINITY))


def _run_plain(setup: Setup) -> None:
    bench = Bench(setup)
    limit_memory()
    draw = random.Random(setup.seed)
    corpus = [path.read_bytes() for path in sorted(Path(setup.home, "corpus").iterdir())]
    before = int(bench.counters[TRIED])
    while not setup.limit or bench.counters[TRIED] - before < setup.limit:
        bench.run(mutate(draw.choice(corpus), draw))


def _run_guided(setup: Setup) -> None:
    import atheris

    with atheris.instrument_imports(include=["effvit_med.io", "pydicom", "nibabel"]):
        bench = Bench(setup)
    limit_memory()

    seeds = [path.read_bytes() for path in sorted(Path(setup.home, "corpus").iterdir()) if "real" not in path.name]

    def vary(data: bytes, max_size: int, seed: int) -> bytes:
        draw = random.Random(seed)
        start = draw.choice(seeds) if draw.random() < FRESH else data
        changed = mutate(start, draw, lambda part, _: atheris.Mutate(part, len(part) + 16))
        return changed[:max_size]

    def try_one(data: bytes) -> None:
        bench.run(data)

    runs = [f"-runs={setup.limit}"] if setup.limit else []
    flags = [f"-seed={setup.seed}", f"-max_len={MAX_BYTES}", "-len_control=0", "-rss_limit_mb=0", "-timeout=3600"]
    quiet = ["-verbosity=0", "-reload=0", f"-artifact_prefix={setup.home}/libfuzzer-"]
    arguments = [sys.argv[0], *flags, *quiet, *runs, str(Path(setup.home, "corpus"))]
    atheris.Setup(arguments, try_one, custom_mutator=vary)
    atheris.Fuzz()


def main() -> None:
    """Try inputs until the limit, or one file with ``--try FILE``."""
    setup = Setup.read(Path(sys.argv[1]))
    if len(sys.argv) > 3:
        bench = Bench(setup)
        limit_memory()
        start = time.process_time()
        outcome = bench.run(Path(sys.argv[3]).read_bytes())
        print(json.dumps({**asdict(outcome), "cpu_s": round(time.process_time() - start, 2)}))
        return
    with contextlib.suppress(KeyboardInterrupt):
        _run_guided(setup) if setup.guided else _run_plain(setup)


if __name__ == "__main__":
    main()
