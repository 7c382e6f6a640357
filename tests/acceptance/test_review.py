"""Acceptance case 30: a series and its SEG are reviewed in napari's viewer model, and saved as a new SEG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from effvit_med.io import SegOptions
from effvit_med.volume.prompts import Prompt
from tests.acceptance.judging import read_with_dcmqi
from tests.acceptance.series import AXIAL, Stack, label_at, turned
from tests.acceptance.test_geometry import CORONAL, ORIENTATIONS, SAGITTAL
from tests.acceptance.test_geometry_outputs import Written, write_seg

components = pytest.importorskip("napari.components", reason="napari is not here: pip install '.[napari]'")
from napari_effvit_med.controller import Controller  # noqa: E402  after the check above
from napari_effvit_med.reading import read_layers  # noqa: E402
from napari_effvit_med.settings import PluginSettings  # noqa: E402
from napari_effvit_med.tasks import Task  # noqa: E402

VIEWS = {
    "axial": AXIAL,
    "prone": ORIENTATIONS["prone"],
    "row_flip": ORIENTATIONS["row_flip"],
    "coronal": CORONAL[min(CORONAL)],
    "sagittal": SAGITTAL[max(SAGITTAL)],
    "oblique": turned((17, -23, 11)),
}
LIVER, KIDNEY = 1, 2


def _review(done: Written, root: Path) -> Controller:
    """The scan and its SEG opened as layers, and the review of the SEG begun."""
    control = Controller(components.ViewerModel(), start=Task.run_here, settings=PluginSettings(reviews_folder=root))
    control.show_volume(done.volume)
    (image,) = control.viewer.layers
    ((data, arguments, _),) = read_layers(str(done.seg))
    control.review_labels(control.viewer.add_labels(data, **arguments), image)
    control.poll()
    assert control.desk.opened is not None, control.message
    return control


def _settle(control: Controller) -> None:
    for _ in range(100):
        control.poll()
        if not control.desk.settling:
            return
    raise AssertionError("the desk does not come to rest")


@pytest.mark.parametrize("kind", ["binary", "labelmap"])
@pytest.mark.parametrize("view", sorted(VIEWS))
def test_case_30_review_of_a_seg(view: str, kind: Any, tmp_path: Path) -> None:
    """One structure is edited: dcmqi finds the edit, every other voxel as it was, and the header says what happened."""
    done = write_seg(tmp_path, Stack(VIEWS[view], size=(36, 42)), options=SegOptions(segmentation_type=kind))
    control = _review(done, tmp_path / "reviews")
    desk = control.desk
    assert desk.opened is not None
    session = desk.opened.session
    values = {label.name: label.value for label in session.table}
    kidney = values["kidney_left"]
    places = np.argwhere(session.labels == kidney)
    middle = places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()]
    before = session.labels.copy()
    desk.prompt(Prompt("point", kidney, False, (tuple(map(int, middle)),)))
    _settle(control)
    changed = session.labels != before
    assert changed.any()
    assert (before[changed] == kidney).all()
    desk.save(tmp_path / "saved", ["dicom-seg"])
    _settle(control)
    assert not control.is_error, control.message
    world = session.geometry.index_to_world(np.argwhere(np.ones(session.labels.shape, bool)))
    truth = label_at(done.stack.world())
    saved = tmp_path / "saved" / "reviewed.seg.dcm"
    numbers = {item.SegmentLabel: int(item.SegmentNumber) for item in pydicom.dcmread(saved).SegmentSequence}
    found = read_with_dcmqi(saved, tmp_path / "dcmqi").at(world).reshape(session.labels.shape)
    expected = np.zeros_like(session.labels)
    for name, number in numbers.items():
        expected[session.labels == values[name]] = number
    np.testing.assert_array_equal(found, expected)
    assert np.count_nonzero(found == numbers["liver"]) == np.count_nonzero(truth == LIVER)
    assert np.count_nonzero(found == numbers["kidney_left"]) == np.count_nonzero(truth == KIDNEY) - changed.sum()
    _assert_header(saved, done.seg)
    control.close()


def _assert_header(saved: Path, old: Path) -> None:
    new, before = pydicom.dcmread(saved), pydicom.dcmread(old)
    kinds = {item.SegmentLabel: item.SegmentAlgorithmType for item in new.SegmentSequence}
    assert kinds == {"liver": "AUTOMATIC", "kidney_left": "SEMIAUTOMATIC"}
    assert new.SOPInstanceUID != before.SOPInstanceUID
    assert new.SeriesInstanceUID != before.SeriesInstanceUID
    assert before.SOPInstanceUID in {item.ReferencedSOPInstanceUID for item in new.SourceImageSequence}
    assert before.SeriesInstanceUID in {item.SeriesInstanceUID for item in new.ReferencedSeriesSequence}


def test_case_30_nothing_is_unsaved(tmp_path: Path) -> None:
    """A review that is let go without saving is found again with its edit: there is nothing to be lost."""
    done = write_seg(tmp_path, Stack())
    control = _review(done, tmp_path / "reviews")
    assert control.desk.opened is not None
    session = control.desk.opened.session
    kidney = session.table.by_value(2).value
    place = tuple(map(int, np.argwhere(session.labels == kidney)[0]))
    control.desk.prompt(Prompt("point", kidney, False, (place,)))
    labels, folder = session.labels.copy(), session.folder
    control.close()
    again = Controller(components.ViewerModel(), start=Task.run_here, settings=control.settings)
    again.show_volume(done.volume)
    again.look_for_reviews(again.viewer.layers[0])
    again.poll()
    (found,) = again.found
    assert found.folder == folder
    again.continue_review(found, again.viewer.layers[0])
    again.poll()
    assert again.desk.opened is not None
    np.testing.assert_array_equal(again.desk.opened.session.labels, labels)
    again.close()
