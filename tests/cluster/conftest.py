"""A dask cluster and a SLURM, each of this machine only."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from effvit_med.cluster.window import list_workers

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("one_node_slurm.sh")
START_TIMEOUT_S = 60.0


@pytest.fixture(name="dask_cluster", scope="session")
def _dask_cluster() -> Iterator[Any]:
    """Two worker processes under nannies, which start dead ones anew."""
    distributed = pytest.importorskip("distributed", reason="the optional part cluster is not installed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    )
    with cluster:
        yield cluster


@pytest.fixture(name="dask_connection", scope="session")
def _dask_connection(dask_cluster: Any) -> Iterator[Any]:
    from distributed import Client

    with Client(dask_cluster.scheduler_address, set_as_default=False, timeout=10) as client:
        yield client


@pytest.fixture(name="dask_client")
def _dask_client(dask_connection: Any) -> Any:
    """A client of a cluster whose two workers are both there, whatever an earlier test did to them."""
    wait_until(lambda: len(list_workers(dask_connection)) == 2)
    return dask_connection


def wait_until(holds: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Return as soon as something holds; fail if it does not in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            pytest.fail(f"did not come about in {timeout_s} s")
        time.sleep(0.05)


@dataclass(frozen=True)
class OneNode:
    """A SLURM in a namespace of its own.

    Attributes:
        pid: a process in the namespace.
        folder: where its files are.
    """

    pid: int
    folder: Path

    def command(self, *words: str) -> list[str]:
        """A command as it is run from inside."""
        return ["nsenter", "--target", str(self.pid), "--net", "--pid", "--mount", *words]

    @property
    def environment(self) -> dict[str, str]:
        """With which commands find this SLURM."""
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PYTHONPATH": str(ROOT)}

    def run(self, *words: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, env=self.environment, timeout=timeout_s, check=False
        )

    def effvit(self, *words: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run our command line inside to its end."""
        return self.run(sys.executable, "-m", "effvit_med.cli", *words, timeout_s=timeout_s)


def _why_no_slurm() -> str:
    missing = [
        name
        for name in ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "nsenter", "ip")
        if shutil.which(name) is None
    ]
    if missing:
        return f"{', '.join(missing)} not installed (Debian: slurm-wlm munge util-linux iproute2)"
    return "" if os.geteuid() == 0 else "a network namespace of its own needs root"


@pytest.fixture(name="slurm", scope="session")
def _slurm() -> Iterator[OneNode]:
    """A SLURM of one node that sees no network; skips where it cannot be had."""
    reason = _why_no_slurm()
    if reason:
        pytest.skip(f"no SLURM to try: {reason}")
    # in the folder for temporary files itself: munge wants a socket whose folders all may enter
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    unshare = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "out").open("wb") as out:
        outer = subprocess.Popen([*unshare, "bash", str(SCRIPT), str(folder)], stdout=out, stderr=out)
    try:
        yield OneNode(_wait_until_ready(outer, folder), folder)
    finally:
        outer.kill()  # all that is in the namespace dies with it
        outer.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(outer: subprocess.Popen[bytes], folder: Path) -> int:
    """The process number of the namespace's first process, once the node takes jobs."""
    for _ in range(int(START_TIMEOUT_S / 0.1)):
        if (folder / "ready").exists():
            return psutil.Process(outer.pid).children()[0].pid
        with contextlib.suppress(subprocess.TimeoutExpired):
            outer.wait(0.1)
            break
    pytest.skip(f"SLURM did not start here: {(folder / 'out').read_text(errors='replace')[-500:]}")
