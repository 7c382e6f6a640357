"""Facts about `effvit_med.transforms.labelling`: the shortcuts change nothing, and no loop differs from its twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.errors import GeometryError, RefusedError, SettingsError
from effvit_med.transforms import Labeller, label_grid, map_axes, network_grid, resample, strided_grid, tensor_loops
from effvit_med.transforms.axes import axis_weights
from effvit_med.transforms.decision import Decision
from effvit_med.transforms.labelling import confidence_levels
from effvit_med.transforms.loops import SWITCH
from effvit_med.volume import Geometry
from tests.geometries import ORIENTATIONS, geometries

spacings = st.tuples(*[st.floats(0.5, 6.0)] * 3)
seeds = st.integers(0, 10_000)
kinds = st.sampled_from(["noise", "regions", "ties"])
decisions = st.sampled_from(Decision)
marks = st.sampled_from([Decision.LAST, Decision.EACH])


def _scores(kind: str, classes: int, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """(shape, classes) scores: noise everywhere, sure regions with borders, or many equal whole numbers."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.standard_normal((*shape, classes)).astype(np.float32)
    if kind == "ties":
        return rng.integers(0, 2, (*shape, classes)).astype(np.float32)
    places = np.moveaxis(np.indices(shape), 0, -1)
    middles = rng.uniform(0, np.array(shape), (classes, 3))
    distances = np.linalg.norm(places[..., None, :] - middles, axis=-1)
    return (-8 * distances).astype(np.float32)


def _label(
    scores: np.ndarray,
    grid: Geometry,
    target: Geometry,
    rows: int,
    *,
    limited: bool = False,
    decision: Decision = Decision.HIGHEST,
) -> Labeller:
    numbers = range(decision.outcomes(scores.shape[-1]))
    labeller = Labeller(grid, target, numbers, decision=decision, limited=limited)
    for start in range(0, len(scores), rows):
        labeller.push(scores[start : start + rows])
    assert labeller.is_complete
    return labeller


@st.composite
def cases(draw):
    """Scores on the network's grid of a scan, with the scan's geometry and how many rows come at once."""
    geometry = draw(geometries())
    grid = network_grid(geometry, draw(st.sampled_from(ORIENTATIONS)), draw(spacings))
    grid = strided_grid(grid, draw(st.tuples(*[st.sampled_from([1, 2, 4])] * 3)))
    if np.prod(grid.shape) > 30_000:
        grid = strided_grid(grid, (8, 8, 8))
    scores = _scores(draw(kinds), draw(st.integers(2, 6)), grid.shape, draw(seeds))
    return scores, grid, geometry, draw(st.integers(1, 9))


@given(cases())
def test_labels_are_those_of_interpolating_all_classes(case) -> None:
    """Voxel for voxel the argmax of all scores interpolated at full size; where the two best are equal, either."""
    scores, grid, geometry, rows = case
    if map_axes(geometry, grid) is None:
        return  # tilted: the test below looks at it
    labels = _label(scores, grid, geometry, rows).labels
    full = torch.stack([resample(torch.from_numpy(score), grid, geometry) for score in np.moveaxis(scores, -1, 0)])
    top = full.topk(2, dim=0).values
    clear = ((top[0] - top[1]) > 1e-5 * (1 + top[0].abs())).numpy()  # the rounding of two orders of summing
    assert (labels[clear] == full.argmax(dim=0).numpy()[clear]).all()


@given(st.floats(5, 25) | st.floats(-25, -5), st.sampled_from(ORIENTATIONS), kinds, seeds, st.integers(1, 9))
def test_labels_of_a_tilted_scan_too(tilt_degrees: float, orientation: str, kind: str, seed: int, rows: int) -> None:
    """Each voxel has the class that is highest at its own place between the nodes."""
    affine = np.array([[0, 0, 2.0, -40], [0, 2.0, 0, -40], [3.0, 0, 0, 10], [0, 0, 0, 1]])
    affine[1, 0] = 3 * np.tan(np.radians(tilt_degrees))
    scan = Geometry(affine, (9, 14, 15))
    grid = network_grid(scan, orientation, (4.0, 3.0, 3.0))
    scores = _scores(kind, 4, grid.shape, seed)
    labels = _label(scores, grid, scan, rows).labels
    index = grid.world_to_index(scan.index_to_world(np.moveaxis(np.indices(scan.shape), 0, -1)))
    index = np.clip(index, 0, np.array(grid.shape) - 1)
    low = np.maximum(0, np.minimum(index.astype(int), np.array(grid.shape) - 2))
    full = np.zeros((*scan.shape, 4))
    for corner in np.ndindex(2, 2, 2):
        place = np.minimum(low + corner, np.array(grid.shape) - 1)
        weight = np.where(corner, index - low, 1 - (index - low)).prod(axis=-1)
        full += weight[..., None] * scores[place[..., 0], place[..., 1], place[..., 2]]
    best = np.sort(full, axis=-1)
    clear = best[..., -1] - best[..., -2] > 1e-4 * (1 + np.abs(best[..., -1]))
    assert (labels[clear] == full.argmax(axis=-1)[clear]).all()


def _marked(scores: np.ndarray) -> np.ndarray:
    """The scores moved and stretched so that each is often far above 0, often far below, and often near."""
    middle = np.median(scores, axis=(0, 1, 2))
    return ((scores - middle) * np.resize([1.0, 3.0, 9.0], middle.shape)).astype(np.float32)


@given(cases(), marks)
def test_marks_are_those_of_interpolating_all_scores(case, decision: Decision) -> None:
    """The last region above 0, or every structure above 0, voxel for voxel; where a score is next to 0, either."""
    scores, grid, geometry, rows = case
    if map_axes(geometry, grid) is None:
        return
    scores = _marked(scores)
    found = _label(scores, grid, geometry, rows, decision=decision)
    full = np.stack([resample(torch.from_numpy(score), grid, geometry) for score in np.moveaxis(scores, -1, 0)])
    numbers = np.arange(len(full))[:, None, None, None]
    if decision == Decision.LAST:
        expected = np.max((full > 0) * (numbers + 1), axis=0)
        deciding = numbers >= expected - 1
    else:
        expected = np.sum((full > 0) << numbers, axis=0)
        deciding = np.ones(full.shape, bool)
    margin = np.where(deciding, np.abs(full), np.inf).min(axis=0)
    clear = margin > 1e-4 * (1 + np.abs(full).max(axis=0))
    assert (found.labels[clear] == expected[clear]).all()
    confidence = 255 * np.tanh(np.minimum(margin, 20) / 2)
    assert np.abs(found.confidence - confidence)[clear].max(initial=0) <= 1


@settings(max_examples=60)
@given(cases(), decisions)
def test_torch_gives_the_same_as_the_compiled_loops(case, decision: Decision) -> None:
    """Every label and every confidence, ties too, however scores decide."""
    pytest.importorskip("numba")
    case = case if decision == Decision.HIGHEST else (_marked(case[0]), *case[1:])
    compiled = _label(*case, decision=decision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SWITCH, "torch")
        plain = _label(*case, decision=decision)
    assert np.array_equal(compiled.labels, plain.labels)
    assert np.array_equal(compiled.confidence, plain.confidence)


@given(cases(), st.integers(1, 9), decisions)
def test_how_many_rows_come_at_once_does_not_matter(case, rows: int, decision: Decision) -> None:
    """The same labels and confidence from few rows at a time as from many."""
    scores, grid, geometry, first = case
    one, other = (_label(scores, grid, geometry, count, decision=decision) for count in (first, rows))
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.confidence, other.confidence)


@settings(max_examples=30)
@given(cases())
def test_how_many_threads_work_does_not_matter(case) -> None:
    """Three threads give what one gives."""
    one = _label(*case)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        three = _label(*case)
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(one.labels, three.labels)
    assert np.array_equal(one.confidence, three.confidence)


@given(st.floats(0, 20), st.integers(2, 5))
def test_confidence_is_the_margin_of_the_two_best(margin: float, classes: int) -> None:
    """255 tanh(d / 2), to one step, also where all voxels are alike."""
    grid = Geometry(np.eye(4), (3, 3, 3))
    scores = np.zeros((3, 3, 3, classes), np.float32)
    scores[..., 1] = margin
    confidence = _label(scores, grid, grid, 3).confidence
    assert np.abs(confidence - 255 * np.tanh(margin / 2)).max() <= 1


def test_confidence_never_falls_with_the_margin() -> None:
    """The table rises from 0 to 254; beyond it comes 255."""
    levels = confidence_levels().astype(int)
    assert levels[0] == 0
    assert levels[-1] == 254
    assert (np.diff(levels) >= 0).all()


@given(geometries(irregular=False, tilt_degrees=0), st.sampled_from(ORIENTATIONS))
def test_a_part_of_the_grid_labels_only_its_own_voxels(geometry: Geometry, orientation: str) -> None:
    """Limited to a box of nodes, voxels beyond its outer edges stay background without confidence."""
    grid = network_grid(geometry, orientation, (3.0, 3.0, 3.0))
    affine, shape = grid.affine.copy(), tuple(max(1, size // 2) for size in grid.shape)
    affine[:3, 3] += affine[:3, :3] @ (np.array(grid.shape) // 4)
    box = Geometry(affine, shape)
    scores = np.zeros((*shape, 2), np.float32)
    scores[..., 1] = 20
    result = _label(scores, box, geometry, 4, limited=True)
    index = box.world_to_index(geometry.index_to_world(np.moveaxis(np.indices(geometry.shape), 0, -1)))
    inside = ((index > -0.49) & (index < np.array(shape) - 0.51)).all(axis=-1)
    outside = ((index < -0.51) | (index > np.array(shape) - 0.49)).any(axis=-1)
    assert (result.labels[inside] == 1).all()
    assert not result.labels[outside].any()
    assert not result.confidence[outside].any()


def test_label_values_are_written_not_class_numbers() -> None:
    """A value above 255 makes the labels uint16."""
    grid = Geometry(np.eye(4), (2, 2, 2))
    labeller = Labeller(grid, grid, (0, 700))
    labeller.push(np.tile(np.array([0, 1], np.float32), (2, 2, 2, 1)))
    assert labeller.labels.dtype == np.uint16
    assert (labeller.labels == 700).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    """One bad score among thousands is found, not labelled."""
    grid = Geometry(np.eye(4), (4, 9, 9))
    scores = np.zeros((4, 9, 9, 3), np.float32)
    scores[2, 5, 5, 1] = bad
    with pytest.raises(RefusedError, match="not finite numbers"):
        _label(scores, grid, grid, 2)


def test_irregular_nodes_on_a_tilted_scan_are_refused() -> None:
    """The error names the offsets."""
    turned = np.eye(4)
    turned[0, 1] = 0.5
    grid = Geometry(np.eye(4), (3, 4, 4), slice_offsets=(0.0, 1.0, 3.0))
    with pytest.raises(GeometryError, match=r"0\.0, 1\.0, 3\.0"):
        Labeller(grid, Geometry(turned, (3, 4, 4)), (0, 1))


def test_progress_of_label_grid_counts_rows() -> None:
    """The last call says that all rows are done."""
    grid = Geometry(np.eye(4), (5, 2, 2))
    calls: list[tuple[int, int]] = []
    label_grid(torch.zeros(2, 5, 2, 2), grid, grid, lambda done, total: calls.append((done, total)))
    assert calls[-1] == (5, 5)


def test_a_switch_that_says_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable and what it may say."""
    monkeypatch.setenv(SWITCH, "rubbish")
    with pytest.raises(SettingsError, match="EFFVIT_MED_LOOPS is 'rubbish'; it must be torch or numba"):
        label_grid(torch.zeros(2, 2, 2, 2), Geometry(np.eye(4), (2, 2, 2)), Geometry(np.eye(4), (2, 2, 2)))


@given(st.integers(0, 10_000), st.sampled_from(["int16", "uint8", "uint16", "int32", "float32"]))
def test_resampling_and_blending_in_torch_are_the_same_bits(seed: int, kind: str) -> None:
    """The other loops of the two twins: planes, rows and windows, for every type of voxel."""
    compiled = pytest.importorskip("effvit_med.transforms.compiled_loops")
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 200, (5, 9, 11)).astype(kind)
    lines, columns = axis_weights(rng.uniform(0, 8, 6), 9), axis_weights(np.arange(0, 11, 2.3), 11)
    rows = axis_weights(np.arange(0, 5, 1.7), 5)
    logits = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)
    shares = [rng.random(size).astype(np.float32) for size in (3, 4, 5)]
    results = []
    for loops in (compiled, tensor_loops):
        planes = np.empty((5, len(lines), len(columns)), np.float32)
        loops.resample_planes(values, lines.first, lines.weights, columns.first, columns.weights, planes)
        thinned = np.empty((len(rows), planes[0].size), np.float32)
        loops.resample_rows(planes.reshape(5, -1), rows.first, rows.weights, thinned)
        total = np.ones((3, 4, 5, 6), np.float32)
        loops.add_window(total, logits, *shares)
        results.append((planes, thinned, total))
    assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))
