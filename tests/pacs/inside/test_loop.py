"""Images in, segmentations back, with a real Orthanc on the other side."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from effvit_med.pacs import Backoff, Peer, Query, WebServer, open_archive, pull
from effvit_med.pacs.node import NodeOptions
from effvit_med.pacs.peers import AllowedPeer
from effvit_med.pacs.service import ServiceOptions
from tests.conftest import ROOT
from tests.pacs.inside.orthanc import NODE_PORT, Orthanc, running_orthanc
from tests.pacs.parts import data_set, make_series, running_node, send, threshold, wait_until

NODE = NodeOptions(port=NODE_PORT, allowed=(AllowedPeer("ORTHANC", "127.0.0.1"),))


@pytest.fixture(name="orthanc", scope="module")
def _orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An Orthanc that sends every stable series on to our node, segmentations too."""
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), autoroute=True) as server:
        yield server


def _spooled_seg(spool: Path) -> Path:
    """The one segmentation in a spool, when it is returned."""
    (state,) = wait_until(lambda: list(spool.glob("*/state.json")))
    wait_until(lambda: json.loads(state.read_text())["returned"] not in ("waiting", "none"))
    (path,) = spool.glob("*/results/*/*.seg.dcm")
    return path


@pytest.mark.parametrize("way", ["C-STORE", "STOW"])
def test_what_arrives_in_orthanc_comes_back_segmented(orthanc: Orthanc, tmp_path: Path, way: str) -> None:
    """Sent to Orthanc, on to the node when stable, and a SEG is found in the same study, byte for byte the file."""
    uids = make_series(tmp_path / "ct", f"loop {way}")
    if way == "C-STORE":
        back = open_archive(Peer("ORTHANC", "127.0.0.1", orthanc.dicom_port))
    else:
        back = open_archive(WebServer(orthanc.url))
    with running_node(tmp_path / "spool", threshold(), ServiceOptions(0.2, {}, back), NODE):
        subprocess.run(
            ["dcmsend", "-aec", "ORTHANC", "127.0.0.1", str(orthanc.dicom_port), "+sd", str(tmp_path / "ct")],
            check=True,
        )
        sent = _spooled_seg(tmp_path / "spool")
    found = open_archive(WebServer(orthanc.url)).find_series(Query({"StudyInstanceUID": uids.study, "Modality": "SEG"}))
    assert len(found) == 1
    result = pull(
        open_archive(WebServer(orthanc.url)), Query({"SeriesInstanceUID": found[0].series_uid}), tmp_path / "back"
    )
    assert result.exit_code == 0
    (fetched,) = (tmp_path / "back").rglob("*.dcm")
    assert data_set(fetched.read_bytes()) == data_set(sent.read_bytes())
    (name,) = orthanc.find("Instance", SOPInstanceUID=str(dcmread(sent).SOPInstanceUID))
    assert data_set(orthanc.file(name)) == data_set(sent.read_bytes())


def test_a_segmentation_that_is_sent_on_goes_no_second_round(orthanc: Orthanc, tmp_path: Path) -> None:
    """Orthanc offers the SEG to the node too, which does not take it: one result in the spool, not two."""
    uids = make_series(tmp_path / "ct", "round")
    back = open_archive(WebServer(orthanc.url))
    with running_node(tmp_path / "spool", threshold(), ServiceOptions(0.2, {}, back), NODE):
        orthanc.upload(tmp_path / "ct")
        _spooled_seg(tmp_path / "spool")
        wait_until(lambda: len(_seg_jobs(orthanc, uids.study)) == 1)
    assert len(list((tmp_path / "spool").glob("*/state.json"))) == 1


def _seg_jobs(orthanc: Orthanc, study: str) -> list[str]:
    """Ended jobs that tried to send the segmentation of a study on, asked for in one request: jobs come and go."""
    segs = set(orthanc.find("Series", StudyInstanceUID=study, Modality="SEG"))
    return [
        job["ID"]
        for job in orthanc.get("/jobs?expand")
        if job["State"] in ("Success", "Failure") and segs & set(job["Content"].get("ParentResources", []))
    ]


def test_a_labelmap_that_orthanc_refuses_is_kept_and_named_with_the_remedy(
    orthanc: Orthanc, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Orthanc takes no LABELMAP by C-STORE unless configured so: an error names --seg-type binary, the file stays."""
    make_series(tmp_path / "ct", "labelmap refused")
    back = open_archive(Peer("ORTHANC", "127.0.0.1", orthanc.dicom_port))
    with (
        caplog.at_level(logging.INFO),
        running_node(tmp_path / "spool", threshold("labelmap"), ServiceOptions(0.2, {}, back), NODE) as node,
    ):
        orthanc.upload(tmp_path / "ct")
        path = _spooled_seg(tmp_path / "spool")
    assert path.exists()
    assert "--seg-type binary" in caplog.text
    assert "Secret" not in caplog.text
    assert "SECRET" not in caplog.text
    assert node.result
    assert node.result.counts["returned_refused"] == 1


def test_a_labelmap_goes_by_stow(orthanc: Orthanc, tmp_path: Path) -> None:
    """STOW-RS takes the LABELMAP that C-STORE refuses, and its transfer syntax stays RLE."""
    uids = make_series(tmp_path / "ct", "labelmap stow")
    back = open_archive(WebServer(orthanc.url))
    with running_node(tmp_path / "spool", threshold("labelmap"), ServiceOptions(0.2, {}, back), NODE):
        orthanc.upload(tmp_path / "ct")
        sent = _spooled_seg(tmp_path / "spool")
    (name,) = orthanc.find("Instance", StudyInstanceUID=uids.study, SOPInstanceUID=str(dcmread(sent).SOPInstanceUID))
    assert data_set(orthanc.file(name)) == data_set(sent.read_bytes())


def test_results_wait_on_disk_while_the_pacs_is_down(tmp_path: Path) -> None:
    """Nothing listens where results go: they are kept and tried again, and arrive when the PACS is back."""
    make_series(tmp_path / "ct", "down")
    files = sorted((tmp_path / "ct").glob("*.dcm"))
    back = open_archive(Peer("ORTHANC", "127.0.0.1", 4343))
    options = ServiceOptions(0.1, {}, back, Backoff(retries=1, first_s=0.3, factor=1, longest_s=0.3))
    node = NodeOptions(port=0, allowed=(AllowedPeer("SENDER"),))
    with running_node(tmp_path / "spool", threshold(), options, node) as running:
        assert send(files, running.port) == [0] * 5
        (state,) = wait_until(lambda: list((tmp_path / "spool").glob("*/state.json")))
        wait_until(lambda: json.loads(state.read_text())["returned"] == "waiting")
        with running_orthanc(tmp_path / "orthanc", 8043, 4343) as orthanc:
            wait_until(lambda: orthanc.find("Series", Modality="SEG"))
            wait_until(lambda: json.loads(state.read_text())["returned"] == "stored")
    assert running.result
    assert running.result.waiting == 0


def test_the_shipped_model_answers_over_the_command_line(orthanc: Orthanc, tmp_path: Path) -> None:
    """`effvit-med pacs serve` with the model that comes along finds organs, and ends cleanly by SIGTERM."""
    command = [sys.executable, "-c", "from effvit_med.cli import main; main()", "pacs", "serve"]
    command += ["--spool", str(tmp_path / "spool"), "--port", str(NODE_PORT), "--allow-peer", "ORTHANC@127.0.0.1"]
    command += ["--return-url", orthanc.url, "--stable-s", "0.3", "--overlap", "0"]
    cache = os.environ["EFFVIT_MED_INSIDE"]  # what the tests outside compiled already
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EFFVIT_MED_CACHE": cache}
    with (tmp_path / "err.txt").open("w+") as err:
        process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=err)
        try:
            wait_until(lambda: process.poll() is not None or "listens on" in (tmp_path / "err.txt").read_text(), 120)
            study = ROOT / "sample_data" / "ct_axial"
            orthanc.upload(study)
            uid = str(dcmread(study / "IM0001.dcm").StudyInstanceUID)
            (seg,) = wait_until(lambda: orthanc.find("Instance", StudyInstanceUID=uid, Modality="SEG"), 120)
            wait_until(lambda: _returned(tmp_path / "spool") == ["stored"])
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
    assert process.returncode == 0, (tmp_path / "err.txt").read_text()
    summary = json.loads(out)
    assert (summary["segmented"], summary["returned_stored"], summary["waiting"]) == (1, 1, 0)
    labels = hd.seg.Segmentation.from_dataset(dcmread(BytesIO(orthanc.file(seg))))
    assert labels.number_of_segments >= 3
    assert np.count_nonzero(labels.pixel_array) > 1000


def _returned(spool: Path) -> list[str]:
    return [json.loads(path.read_text())["returned"] for path in spool.glob("*/state.json")]
