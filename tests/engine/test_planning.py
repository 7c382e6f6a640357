"""The plan of a run: its parts, its limit and its ladder."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from effvit_med.engine import planning
from effvit_med.engine.footprint import PROCESSOR
from effvit_med.engine.memory import MIB, MachineMemory, NetworkMemory
from effvit_med.engine.planning import CaseSize, Plan, PlanOptions, plan_run
from effvit_med.errors import RefusedError, SettingsError
from effvit_med.transforms.pipeline import PreparingMemory

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZE = CaseSize((300, 512, 512), 2, (200, 280, 280), 14, (2, 2, 2))
OPTIONS = PlanOptions(
    device=CPU,
    precision="float32",
    window=(64, 96, 96),
    overlap=0.5,
    batch_size=4,
    spatial_dims=3,
    slices_per_input=1,
    smallest_window=(32, 32, 32),
    memory_limit_bytes=4096 * MIB,
    accelerator_limit_bytes=4096 * MIB,
    process_bytes=300 * MIB,
)
ON_CUDA = replace(OPTIONS, device=CUDA)


def _network(tile: tuple[int, ...]) -> NetworkMemory:
    return NetworkMemory(4 * MIB, 150 * math.prod(tile))


def _plan(options: PlanOptions = OPTIONS, size: CaseSize = SIZE, mib: int | None = None, vram: int = 4096) -> Plan:
    limit = options.memory_limit_bytes if mib is None else mib * MIB
    return plan_run(size, replace(options, memory_limit_bytes=limit, accelerator_limit_bytes=vram * MIB), _network)


def _parts(plan: Plan) -> dict[str, int]:
    return {part.name: part.bytes for part in plan.parts}


cases = st.builds(
    CaseSize,
    shape=st.tuples(*[st.integers(1, 400)] * 3),
    item_bytes=st.sampled_from([1, 2, 4]),
    grid=st.tuples(*[st.integers(12, 50).map(lambda n: 8 * n)] * 3),
    classes=st.integers(2, 300),
    stride=st.sampled_from([(1, 1, 1), (2, 2, 2), (1, 4, 4)]),
    confidence=st.booleans(),
    scan_in_memory=st.booleans(),
)
wishes = st.builds(
    replace,
    st.sampled_from([OPTIONS, ON_CUDA]),
    window=st.sampled_from([(64, 96, 96), (96, 96, 96), (32, 64, 40)]),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.7]),
    batch_size=st.integers(1, 9),
    keeps_freed_memory=st.booleans(),
)
limits = st.integers(350, 6000)


@given(cases, wishes, limits, limits)
def test_a_plan_never_exceeds_its_limits(size: CaseSize, options: PlanOptions, mib: int, vram: int) -> None:
    """Whatever the case and the limits: what is planned fits everywhere, or the case is refused with the figures."""
    refusal: RefusedError | None = None
    try:
        plan = _plan(options, size, mib, vram)
    except RefusedError as error:
        refusal = error
    if refusal:
        assert refusal.code == "NOT_ENOUGH_MEMORY"
        assert f" of {mib}.0 MiB" in str(refusal) or f" of {vram}.0 MiB" in str(refusal)
        return
    assert plan.fits
    assert all(plan.total_bytes[place] <= limit for place, limit in plan.limit_bytes.items())
    assert sum(plan.total_bytes.values()) == sum(part.bytes for part in plan.parts)
    assert all(length % step == 0 for length, step in zip(plan.window, size.stride, strict=True))


@given(cases, wishes, limits, st.integers(0, 3000), limits, st.integers(0, 3000))
def test_more_memory_never_gives_less(
    size: CaseSize, options: PlanOptions, mib: int, more: int, vram: int, more_vram: int
) -> None:
    """On one device more memory gives windows at least as large and, of one size, at least as many at a time."""
    try:
        small = _plan(options, size, mib, vram)
    except RefusedError:
        assume(False)
    large = _plan(options, size, mib + more, vram + more_vram)
    if small.device == large.device:
        assert all(a <= b for a, b in zip(small.window, large.window, strict=True))
        assert small.window != large.window or small.batch_size <= large.batch_size
    elif large.device == CPU:
        pytest.fail("more memory moved the network to the processor")


@given(cases, wishes, st.integers(2, 256))
def test_classes_count_in_the_named_parts_only(size: CaseSize, options: PlanOptions, classes: int) -> None:
    """Another number of classes changes the scores, the slab and the logits, and nothing else."""
    few, many = (
        plan_run(
            replace(size, classes=number),
            replace(options, memory_limit_bytes=2**60, accelerator_limit_bytes=2**60),
            _network,
        )
        for number in (2, classes)
    )
    named = {"rolling scores", "finished slab", "activations", "logits on their way"}
    changed = {name for name, count in _parts(few).items() if count != _parts(many)[name]}
    assert changed <= named
    for name in ("rolling scores", "finished slab"):
        assert _parts(many)[name] * 2 == _parts(few)[name] * classes


@given(st.integers(1, 20))
def test_only_labels_and_scan_grow_with_the_slices(times: int) -> None:
    """A scan of many times the slices needs more for its labels, its confidence and itself, and for nothing else."""
    longer = replace(SIZE, shape=(300 * times, 512, 512), grid=(200 * times, 280, 280))
    one, many = (_parts(_plan(size=size, mib=2**30)) for size in (SIZE, longer))
    assert {name for name in one if one[name] != many[name]} <= {"scan", "labels", "confidence"}


def test_the_formulas_of_the_parts() -> None:
    """Each part of a known case has the size that can be worked out by hand."""
    parts = _parts(_plan())
    assert parts["prepared rows"] == (3 * 64 + 32) * 280 * 280 * 4
    assert parts["rolling scores"] == (32 + 16) * 140 * 140 * 14 * 4
    assert parts["finished slab"] == (16 + 2) * 140 * 140 * 14 * 4
    assert parts["tiles"] == 4 * 64 * 96 * 96 * 4
    assert parts["scan"] == 2 * parts["labels"] == 2 * parts["confidence"] == 2 * 300 * 512 * 512
    assert parts["process before the scan"] == 300 * MIB


def test_what_is_not_wanted_takes_nothing() -> None:
    """A scan left on disk and a confidence nobody wants have no part; many structures take two bytes a voxel."""
    parts = _parts(_plan(size=replace(SIZE, confidence=False, scan_in_memory=False, classes=300)))
    assert not {"scan", "confidence"} & set(parts)
    assert parts["labels"] == 2 * 300 * 512 * 512


PREPARING = PreparingMemory(scratch_bytes=1, device_bytes=2, thin_bytes=4, held_bytes=8)


def test_what_preparing_takes_lies_where_the_rows_lie() -> None:
    """On an accelerator the rows and the grid for percentiles lie there; a thinned scan stays on the processor."""
    plan = _plan(ON_CUDA, replace(SIZE, preparing=PREPARING))
    places = {part.name: (part.where, part.bytes) for part in plan.parts}
    assert places["resampling"] == (PROCESSOR, 1)
    assert places["resampling on the accelerator"] == ("cuda", 2)
    assert places["tilted scan, thinned"] == (PROCESSOR, 4)
    assert places["grid for percentiles"] == ("cuda", 8)
    assert places["prepared rows"][0] == places["tiles"][0] == "cuda"


def test_on_a_processor_everything_that_preparing_takes_is_there() -> None:
    """Without an accelerator there is one place, and nothing of the accelerator's is counted."""
    parts = {part.name: part for part in _plan(size=replace(SIZE, preparing=PREPARING)).parts}
    assert "resampling on the accelerator" not in parts
    assert parts["grid for percentiles"].where == PROCESSOR


def test_mirrors_and_folds_keep_logits() -> None:
    """Mirroring keeps a mean and a mirror of the logits and a mirrored tile; folds keep a mean and a sum."""
    plain, both = _parts(_plan()), _parts(_plan(replace(OPTIONS, mirror=True, folds=5)))
    logits, tiles = 4 * 4 * 14 * 32 * 48 * 48, 4 * 4 * 64 * 96 * 96
    assert {name: both[name] for name in set(both) - set(plain)} == {
        "mirroring": 2 * logits + tiles,
        "mean of the folds": 2 * logits,
    }


def test_what_fits_stays_as_it_was_asked_for() -> None:
    """With memory enough there is no remedy and no finding."""
    plan = _plan()
    assert (plan.window, plan.batch_size, plan.device, plan.slab_device) == ((64, 96, 96), 4, CPU, CPU)
    assert plan.rungs == ()
    assert plan.findings() == ()
    assert "Everything fits" in plan.to_text()


def test_batches_give_way_before_windows() -> None:
    """The first remedy is fewer windows at a time, and it changes no labels."""
    plan = _plan(mib=1000)
    assert (plan.window, plan.batch_size) == ((64, 96, 96), 1)
    assert plan.rungs[0].startswith("2 windows at a time in place of 4: 1254.6 of 1000.0 MiB on the processor")
    assert plan.findings() == ()


def test_smaller_windows_are_a_finding() -> None:
    """Where windows give way, labels can change, and the user is told so with both sizes."""
    plan = _plan(mib=850)
    assert (plan.window, plan.batch_size) == ((64, 48, 48), 1)
    (finding,) = plan.findings()
    assert finding.code == "SMALLER_WINDOWS"
    assert "64 x 48 x 48 voxels in place of the 64 x 96 x 96" in finding.message


def test_on_a_processor_no_scores_are_moved() -> None:
    """Scores that are on the processor already are not moved there."""
    assert not any("Scores" in rung for rung in _plan(mib=800).rungs)


def test_scores_move_before_windows_shrink() -> None:
    """On a full accelerator the scores go to the processor while windows keep their size."""
    size = replace(SIZE, classes=105)
    plan = _plan(ON_CUDA, size, vram=700)
    assert (plan.device, plan.slab_device, plan.window) == (CUDA, CPU, (64, 96, 96))
    assert any(rung.startswith("Scores added up on the processor and not on cuda") for rung in plan.rungs)
    assert {part.where for part in plan.parts if part.name == "rolling scores"} == {PROCESSOR}


def test_scores_do_not_move_to_a_processor_without_room() -> None:
    """Scores that would fill the processor stay on the accelerator, and windows give way."""
    size = replace(SIZE, classes=105)
    plan = _plan(ON_CUDA, size, mib=800, vram=700)
    assert not any("Scores" in rung for rung in plan.rungs)
    assert plan.slab_device == CUDA
    assert plan.window != (64, 96, 96)


def test_the_processor_gets_what_was_asked_for() -> None:
    """Where the accelerator is too small for anything, the processor runs the windows and batches of the bundle."""
    plan = _plan(ON_CUDA, vram=100)
    assert (plan.device, plan.slab_device, plan.window, plan.batch_size) == (CPU, CPU, (64, 96, 96), 4)
    assert len(plan.rungs) == 1
    assert plan.rungs[0].startswith("The processor in place of cuda")
    assert plan.findings() == ()
    assert set(plan.total_bytes) == {PROCESSOR}


def test_a_full_processor_is_no_reason_to_move_there() -> None:
    """If the processor is short, nothing is moved from the accelerator to it: the case is refused for its memory."""
    with pytest.raises(RefusedError, match=r"of 500\.0 MiB on the processor would be needed"):
        _plan(ON_CUDA, mib=500)


def test_a_case_that_cannot_fit_is_refused_with_the_figures() -> None:
    """The refusal says what the smallest plan needs and what there is."""
    with pytest.raises(RefusedError, match=r"NOT_ENOUGH_MEMORY: Even with windows of 32 x 32 x 32 .* of 400\.0 MiB"):
        _plan(mib=400)


def test_slices_of_a_2d_network_give_way_without_a_finding() -> None:
    """Slices do not see one another: fewer of them at a time change no labels and are no finding."""
    options = replace(OPTIONS, spatial_dims=2, slices_per_input=3, window=(16, 256, 256), smallest_window=(1, 32, 32))
    size = replace(SIZE, stride=(1, 2, 2))
    wide = _plan(options, size, 8192)
    assert _parts(wide)["tiles"] == 4 * (4 * 16) * 3 * 256 * 256
    assert _parts(wide)["prepared rows"] == (3 * (16 + 2) + 16) * 280 * 280 * 4
    narrow = _plan(options, size, 1000)
    assert narrow.batch_size == 1
    assert narrow.window == (4, 256, 256)
    assert narrow.findings() == ()


def test_without_a_limit_a_share_of_what_is_free_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is what the process holds and 80 % of what is free; an accelerator's is 80 % of its own."""
    free = {"cpu": 1000 * MIB, "cuda": 2000 * MIB}
    monkeypatch.setattr(planning, "machine_memory", lambda device: MachineMemory(2**40, free[device.type]))
    options = replace(ON_CUDA, memory_limit_bytes=None, accelerator_limit_bytes=None)
    plan = plan_run(SIZE, options, _network)
    assert plan.limit_bytes == {PROCESSOR: 1100 * MIB, "cuda": 1600 * MIB}


def test_a_plan_is_plain_values_and_text() -> None:
    """The record gets every part in bytes; people get them in MiB, with the sum, the limit and the remedies."""
    plan = _plan(mib=850)
    plain = json.loads(json.dumps(plan.to_dict()))
    assert plain["window"] == [64, 48, 48]
    assert plain["total_bytes"][PROCESSOR] == sum(part["bytes"] for part in plain["parts"])
    assert plain["remedies"] == list(plan.rungs)
    text = plan.to_text()
    assert "rolling scores                50.2\n" in text
    assert "limit                        850.0\n" in text
    assert "  1. 2 windows at a time in place of 4" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"memory_limit_bytes": 0}, "memory limit is 0 bytes"),
        ({"accelerator_limit_bytes": -1}, "accelerator limit is -1 bytes"),
        ({"batch_size": 0}, "batch size is 0"),
    ],
)
def test_wrong_options_are_refused(change: dict[str, int], words: str) -> None:
    """A limit or a batch that cannot be is named with its value."""
    with pytest.raises(SettingsError, match=words):
        replace(OPTIONS, **change)


def test_a_window_beside_the_stride_is_refused() -> None:
    """A window that is no multiple of the output stride is named with both."""
    with pytest.raises(SettingsError, match=r"\(63, 96, 96\) must be a multiple of the output stride \(2, 2, 2\)"):
        _plan(replace(OPTIONS, window=(63, 96, 96)))


GROWTH = """
import sys, threading, time
import numpy as np
from effvit_med.engine import Segmenter, Settings
from effvit_med.engine.memory import process_bytes
from effvit_med.engine.model import read_model
from effvit_med.transforms.loops import inner_loops
from effvit_med.volume import Geometry, Volume

inner_loops()
array = np.random.default_rng(0).integers(-1000, 1000, (120, 256, 256)).astype(np.int16)
scan = Volume(array, Geometry(np.diag([3.0, 1.5, 1.5, 1.0])[[2, 1, 0, 3]], array.shape), "CT")
held = process_bytes() - array.nbytes
segmenter = Segmenter(read_model(sys.argv[1]), Settings(device="cpu", threads=1))
planned = sum(part.bytes for part in segmenter.plan(scan).parts if part.name != "process before the scan")
peak, done = [0], threading.Event()

def watch():
    while not done.wait(0.002):
        peak[0] = max(peak[0], process_bytes())

thread = threading.Thread(target=watch)
thread.start()
segmenter.segment(scan)
done.set()
thread.join()
print(planned, peak[0] - held)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")
def test_the_plan_is_no_less_than_what_a_process_grows_by(tiny_bundle: Path) -> None:
    """A case segmented in a process of its own takes no more memory than was planned, measured every 2 ms."""
    run = [sys.executable, "-W", "ignore", "-c", GROWTH, str(tiny_bundle)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    planned, grown = map(int, done.stdout.split())
    assert grown <= planned
