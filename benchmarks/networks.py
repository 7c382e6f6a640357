"""What our networks cost beside their peers: time, memory and products for one full-resolution output, and its growth.

Run from the repository's root: ``python -m benchmarks.networks``; about half an hour of one thread. Each network is
first run alone in a fresh process, with glibc's default allocator: that gives the peaks of memory and the estimates.
Then all of them take turns in one process at each size, so that a busy machine slows them alike, and the median of the
process's CPU time is kept, not wall time. Finished parts are kept as they come, and ``--resume`` goes on from there.
Needs the ``train`` extra, for MONAI, and transformers and matplotlib.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.network_list import NETWORKS, Entry
from benchmarks.network_measuring import Conditions, Measurement, measure_fresh, measure_in_turns
from benchmarks.network_plots import draw
from benchmarks.network_report import list_headlines, to_markdown
from benchmarks.report import RESULTS, Circumstances, describe_circumstances, write_report
from effvit_med.engine.allocation import keep_freed_memory

EDGES = {2: (256, 512, 1024, 2048), 3: (64, 96, 128, 160)}

#: What needs more memory than this does not take turns: a heap that is kept and shared by networks of such different
#: sizes breaks into pieces, and grew to three times the largest need when they all did.
TURNS_MIB = 4096


@dataclass
class Progress:
    """The measurements so far, kept in a file so that an interrupted run can go on.

    Attributes:
        path: the file.
        conditions: of the run.
        found: the measurements by number of axes, network and edge.
    """

    path: Path
    conditions: Conditions
    found: dict[tuple[int, str, int], Measurement] = field(default_factory=dict)

    def load(self) -> None:
        """Take up what an earlier run left.

        Raises:
            SystemExit: if it was made under other conditions.
        """
        if not self.path.exists():
            return
        content = json.loads(self.path.read_text(encoding="utf-8"))
        if content["conditions"] != asdict(self.conditions):
            raise SystemExit(f"{self.path.name} was made under {content['conditions']}; resume it so, or delete it.")
        for values in content["measurements"]:
            self.keep(Measurement.from_values(values), write=False)

    def keep(self, measurement: Measurement, *, write: bool = True) -> None:
        """Add a measurement, or put it in the place of the earlier one, and write the file.

        Args:
            measurement: of one network at one size.
            write: whether to write the file now.
        """
        self.found[measurement.spatial_dims, measurement.network, measurement.edge] = measurement
        if write:
            content = {"conditions": asdict(self.conditions), "measurements": [asdict(m) for m in self.found.values()]}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_suffix(".part")
            beside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            beside.replace(self.path)

    def in_order(self, entries: Sequence[Entry], edges: Sequence[int]) -> list[Measurement]:
        """Those of some networks and sizes, in the order of the tables."""
        keys = [(entry.spatial_dims, entry.name, edge) for entry in entries for edge in edges]
        return [self.found[key] for key in keys if key in self.found]


def measure_alone(entry: Entry, edges: Sequence[int], progress: Progress) -> None:
    """One network in a process of its own, unless it was done before.

    Args:
        entry: the network.
        edges: its sizes, ascending.
        progress: takes the measurements; where the process dies, they say so.
    """
    done = [each for each in progress.in_order([entry], edges) if not each.skipped.startswith("failed")]
    if len(done) == len(edges):
        return
    request = {"name": entry.name, "spatial_dims": entry.spatial_dims, "edges": list(edges)}
    command = [sys.executable, "-m", "benchmarks.networks", "--alone", json.dumps(request)]
    command.append(json.dumps(asdict(progress.conditions)))
    say(f"{entry.spatial_dims}D {entry.name}: alone")
    missing = list(edges)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            measurement = Measurement.from_values(json.loads(line))
            missing.remove(measurement.edge)
            progress.keep(measurement)
            taken = measurement.skipped or f"{measurement.fresh_time:.3f} s, {measurement.peak_mib:.0f} MiB"
            say(f"    {measurement.edge}: {taken}")
    for edge in missing:
        why = f"failed ({process.returncode})"  # its traceback, if any, stands above
        progress.keep(Measurement(entry.name, entry.spatial_dims, edge, 0, 0.0, skipped=why))
        say(f"    {edge}: {why}")


def measure_together(entries: Sequence[Entry], edge: int, progress: Progress) -> None:
    """All networks of one number of axes at one size, turn by turn, unless they were done before.

    Args:
        entries: the networks.
        edge: the size.
        progress: knows them from their fresh processes, and takes the measurements.
    """
    known = progress.in_order(entries, [edge])
    for fresh in known:
        if not fresh.skipped and (fresh.peak_mib or 0.0) > TURNS_MIB and progress.conditions.device == "cpu":
            why = f"only alone, in {fresh.fresh_time:.3g} s: {fresh.peak_mib:.0f} MiB are too much beside the others"
            progress.keep(replace(fresh, skipped=why))
    known = progress.in_order(entries, [edge])
    taking_part = [(entry, fresh) for entry, fresh in zip(entries, known, strict=True) if not fresh.skipped]
    if all(fresh.seconds for _, fresh in taking_part):
        return
    say(f"{entries[0].spatial_dims}D, {edge}: {len(taking_part)} networks in turns")
    chosen, before = zip(*taking_part, strict=True)
    for measurement in measure_in_turns(chosen, before, progress.conditions):
        progress.keep(measurement)
        say(f"    {measurement.network}: {measurement.time:.3f} s ({len(measurement.seconds)} calls)")


def say(text: str) -> None:
    """One line of progress on stderr, with the minutes since the start."""
    print(f"[{(time.monotonic() - _START) / 60:5.1f} min] {text}", file=sys.stderr, flush=True)


def answer_alone(request: dict[str, Any], conditions: Conditions) -> None:
    """The work of the process of one network: a line of JSON for each size.

    Args:
        request: its name, number of axes and sizes.
        conditions: of the run.
    """
    entry = next(e for e in NETWORKS if (e.name, e.spatial_dims) == (request["name"], request["spatial_dims"]))
    for measurement in measure_fresh(entry, request["edges"], conditions):
        print(json.dumps(asdict(measurement)), flush=True)


def choose_name(conditions: Conditions) -> str:
    """The stem of the results: ``networks``, and what differs from the usual conditions.

    Args:
        conditions: of the run.

    Examples:
        >>> choose_name(Conditions()), choose_name(Conditions(device="cuda", precision="bfloat16", batch=8))
        ('networks', 'networks_cuda_bfloat16_batch8')
    """
    usual = Conditions()
    words = [
        value
        for value, plain in (
            (conditions.device, usual.device),
            (conditions.precision, usual.precision),
            (conditions.runtime, usual.runtime),
            (conditions.allocator if conditions.device == "cpu" else usual.allocator, usual.allocator),
        )
        if value != plain
    ]
    words += [f"batch{conditions.batch}"] if conditions.batch != usual.batch else []
    return "_".join(["networks", *words])


def run(conditions: Conditions, entries: Sequence[Entry], edges: Sequence[int], name: str, *, resume: bool) -> None:
    """Measure, write the tables and draw the pictures.

    Args:
        conditions: of the run.
        entries: the networks.
        edges: the sizes, of 2D and 3D together.
        name: stem of the results.
        resume: whether to go on with an interrupted run.

    Raises:
        SystemExit: if the allocator cannot be set, or the interrupted run had other conditions.
    """
    if conditions.device == "cpu":
        torch.set_num_threads(1)
        if conditions.allocator == "kept" and not keep_freed_memory():
            raise SystemExit("glibc's allocator is not here or is tuned by the environment: take --allocator default.")
    progress = Progress(RESULTS / f"{name}.partial.json", conditions)
    if resume:
        progress.load()
    measurements = []
    for dims, usual in EDGES.items():
        mine = [entry for entry in entries if entry.spatial_dims == dims]
        sizes = [edge for edge in usual if edge in edges]
        for entry in mine:
            measure_alone(entry, sizes, progress)
        for edge in sizes if mine else ():
            measure_together(mine, edge, progress)
        measurements += progress.in_order(mine, sizes)
    write(name, measurements, conditions, entries, describe_circumstances("benchmarks.networks"))
    progress.path.unlink(missing_ok=True)


def redraw(name: str, entries: Sequence[Entry]) -> None:
    """Write the tables and draw the pictures of an earlier run again; nothing is measured, its circumstances stay.

    Args:
        name: stem of the results.
        entries: the networks.
    """
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    made = Circumstances(**{each.name: content[each.name] for each in fields(Circumstances)})
    measurements = [Measurement.from_values(values) for values in content["measurements"]]
    write(name, measurements, Conditions(**content["conditions"]), entries, made)


def write(
    name: str, measurements: list[Measurement], conditions: Conditions, entries: Sequence[Entry], made: Circumstances
) -> None:
    """The tables, the figures and the pictures of a run.

    Args:
        name: stem of the results.
        measurements: of all networks.
        conditions: of the run.
        entries: the networks.
        made: its circumstances.
    """
    ours = {dims: [each.name for each in entries if each.is_ours and each.spatial_dims == dims] for dims in EDGES}
    figures = {
        "conditions": asdict(conditions),
        "headlines": list_headlines(measurements, ours[2]),
        "measurements": [asdict(each) for each in measurements],
    }
    write_report(name, to_markdown(measurements, conditions, ours[2]), figures, made)
    for dims in EDGES:
        shown = [each for each in measurements if each.spatial_dims == dims]
        if any(each.seconds for each in shown):
            draw(shown, ours[dims], conditions, RESULTS / f"{name}_{dims}d.png")


def main() -> None:
    """Reads the command line and measures."""
    usual = Conditions()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default=usual.device)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=usual.precision)
    parser.add_argument("--runtime", choices=("eager", "compile"), default=usual.runtime)
    parser.add_argument("--allocator", choices=("kept", "default"), default=usual.allocator)
    parser.add_argument("--batch", type=int, default=usual.batch, help="images at a time")
    parser.add_argument("--budget", type=float, default=usual.budget_s, help="seconds for all calls of one at a size")
    parser.add_argument("--limit", type=float, default=usual.limit_s, help="leave out calls estimated above so many s")
    parser.add_argument("--memory", type=float, default=usual.limit_mib, help="or above so many MiB")
    parser.add_argument("--edges", type=int, nargs="+", default=[e for es in EDGES.values() for e in es])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks, by names as in the tables")
    parser.add_argument("--name", help="stem of the results; told by the conditions where left out")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--redraw", action="store_true", help="write tables and pictures of an earlier run again")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        request, conditions = (json.loads(word) for word in given.alone)
        if conditions["device"] == "cpu":
            torch.set_num_threads(1)
        answer_alone(request, Conditions(**conditions))
        return
    conditions = Conditions(
        device=given.device,
        precision=given.precision,
        runtime=given.runtime,
        allocator=given.allocator,
        batch=given.batch,
        budget_s=given.budget,
        limit_s=given.limit,
        limit_mib=given.memory,
    )
    unknown = set(given.only or ()) - {entry.name for entry in NETWORKS}
    if unknown:
        parser.error(f"there is no network {sorted(unknown)}; there are {sorted({e.name for e in NETWORKS})}")
    entries = [entry for entry in NETWORKS if not given.only or entry.name in given.only]
    if given.redraw:
        redraw(given.name or choose_name(conditions), entries)
        return
    run(conditions, entries, given.edges, given.name or choose_name(conditions), resume=given.resume)


_START = time.monotonic()

if __name__ == "__main__":
    main()
