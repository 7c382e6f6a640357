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


class DaskClusters:
    """A cluster of two worker processes under nannies; a new one where a nanny has lost its worker for good.

    A nanny whose worker died before it had said hello starts no other one.
    """

    def __init__(self, distributed: Any) -> None:
        self._distributed = distributed
        self._stack = contextlib.ExitStack()
        self.cluster: Any = None
        self.client: Any = None

    def provide(self) -> None:
        """See to it that two workers are there, whatever an earlier test did to them."""
        if self.cluster is not None and is_so(lambda: len(list_workers(self.client)) == 2, 20.0):
            return
        self.close()
        make = self._distributed.LocalCluster
        options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
        self.cluster = self._stack.enter_context(make(n_workers=2, threads_per_worker=1, processes=True, **options))
        address = self.cluster.scheduler_address
        self.client = self._stack.enter_context(self._distributed.Client(address, set_as_default=False, timeout=10))
        wait_until(lambda: len(list_workers(self.client)) == 2)

    def close(self) -> None:
        """End the cluster that there is."""
        self._stack.close()


@pytest.fixture(name="dask_clusters", scope="session")
def _dask_clusters() -> Iterator[DaskClusters]:
    distributed = pytest.importorskip("distributed", reason="the optional part cluster is not installed")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    clusters = DaskClusters(distributed)
    yield clusters
    clusters.close()


@pytest.fixture(name="dask_client")
def _dask_client(dask_clusters: DaskClusters) -> Any:
    """A client of a cluster whose two workers are both there."""
    dask_clusters.provide()
    return dask_clusters.client


@pytest.fixture(name="dask_cluster")
def _dask_cluster(dask_client: Any, dask_clusters: DaskClusters) -> Any:
    """The cluster of that client."""
    return dask_clusters.cluster


def is_so(holds: Callable[[], bool], timeout_s: float) -> bool:
    """Whether something comes to hold in time."""
    end = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def wait_until(holds: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Return as soon as something holds; fail if it does not in time."""
    if not is_so(holds, timeout_s):
        pytest.fail(f"did not come about in {timeout_s} s")


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
