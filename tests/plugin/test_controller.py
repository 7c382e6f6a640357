"""The panel's work, done with napari's viewer model and no window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from effvit_med.engine import Segmenter, Settings, open_model
from effvit_med.io import open_input, read_case
from effvit_med.volume import Geometry, Volume

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")
from napari_effvit_med.controller import Controller  # noqa: E402  after the check above
from napari_effvit_med.layers import METADATA_KEY  # noqa: E402
from napari_effvit_med.scans import volume_of  # noqa: E402
from napari_effvit_med.tasks import Task  # noqa: E402


@pytest.fixture(name="controller")
def _controller() -> Controller:
    return Controller(components.ViewerModel(), start=Task.run_here)


def _open(controller: Controller, folder: Path) -> None:
    controller.look(folder)
    controller.poll()
    controller.open_scan(controller.rows[0])
    controller.poll()


def test_a_scan_is_listed_and_opened(controller: Controller, sample_data: Path) -> None:
    """Looking lists the series, opening shows it in its place."""
    _open(controller, sample_data / "ct_nonsquare")
    assert not controller.running
    (layer,) = controller.viewer.layers
    assert layer.data.shape == (20, 112, 144)
    assert tuple(layer.scale) == pytest.approx((8, 3, 2.4))
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3


@pytest.mark.parametrize("columns", [3, 4])
def test_a_narrow_scan_is_no_colour_picture(controller: Controller, columns: int) -> None:
    """Napari takes three or four columns for colours unless it is told otherwise."""
    shape = (5, 6, columns)
    affine = np.diag([5.0, 2.0, 2.0, 1.0])[[2, 1, 0, 3]]
    controller.show_volume(Volume(np.zeros(shape, np.uint8), Geometry(affine, shape), "CT"))
    assert controller.viewer.layers[0].data.shape == shape
    assert controller.image_layers()


def test_a_tilted_scan_says_so(controller: Controller, sample_data: Path) -> None:
    """The message tells that the gantry was tilted."""
    _open(controller, sample_data / "ct_tilted")
    assert "tilted by 15.0 degrees" in controller.message


def test_a_refused_scan_is_not_opened(controller: Controller, sample_data: Path) -> None:
    """The message says why."""
    _open(controller, sample_data / "ct_missing_slice")
    assert len(controller.viewer.layers) == 0
    assert controller.is_error
    assert "missing" in controller.message


def test_segmenting_gives_the_engine_s_labels_on_the_source_grid(
    controller: Controller, sample_data: Path, tiny_bundle: Path
) -> None:
    """The layer shows, voxel for voxel, what the engine says of the same scan."""
    assert controller.choose_model(tiny_bundle)
    controller.device = "cpu"
    _open(controller, sample_data / "ct_nonsquare")
    controller.segment(controller.viewer.layers[0])
    controller.poll()
    with open_input(sample_data / "ct_nonsquare") as found:
        volume = read_case(found.cases[0])
    wanted = Segmenter(open_model(tiny_bundle), Settings(device="cpu")).segment(volume).labels
    layer = controller.desk.layer
    record = layer.metadata[METADATA_KEY]
    np.testing.assert_array_equal(record.grid.unview(layer.data), wanted)
    assert wanted.any()
    assert controller.result is not None
    assert controller.desk.opened is not None
    assert np.shares_memory(layer.data, controller.desk.opened.session.labels)
    controller.close()
    assert [row.structure for row in controller.result.rows] == list(controller.card.structures)
    assert tuple(layer.translate) == pytest.approx(tuple(controller.viewer.layers[0].translate))


def test_a_layer_of_another_plugin_is_segmented_where_it_lies(controller: Controller, tiny_bundle: Path) -> None:
    """Labels of a plain image layer with scale and translate overlay it."""
    controller.choose_model(tiny_bundle)
    controller.device = "cpu"
    values = np.random.default_rng(0).integers(-200, 300, (20, 40, 44)).astype(np.int16)
    layer = controller.viewer.add_image(values, scale=(5, 3, 3), translate=(-50, 7, 9), name="other")
    controller.segment(layer)
    controller.poll()
    labels = controller.desk.layer
    assert labels.name == "other structures"
    assert tuple(labels.scale) == pytest.approx((5, 3, 3))
    assert tuple(labels.translate) == pytest.approx((-50, 7, 9))
    assert labels.units == layer.units  # else napari shows no units at all


def test_a_layer_of_another_plugin_beside_an_oblique_scan_keeps_its_voxels(
    controller: Controller, tiny_bundle: Path
) -> None:
    """Its labels lie on its own voxels, not turned into the frame of the scan."""
    turn = np.radians(20)
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    oblique = Geometry(affine, (30, 30, 30))
    controller.show_volume(Volume(np.zeros(oblique.shape, np.int16), oblique, "MR"))
    controller.choose_model(tiny_bundle)
    layer = controller.viewer.add_image(np.zeros((20, 40, 44), np.int16), scale=(5, 3, 3), units="mm")
    controller.segment(layer)
    controller.poll()
    labels = controller.desk.layer
    assert labels.data.shape == layer.data.shape
    assert not labels.metadata[METADATA_KEY].is_resampled


def test_a_plain_layer_lies_where_napari_draws_it(controller: Controller) -> None:
    """Its voxels have the world (-z, y, x) that napari says, also with negative steps."""
    layer = controller.viewer.add_image(np.zeros((3, 4, 5), np.float32), scale=(-2, 3, 4), translate=(5, 6, 7))
    volume = volume_of(layer)
    low, high = volume.geometry.corners_world().min(axis=0), volume.geometry.corners_world().max(axis=0)
    np.testing.assert_allclose(low, [7 - 2, 6 - 1.5, -(5 + 1)])
    np.testing.assert_allclose(high, [7 + 18, 6 + 10.5, -(5 - 5)])


def test_a_second_scan_lies_in_the_frame_of_the_first(controller: Controller) -> None:
    """Two fields of view of one oblique patient overlay point for point."""
    turn = np.radians(20)
    affine = np.eye(4)
    affine[:3, :3] = [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    first = Geometry(affine, (30, 30, 30))
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ [4, 5, 6]
    for geometry in (first, Geometry(moved, (8, 9, 10))):
        controller.show_volume(Volume(np.zeros(geometry.shape, np.int16), geometry, "MR"))
    one, two = controller.viewer.layers
    np.testing.assert_allclose(np.array(two.translate), np.add(one.translate, [29 - 6 - 9, 5, 4]), atol=1e-6)


def test_what_is_no_model_leaves_the_old_one(controller: Controller, tmp_path: Path) -> None:
    """A wrong folder is said, and nothing changes."""
    before = controller.card
    assert not controller.choose_model(tmp_path)
    assert controller.card is before
    assert controller.is_error


def test_only_one_task_at_a_time_and_none_after_closing(sample_data: Path) -> None:
    """A second wish is refused in words; what comes after closing is dropped."""
    waiting: list[Task] = []

    def keep(task: Task) -> Task:
        waiting.append(task)
        return task

    controller = Controller(components.ViewerModel(), start=keep)
    controller.look(sample_data / "ct_nonsquare")
    controller.look(sample_data / "ct_axial")
    assert len(waiting) == 1
    assert "not finished" in controller.message
    controller.close()
    waiting[0].run_here()
    controller.poll()
    assert controller.rows == ()


def test_cancelling_leaves_no_layer(sample_data: Path, tiny_bundle: Path) -> None:
    """A run that is stopped before it began adds nothing and says so."""
    tasks: list[Any] = []

    def stopped(task: Task) -> Task:
        tasks.append(task)
        if task.name == "Segmenting":
            task.stop()
        return task.run_here()

    controller = Controller(components.ViewerModel(), start=stopped)
    controller.choose_model(tiny_bundle)
    _open(controller, sample_data / "ct_nonsquare")
    controller.segment(controller.viewer.layers[0])
    controller.poll()
    assert len(controller.viewer.layers) == 1
    assert controller.message == "Stopped."
    assert not controller.is_error
