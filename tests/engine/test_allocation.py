"""Freed memory is kept by programs, and by programs only."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from effvit_med.engine import allocation
from effvit_med.engine.allocation import is_tuned_by_user, keep_freed_memory

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="there is no glibc here")

ANSWER = (
    "import json; from effvit_med.engine.allocation import keep_freed_memory; print(json.dumps(keep_freed_memory()))"
)

FAULTS = """
import json, resource, statistics, sys, threading, torch
from effvit_med.engine.allocation import keep_freed_memory
from effvit_med.networks import build_network

torch.set_num_threads(1)
kept = sys.argv[1] == "kept" and keep_freed_memory()
network = build_network(2, 1, 3).eval()
image = torch.zeros(1, 1, 512, 512)
counts = []

def run():
    with torch.inference_mode():
        for _ in range(12):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            network(image)
            counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[2] == "worker":
    worker = threading.Thread(target=run)
    worker.start()
    worker.join()
else:
    run()
print(json.dumps({"kept": kept, "later": statistics.median(counts[5:])}))
"""


def run_python(code: str, *arguments: str, **environment: str) -> Any:
    """What a fresh Python prints, without the allocator's variables of this one."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRE"))}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=plain | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout)


@on_glibc
@pytest.mark.parametrize("thread", ["main", "worker"])
def test_later_passes_find_their_memory_in_place(thread: str) -> None:
    """A repeated forward pass has a twentieth of the page faults or fewer, also in a thread that is not the main one.

    The first passes do not count: the heap grows until the pieces of all layers fit into it side by side.
    """
    default = run_python(FAULTS, "default", thread)
    kept = run_python(FAULTS, "kept", thread)
    assert default["kept"] is False
    assert kept["kept"] is True
    assert default["later"] > 4000  # 16 MiB at least are got anew
    assert kept["later"] * 20 <= default["later"]


@on_glibc
@pytest.mark.parametrize(
    "variable", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1048576"}]
)
def test_choices_of_the_user_stand(variable: dict[str, str]) -> None:
    """Who has tuned the allocator by environment variables is not overruled."""
    assert run_python(ANSWER) is True
    assert run_python(ANSWER, **variable) is False


@on_glibc
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here to make another allocator")
def test_another_allocator_is_left_alone(tmp_path: Path) -> None:
    """A preloaded allocator is noticed, whatever its name is."""
    source = tmp_path / "other.c"
    source.write_text(
        "#include <stddef.h>\nextern void *aligned_alloc(size_t, size_t);\n"
        "int posix_memalign(void **p, size_t a, size_t n) { *p = aligned_alloc(a, n); return *p ? 0 : 12; }\n"
    )
    library = tmp_path / "other.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60)
    assert run_python(ANSWER, LD_PRELOAD=str(library)) is False


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_other_systems_do_nothing(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """Without glibc the answer is no, and nothing is called."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: pytest.fail("a library was opened"))
    assert keep_freed_memory({}) is False


def test_a_c_library_without_mallopt_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As musl's on Alpine Linux."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory({}) is False


@on_glibc
def test_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """If glibc does not know one of the parameters, the answer is no."""

    class Refusing:
        def mallopt(self, parameter: int, value: int) -> int:
            return int(parameter != -8)

    monkeypatch.setattr(allocation, "_find_glibc", Refusing)
    assert keep_freed_memory({}) is False


def test_other_variables_are_no_choice() -> None:
    """Only glibc's own names count; other tunables of glibc are about other things."""
    assert not is_tuned_by_user({"GLIBC_TUNABLES": "glibc.cpu.x86_ibt=on", "MY_MALLOC_": "1", "PATH": "/bin"})
