"""Photographs through the engine: one pass for the whole picture, PNG out, and only with a model made for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from effvit_med.engine import Job, Segmenter, Settings, read_model, segment_input
from effvit_med.engine.contract import Contract, describe_contract_model
from effvit_med.engine.results import choose_output_types
from effvit_med.errors import RefusedError, SettingsError
from effvit_med.io import read_nifti, read_photograph
from effvit_med.io.nifti import write_volume
from effvit_med.volume import Geometry, Volume
from tests.photographs import colours, save, write_photograph_bundle


@pytest.fixture(name="segmenter", scope="module")
def _segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    """A model with random weights whose window is larger than the pictures."""
    folder = write_photograph_bundle(tmp_path_factory.mktemp("bundle") / "eyes", window=256)
    return Segmenter(read_model(folder), Settings(device="cpu"))


def test_a_whole_picture_goes_through_in_one_window_of_its_own_size(segmenter: Segmenter, tmp_path: Path) -> None:
    """Rounded up to the network's deepest stride, 32 pixels; not padded to the window."""
    photograph = read_photograph(save(colours(100, 70), tmp_path / "a.png"))
    plan = segmenter.plan(photograph)
    assert plan.window == (1, 128, 96)
    assert not plan.findings()
    seen: list[tuple[str, int, int]] = []
    segmenter.segment(photograph, lambda *each: seen.append(each))
    assert seen[-1] == ("network", 1, 1)


def test_slices_that_are_not_there_are_not_computed(tmp_path: Path) -> None:
    """Of a 2D model whose slices go through sixteen at a time, a single one goes alone."""
    folder = write_photograph_bundle(tmp_path / "eyes")
    path = folder / "configs" / "model.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["tiling"]["window"] = [16, 64, 64]
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    photograph = read_photograph(save(colours(), tmp_path / "a.png"))
    plan = Segmenter(read_model(folder), Settings(device="cpu")).plan(photograph)
    assert plan.window == (1, 64, 64)


def test_a_3d_model_keeps_its_window(tmp_path: Path) -> None:
    """Blocks of a 3D network are as large as it was trained on."""
    model = read_model()
    scan = Volume(np.zeros((9, 20, 20), np.int16), Geometry(np.diag([2.5, 2.5, 2.5, 1])[[2, 1, 0, 3]], (9, 20, 20)))
    assert Segmenter(model, Settings(device="cpu")).plan(scan).window == model.tiling.window


def test_labels_lie_on_every_pixel_of_the_picture(segmenter: Segmenter, tmp_path: Path) -> None:
    """Formats mixed in a folder: each case named after its file, a PNG of its width and height with label values."""
    shapes = {"a.png": (40, 56), "b.jpg": (70, 33), "c.tif": (64, 64)}
    for name, shape in shapes.items():
        save(colours(*shape), tmp_path / "in" / name)
    result = segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job(confidence=True))
    assert result.exit_code == 0
    for name, shape in shapes.items():
        folder = tmp_path / "out" / Path(name).stem
        assert sorted(path.name for path in folder.iterdir()) == [
            "measurements.csv",
            "measurements.json",
            "overlay.png",
            "record.json",
            "segmentation.confidence.png",
            "segmentation.labels.json",
            "segmentation.png",
        ]
        with Image.open(folder / "segmentation.png") as image:
            assert image.mode == "L"
            labels = np.asarray(image)
        assert labels.shape == shape
        assert set(np.unique(labels)) <= {0, 1}
        rows = json.loads((folder / "measurements.json").read_text(encoding="utf-8"))["measurements"]
        assert rows[0]["voxels"] == (int(labels.sum()) or None)
        assert rows[0]["volume_ml"] is None
        assert rows[0]["area_mm2"] is None  # nobody knows how large a pixel is


def test_a_result_is_no_input_of_the_next_run(segmenter: Segmenter, tmp_path: Path) -> None:
    """Results below the input are set aside, and the same run again takes the same folders."""
    save(colours(), tmp_path / "a.png")
    for _ in range(2):
        result = segment_input(tmp_path, tmp_path / "out", segmenter, Job())
        assert [case.case_id for case in result.cases] == ["a"]


def test_a_picture_that_is_stored_turned_is_labelled_as_its_upright_twin(segmenter: Segmenter, tmp_path: Path) -> None:
    """The network sees it upright; the labels come back on the stored pixels."""
    pixels = colours(64, 96)
    upright = segmenter.segment(read_photograph(save(pixels, tmp_path / "a.png")))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    turned = segmenter.segment(read_photograph(save(np.rot90(pixels).copy(), tmp_path / "b.png", exif=exif)))
    assert 0 < upright.labels.mean() < 1
    assert np.array_equal(turned.labels[0], np.rot90(upright.labels[0]))


def test_areas_are_told_where_the_file_says_how_large_a_pixel_is(segmenter: Segmenter, tmp_path: Path) -> None:
    """Square millimetres, and the border of the picture is that of its plane alone."""
    tags = {270: b"ImageJ=1.53\nunit=mm\n", 282: 10.0, 283: 5.0}
    save(colours(), tmp_path / "in" / "a.tif", tiffinfo=tags)
    (case,) = segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job()).cases
    (row,) = case.measurements
    assert row.voxels
    assert row.area_mm2 == pytest.approx(row.voxels * 0.1 * 0.2)
    assert row.volume_ml is None


def test_a_model_for_scans_refuses_photographs(tmp_path: Path) -> None:
    """And says how to find one for them."""
    save(colours(), tmp_path / "in" / "a.png")
    segmenter = Segmenter(read_model(), Settings(device="cpu"))
    (case,) = segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job()).cases
    assert (case.status, case.code) == ("refused", "NOT_FOR_PHOTOGRAPHS")
    assert "effvit-med bundles" in case.message


@pytest.mark.parametrize("kind", ["dicom-seg", "rtstruct", "nifti", "nrrd", "dicom-sr"])
def test_a_photograph_is_written_as_png_only(tmp_path: Path, kind: str) -> None:
    """It has no place in a patient."""
    photograph = read_photograph(save(colours(), tmp_path / "a.png"))
    assert choose_output_types(photograph, Job()) == (("png",), ())
    with pytest.raises(RefusedError, match=rf"NOT_FOR_PHOTOGRAPHS.*Leave out --output-type {kind}"):
        choose_output_types(photograph, Job(output_types=(kind,)))


def test_a_scan_is_not_written_as_png(tmp_path: Path) -> None:
    """A PNG cannot say where it lies."""
    write_volume(Volume(np.zeros((4, 5, 6), np.int16), Geometry(np.eye(4), (4, 5, 6))), tmp_path / "a.nii.gz")
    with pytest.raises(RefusedError, match="NO_PHOTOGRAPH"):
        choose_output_types(read_nifti(tmp_path / "a.nii.gz"), Job(output_types=("png",)))


def test_the_colours_of_a_bundle_decide_what_it_sees(segmenter: Segmenter, tmp_path: Path) -> None:
    """Green alone: red and blue change nothing; and the record names the weights."""
    pixels = colours()
    save(pixels, tmp_path / "in" / "a.png")
    save(np.dstack([255 - pixels[..., 0], pixels[..., 1], 0 * pixels[..., 2]]), tmp_path / "in" / "b.png")
    first, second = segment_input(tmp_path / "in", tmp_path / "out", segmenter, Job()).cases
    assert first.provenance is not None
    assert first.provenance.settings["colour_weights"] == [0, 1, 0]
    maps = [(tmp_path / "out" / case.case_id / "segmentation.png").read_bytes() for case in (first, second)]
    assert maps[0] == maps[1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour_weights": [1, 1, 1]}, "of sum 1"),
        ({"preprocess": {"neighbours": 1}, "network": {"in_channels": 3}}, "spatial_dims 2, neighbours 0"),
    ],
)
def test_a_bundle_for_photographs_must_be_one(tmp_path: Path, change: dict, words: str) -> None:
    """Weights of sum 1, and one plane at a time."""
    folder = write_photograph_bundle(tmp_path / "eyes")
    path = folder / "configs" / "model.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, value in change.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(SettingsError, match=words):
        read_model(folder)


def test_an_exported_model_keeps_its_colours(segmenter: Segmenter) -> None:
    """The contract says them; a model for scans has no such word in it, so that old exports keep their digest."""
    described = describe_contract_model(segmenter.model)
    assert described.colour_weights == (0, 1, 0)
    fields = Contract.model_fields
    assert "model" in fields
    assert describe_contract_model(replace(segmenter.model, colour_weights=None)).colour_weights is None
