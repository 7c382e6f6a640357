"""Facts about `effvit_med.engine.segmenter`, on a tiny network with random weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from effvit_med.engine import Segmenter, Settings, read_model, segment
from effvit_med.errors import CancelledError, RefusedError, SettingsError
from effvit_med.networks import save_weights
from effvit_med.training.phantom import make_case
from effvit_med.volume import Geometry, Volume
from tests.geometries import ORIENTATIONS

CASE = make_case(3, spacing_mm=(8.0, 6.0, 6.0), shape=(20, 60, 60))
SCAN = Volume(CASE.hu, Geometry(CASE.affine_lps, (20, 60, 60)), "CT")


@pytest.fixture(name="segmenter", scope="module")
def _segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter(read_model(tiny_bundle), Settings(device="cpu"))


def test_labels_lie_on_the_scans_own_grid(tiny_bundle: Path) -> None:
    """The segmentation has the shape and the geometry of the scan."""
    result = segment(SCAN, tiny_bundle, Settings(device="cpu"))
    assert result.geometry == SCAN.geometry
    assert result.labels.any()


@settings(max_examples=8)
@given(orientation=st.sampled_from(ORIENTATIONS))
def test_how_the_array_is_stored_does_not_change_the_labels(segmenter: Segmenter, orientation: str) -> None:
    """A scan stored in any of the 48 orientations gets the same label at the same place in the patient."""
    plain = segmenter.segment(SCAN)
    turned = segmenter.segment(SCAN.reoriented(orientation))
    back = Volume(turned.labels, turned.geometry).reoriented(SCAN.geometry.orientation)
    assert np.mean(back.array == plain.labels) > 0.999


def test_two_runs_give_the_same_labels_and_identity(segmenter: Segmenter) -> None:
    """The same job gives the same labels and the same identity."""
    first, second = segmenter.segment(SCAN), segmenter.segment(SCAN)
    assert np.array_equal(first.labels, second.labels)
    assert first.provenance.identity() == second.provenance.identity()


def test_the_batch_size_does_not_change_the_labels(tiny_bundle: Path, segmenter: Segmenter) -> None:
    """Tiles alone or four at a time are labelled alike."""
    four = Segmenter(read_model(tiny_bundle), Settings(device="cpu", batch_size=4))
    assert np.mean(four.segment(SCAN).labels == segmenter.segment(SCAN).labels) > 0.9999


def test_the_record_says_how_the_labels_were_made(segmenter: Segmenter) -> None:
    """Weights, settings, device, versions and timed steps are in the record."""
    provenance = segmenter.segment(SCAN).provenance
    assert provenance.weights_sha256 == segmenter.model.weights_sha256
    assert provenance.settings["overlap"] == 0.5
    assert provenance.device == "cpu"
    assert provenance.versions["torch"]
    names = [step.name for step in provenance.steps if step.name != "load model"]  # which only the first run has
    assert names == ["prepare", "network", "stitch", "label", "check"]


def test_another_modality_is_a_finding(segmenter: Segmenter) -> None:
    """A CT model on an MR scan runs, and the record says so."""
    findings = segmenter.segment(replace(SCAN, modality="MR")).provenance.findings
    assert [finding.code for finding in findings] == ["OTHER_MODALITY"]


def test_a_label_map_does_not_pass_for_a_ct(segmenter: Segmenter) -> None:
    """Values from 0 to 6 are no CT, and the record says so; a CT has no such finding."""
    labels = Volume(CASE.labels.astype(np.int16), SCAN.geometry, "CT")
    assert [finding.code for finding in segmenter.segment(labels).provenance.findings] == ["UNUSUAL_VALUES"]
    assert not segmenter.segment(SCAN).provenance.findings


def test_cancel_stops_the_run(segmenter: Segmenter) -> None:
    """When the caller says stop, the run stops in the phase it is in."""
    asked = iter([False, False, False, True])
    with pytest.raises(CancelledError, match="during network"):
        segmenter.segment(SCAN, cancelled=lambda: next(asked))


def test_progress_goes_through_the_phases(segmenter: Segmenter) -> None:
    """Progress is told for preparing and for the windows, each up to its end."""
    calls: list[tuple[str, int, int]] = []
    segmenter.segment(SCAN, progress=lambda *call: calls.append(call))
    ends = {phase: done == total for phase, done, total in calls}
    assert ends == {"prepare": True, "network": True}


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "mps:7"])
def test_a_device_that_is_not_there_is_named(tiny_bundle: Path, device: str) -> None:
    """The error names the device and what can be used."""
    with pytest.raises(SettingsError, match=f"'{device}'.*cpu"):
        Segmenter(read_model(tiny_bundle), Settings(device=device))


def test_a_scan_of_one_slice_is_segmented(segmenter: Segmenter) -> None:
    """A volume of a single slice works."""
    scan = Volume(CASE.hu[:1], Geometry(CASE.affine_lps, (1, 60, 60)), "CT")
    assert segmenter.segment(scan).labels.shape == (1, 60, 60)


def test_bfloat16_agrees_with_float32(tiny_bundle: Path, segmenter: Segmenter) -> None:
    """Half the bits, nearly the same labels."""
    half = Segmenter(read_model(tiny_bundle), Settings(device="cpu", precision="bfloat16"))
    assert np.mean(half.segment(SCAN).labels == segmenter.segment(SCAN).labels) > 0.9


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_does_not_change_the_labels(tiny_bundle: Path, threads: int) -> None:
    """On a processor one thread and several give the same labels and the same confidence, voxel for voxel."""
    before = torch.get_num_threads()
    try:
        one = Segmenter(read_model(tiny_bundle), Settings(device="cpu", threads=1)).segment(SCAN)
        more = Segmenter(read_model(tiny_bundle), Settings(device="cpu", threads=threads)).segment(SCAN)
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(one.labels, more.labels)
    assert np.array_equal(one.confidence, more.confidence)


def test_every_voxel_has_a_confidence(segmenter: Segmenter) -> None:
    """The confidence has the shape of the scan and is not the same everywhere."""
    confidence = segmenter.segment(SCAN).confidence
    assert confidence is not None
    assert confidence.shape == SCAN.geometry.shape
    assert len(np.unique(confidence)) > 10


def test_mirrored_labels_agree_with_the_plain_ones(tiny_bundle: Path, segmenter: Segmenter) -> None:
    """Averaging over mirrored tiles changes some labels and not most; the settings in the record say so."""
    mirror = Segmenter(read_model(tiny_bundle), Settings(device="cpu", mirror=True)).segment(SCAN)
    share = np.mean(mirror.labels == segmenter.segment(SCAN).labels)
    assert 0.5 < share < 1
    assert mirror.provenance.settings["mirror"] is True


def test_the_plan_is_in_the_record(segmenter: Segmenter) -> None:
    """What memory was planned stands with the network's step."""
    steps = {step.name: step for step in segmenter.segment(SCAN).provenance.steps}
    assert steps["network"].detail["plan"]["remedies"] == []
    assert steps["network"].detail["runtime"] == "eager"
    assert steps["network"].cpu_seconds > 0


def test_a_scan_that_fits_no_memory_is_refused(tiny_bundle: Path) -> None:
    """The error says what would be needed and what there is, before anything runs."""
    small = Segmenter(read_model(tiny_bundle), Settings(device="cpu", memory_gb=0.01))
    with pytest.raises(RefusedError, match=r"NOT_ENOUGH_MEMORY.*10\.2 MiB"):
        small.segment(SCAN)


def test_a_network_that_gives_no_numbers_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    """Weights that are not finite give an error, not labels."""
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    model = read_model(copy)
    network = model.build_network()
    with torch.no_grad():
        next(iter(network.head.parameters())).fill_(float("nan"))
    save_weights(network, model.weights, {})
    with pytest.raises(RefusedError, match="NOT_FINITE"):
        Segmenter(read_model(copy), Settings(device="cpu")).segment(SCAN)


@pytest.mark.parametrize("neighbours", [0, 1])
@pytest.mark.parametrize("kind", ["window", "percentile"])
def test_networks_of_slices_segment(tiny_bundle: Path, tmp_path: Path, neighbours: int, kind: str) -> None:
    """2D and 2.5D networks, with either kind of intensity, label a whole scan, the same for any slices at a time."""
    copy = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, copy)
    path = copy / "configs" / "model.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["network"] |= {"spatial_dims": 2, "in_channels": 2 * neighbours + 1}
    content["preprocess"] |= {"spatial_dims": 2, "neighbours": neighbours}
    content["preprocess"]["intensity"] = {"kind": kind, "low": 1, "high": 99}
    labels = []
    for slices in (1, 5):
        content["tiling"]["window"] = [slices, 32, 32]
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        model = read_model(copy)
        torch.manual_seed(0)
        save_weights(model.build_network(), model.weights, {})
        labels.append(Segmenter(model, Settings(device="cpu")).segment(SCAN).labels)
    assert labels[0].shape == SCAN.geometry.shape
    assert len(np.unique(labels[0])) > 1
    assert np.mean(labels[0] == labels[1]) > 0.999
