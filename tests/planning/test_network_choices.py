"""Facts about `effvit_med.planning.network_choices` and `effvit_med.planning.training_choices`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import InputError, RefusedError, SettingsError
from effvit_med.networks import build_network
from effvit_med.planning.checks import Examination
from effvit_med.planning.choice import Chooser, read_overrides
from effvit_med.planning.grid_choices import Grid
from effvit_med.planning.network_choices import SMALLEST_MAP, _choose_norm, choose_strides
from effvit_med.planning.plan import Plan, make_plan
from effvit_med.planning.training_choices import choose_mirroring
from effvit_med.planning.training_set import make_table
from effvit_med.volume import LabelTable
from tests.planning.parts import GIB, SMALL, examined, write_case, write_decathlon, write_folders

CUBE = Grid(3, 0, "SPL", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (64, 64, 64), (64, 64, 64))
FAST = ("preset=fullres_tiny",)


def _plan(examination: Examination, *overrides: str, **budget: Any) -> Plan:
    return make_plan(examination, replace(SMALL, **budget), None, read_overrides([*FAST, *overrides]))


@pytest.fixture(name="boxes", scope="module")
def _boxes(tmp_path_factory: pytest.TempPathFactory) -> Examination:
    return examined(write_decathlon(tmp_path_factory.mktemp("boxes")))


steps = st.floats(0.3, 10)
sizes = st.integers(1, 300)


@given(st.tuples(steps, steps, steps), st.tuples(sizes, sizes, sizes), st.sampled_from([[1, 2, 2, 2], [2] * 5]))
def test_axes_are_halved_when_they_are_fine_enough(
    steps_mm: tuple[float, float, float], size: tuple[int, int, int], plain: list[int]
) -> None:
    """Every stage halves something, and no axis twice as coarse as the finest, or too short, is halved with others."""
    strides = choose_strides(plain, Grid(3, 0, "SPL", steps_mm, steps_mm, size, size), size)
    spacing, left = list(steps_mm), [float(n) for n in size]
    for stride, row in zip(plain, strides, strict=True):
        assert max(row) == stride
        halved = [axis for axis in range(3) if row[axis] > 1]
        for axis in halved if len(halved) > 1 else []:
            assert spacing[axis] < 2 * min(spacing)
            assert left[axis] / row[axis] >= SMALLEST_MAP
        spacing = [s * r for s, r in zip(spacing, row, strict=True)]
        left = [n / r for n, r in zip(left, row, strict=True)]


def test_a_plan_builds_and_its_sizes_fit_its_strides(boxes: Examination) -> None:
    """Patch and window are multiples of what the network halves, and near the size of the cases."""
    plan = _plan(boxes)
    network = build_network(**plan.network.arguments)
    assert network.output_stride == (1, 1, 1)
    assert all(size % step == 0 for size, step in zip(plan.network.patch, plan.network.multiple, strict=True))
    assert plan.network.patch == (24, 24, 16)
    assert plan.values["norm"] == "instance"


def test_less_memory_gives_smaller_patches(tmp_path: Path) -> None:
    """Two patches fit, by the same count that the plan states, and the reason names the memory."""
    write_folders(tmp_path, 5, shape=(96, 96, 64))
    examination = examined(tmp_path)
    plans = {memory: _plan(examination, memory_bytes=int(memory * GIB)) for memory in (0.6, 8)}
    small, large = plans[0.6], plans[8]
    voxels = [plan.network.patch[0] * plan.network.patch[1] * plan.network.patch[2] for plan in (small, large)]
    assert voxels[0] < voxels[1]
    assert small.network.step_bytes <= 0.6 * GIB * 1.02
    assert "0.6 GiB" in next(choice.reason for choice in small.choices if choice.name == "patch")


def test_too_little_memory_is_refused(boxes: Examination) -> None:
    """The error says how much is needed."""
    with pytest.raises(SettingsError, match=r"memory is .*need .* GiB"):
        _plan(boxes, memory_bytes=GIB // 4)


def test_a_gpu_gets_a_larger_network_and_more_patches(tmp_path: Path) -> None:
    """With enough cases; planning for it needs none."""
    write_folders(tmp_path, 12)
    examination = examined(tmp_path)
    plan = make_plan(examination, replace(SMALL, device="cuda", memory_bytes=16 * GIB))
    assert plan.values["preset"] == "fullres_base"
    assert plan.values["batch_size"] >= 8
    assert plan.values["norm"] == "batch"


def test_slices_get_the_smallest_network_on_a_processor(boxes: Examination) -> None:
    """A volume gets a larger one of its family."""
    plans = {dims: make_plan(boxes, SMALL, None, read_overrides([f"spatial_dims={dims}"])) for dims in (2, 3)}
    found = {dims: plan.values["preset"] for dims, plan in plans.items()}
    assert found == {2: "fullres_tiny", 3: "fullres_small"}


def test_thick_slices_are_halved_last_and_turned_within(tmp_path: Path) -> None:
    """At 6 mm against 1 mm the slices' axis keeps its voxels, and nothing is turned out of the slices."""
    write_folders(tmp_path, 5, shape=(64, 64, 12), spacing_mm=(1.0, 1.0, 6.0))
    plan = _plan(examined(tmp_path))
    assert plan.network.arguments["stage_strides"][1] == [1, 2, 2]
    assert plan.values["rotate_degrees"][1:] == (0, 0)
    assert plan.values["scale_range"][0] == 0
    assert plan.values["patch"][0] >= 12


@pytest.mark.parametrize(
    ("names", "axes"),
    [
        (("head", "tail"), (2,)),
        (("Left kidney", "Right kidney"), ()),
        (("anterior", "posterior"), (2,)),
        (("liver", "spleen"), ()),
    ],
)
def test_patients_are_mirrored_from_side_to_side_alone(names: tuple[str, str], axes: tuple[int, ...]) -> None:
    """Axes are slices up, rows back, columns left; not at all where sides tell structures apart."""
    chooser = Chooser({})
    table = make_table(dict(enumerate(names, 1)))
    assert table
    choose_mirroring(chooser, CUBE, table, photographs=False)
    assert chooser.choices[0].value == axes


def test_slices_that_lie_each_otherwise_are_mirrored_within_where_there_are_no_sides() -> None:
    """Which axis leads to the left is not known then; pictures are mirrored at will."""
    oblique = replace(CUBE, orientation="slices")
    found = []
    for grid, name, photographs in (
        (oblique, "left atrium", False),
        (oblique, "atrium", False),
        (CUBE, "left eye", True),
    ):
        chooser = Chooser({})
        choose_mirroring(chooser, grid, make_table({1: name}) or LabelTable(()), photographs=photographs)
        found.append(chooser.choices[0].value)
    assert found == [(), (1, 2), (0, 1, 2)]


@pytest.mark.parametrize(
    ("batch", "voxels", "spatial_dims", "norm"),
    [
        (2, 2 * 256 * 256, 2, "batch"),
        (2, 2 * 128 * 128, 2, "instance"),
        (1, 512 * 512, 2, "instance"),
        (2, 2 * 64**3, 3, "instance"),
        (8, 8 * 16**3, 3, "batch"),
    ],
)
def test_batches_are_normalised_where_their_means_hold(batch: int, voxels: int, spatial_dims: int, norm: str) -> None:
    """Many patches, or two large pictures; blocks of a volume are too much alike."""
    assert _choose_norm(Chooser({}), batch, voxels, spatial_dims) == norm


def test_an_override_leads_what_follows_from_it(boxes: Examination) -> None:
    """2D by hand gives a network, a patch and a window of slices."""
    plan = _plan(boxes, "spatial_dims=2", "neighbours=0")
    assert plan.network.arguments["spatial_dims"] == 2
    assert plan.values["patch"][0] == 1
    assert plan.values["mirror_axes"] == (2,)
    build_network(**plan.network.arguments)


@pytest.mark.parametrize("wrong", ["patch=[20,24,16]", "window=[24,24,15]", "stage_strides=[2,2]", "preset=unet"])
def test_an_impossible_override_is_refused(boxes: Examination, wrong: str) -> None:
    """Before anything is written."""
    with pytest.raises(SettingsError, match=wrong.partition("=")[0] if "preset" not in wrong else "unet"):
        _plan(boxes, wrong)


def test_minutes_decide_the_number_of_steps(boxes: Examination) -> None:
    """A step is timed on this machine, and what is planned takes most of the time."""
    plan = _plan(boxes, minutes=2)
    step_s = plan.training.step_s
    assert step_s is not None
    planned = plan.training.epochs * plan.training.steps_per_epoch * step_s
    assert 0.5 * 120 < planned < 120
    assert plan.training.epochs >= 10


def test_a_short_training_has_small_steps(boxes: Examination) -> None:
    """Where minutes leave too few steps, a step has fewer patches, but for a number that a person set."""
    slices = ("spatial_dims=2", "neighbours=0")
    usual, hasty = _plan(boxes, *slices), _plan(boxes, *slices, minutes=0.02)
    kept = _plan(boxes, *slices, "batch_size=8", minutes=0.02)
    assert (usual.network.batch_size, hasty.network.batch_size, kept.network.batch_size) == (8, 2, 8)
    reason = next(choice.reason for choice in hasty.choices if choice.name == "batch_size")
    assert "fewer than 1000 steps in 0.02 minutes" in reason


def test_nothing_marked_is_nothing_to_learn(tmp_path: Path) -> None:
    """A set of empty label maps is refused."""
    write_decathlon(tmp_path, 3, {"7": "nothing"})
    examination = examined(tmp_path)
    with pytest.raises(RefusedError, match="UNKNOWN_LABEL"):
        _plan(examination)
    with pytest.raises(InputError, match=r"nothing to learn|DAMAGED"):
        _plan(replace(examination, problems=()))


def test_the_split_without_groups_is_a_finding(boxes: Examination, tmp_path: Path) -> None:
    """A plan cannot know which scans are of one patient, and says so."""
    assert "NO_GROUPS" in [finding.code for finding in _plan(boxes).findings]
    for seed, name in enumerate(("a_1", "a_2", "b_1", "b_2")):
        write_case(tmp_path, name, seed)
    examination = examined(tmp_path)
    grouped = replace(examination, training_set=examination.training_set.grouped_by("^[ab]"))
    assert "NO_GROUPS" not in [finding.code for finding in _plan(grouped).findings]
