"""`pull` and `push` with a real Orthanc on the other side."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from click.testing import CliRunner
from pydicom import dcmread

from effvit_med.cli import commands
from effvit_med.pacs import Peer, Query, WebServer, open_archive, pull
from effvit_med.pacs.peers import read_credentials
from tests.pacs.inside.orthanc import Orthanc, running_orthanc
from tests.pacs.parts import make_seg, make_series


@pytest.fixture(name="orthanc", scope="module")
def _orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


def _where(orthanc: Orthanc, way: str) -> list[str]:
    return ["--url", orthanc.url] if way == "web" else ["--peer", f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"]


def _run(*arguments: str) -> tuple[int, dict[str, object]]:
    """The exit code of a command, and its JSON."""
    result = CliRunner().invoke(commands, ["pacs", *arguments, "-q"], standalone_mode=False)
    assert result.exception is None, result.exception
    return result.return_value, json.loads(result.stdout)


def _values(folder: Path) -> dict[str, np.ndarray]:
    return {str(dataset.SOPInstanceUID): dataset.pixel_array for dataset in map(dcmread, folder.rglob("*.dcm"))}


@pytest.mark.parametrize("way", ["web", "dimse"])
def test_pulled_pixels_are_those_that_were_stored(orthanc: Orthanc, tmp_path: Path, way: str) -> None:
    """Every instance comes, with the same pixels, under a name that tells nothing of the patient."""
    uids = make_series(tmp_path / "ct", f"pull {way}")
    make_series(tmp_path / "other", f"other {way}", study=f"pull {way}")
    orthanc.upload(tmp_path / "ct")
    orthanc.upload(tmp_path / "other")
    code, said = _run("pull", *_where(orthanc, way), "-o", str(tmp_path / "in"), "--series", uids.series)
    assert code == 0
    assert [each["status"] for each in said["series"]] == ["fetched"]
    want, got = _values(tmp_path / "ct"), _values(tmp_path / "in")
    assert got.keys() == want.keys()
    assert all(np.array_equal(got[uid], want[uid]) for uid in want)
    names = " ".join(str(path) for path in (tmp_path / "in").rglob("*"))
    assert "SECRET" not in names
    assert uids.series not in names


@pytest.mark.parametrize("way", ["web", "dimse"])
def test_a_pull_asks_by_study_and_series_keys(orthanc: Orthanc, tmp_path: Path, way: str) -> None:
    """Study date, modality and a description with a wildcard choose one of two series of a study."""
    uids = make_series(tmp_path / "a", f"chosen {way}")
    make_series(tmp_path / "b", f"left out {way}", study=f"chosen {way}")
    orthanc.upload(tmp_path / "a")
    orthanc.upload(tmp_path / "b")
    arguments = ["--study", uids.study, "--query", "Modality=CT", "--query", "StudyDate=20240101-20241231"]
    code, said = _run(
        "pull", *_where(orthanc, way), "-o", str(tmp_path / "in"), *arguments, "--series-description", f"chosen?{way}*"
    )
    assert (code, len(said["series"])) == (0, 1)
    assert _values(tmp_path / "in").keys() == set(uids.instances)
    code, said = _run(
        "pull", *_where(orthanc, way), "-o", str(tmp_path / "in"), *arguments[:2], "--query", "Modality=MR"
    )
    assert (code, said["series"]) == (3, [])


@pytest.mark.parametrize("way", ["web", "dimse"])
def test_a_second_pull_fetches_only_what_is_missing(orthanc: Orthanc, tmp_path: Path, way: str) -> None:
    """A complete series is left alone, one that lacks an instance is completed."""
    uids = make_series(tmp_path / "ct", f"again {way}")
    orthanc.upload(tmp_path / "ct")
    arguments = ["pull", *_where(orthanc, way), "-o", str(tmp_path / "in"), "--study", uids.study]
    assert _run(*arguments)[0] == 0
    assert [each["status"] for each in _run(*arguments)[1]["series"]] == ["there"]
    (folder,) = (tmp_path / "in").iterdir()
    files = sorted(folder.iterdir())
    partial = folder.with_name(f".{folder.name}.partial")
    folder.rename(partial)  # as a kill leaves it
    files = sorted(partial.iterdir())
    files[0].unlink()
    files[1].rename(files[1].with_name(".abcd.part-" + files[1].name))
    kept = {path.name: path.stat().st_mtime_ns for path in files[2:]}
    assert [each["status"] for each in _run(*arguments)[1]["series"]] == ["fetched"]
    assert not partial.exists()
    assert _values(folder).keys() == set(uids.instances)
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept


def test_a_series_over_the_limit_is_left_out(orthanc: Orthanc, tmp_path: Path) -> None:
    """It says so and ends with 2; nothing of the series takes its name."""
    uids = make_series(tmp_path / "ct", "limit")
    orthanc.upload(tmp_path / "ct")
    arguments = ["pull", *_where(orthanc, "web"), "-o", str(tmp_path / "in"), "--study", uids.study]
    for limit in (["--max-instances", "4"], ["--max-series-mb", "0.001"]):
        code, said = _run(*arguments, *limit)
        assert (code, said["series"][0]["status"]) == (2, "failed")
        assert limit[0] in said["series"][0]["message"]
    assert [path for path in (tmp_path / "in").iterdir() if not path.name.startswith(".")] == []


@pytest.mark.parametrize("way", ["web", "dimse"])
def test_a_push_stores_the_very_file_and_only_once(orthanc: Orthanc, tmp_path: Path, way: str) -> None:
    """What Orthanc holds has the same data set, byte for byte; the second run sends nothing."""
    path = make_seg(tmp_path, f"push {way}")
    arguments = ["push", str(tmp_path / "out"), *_where(orthanc, way)]
    code, said = _run(*arguments)
    assert (code, said["stored"]) == (0, 1)
    (name,) = orthanc.find("Instance", SOPInstanceUID=str(dcmread(path).SOPInstanceUID))
    requests.delete(f"{orthanc.rest}/instances/{name}", timeout=10).raise_for_status()
    code, said = _run(*arguments)
    assert (code, said["stored"], said["already"]) == (0, 0, 1)
    assert orthanc.find("Instance", SOPInstanceUID=str(dcmread(path).SOPInstanceUID)) == []


def test_a_labelmap_that_is_refused_gives_way_to_the_binary_beside_it(orthanc: Orthanc, tmp_path: Path) -> None:
    """Orthanc takes no LABELMAP by C-STORE: the BINARY of the same case is stored in its place, and exit code 0."""
    make_seg(tmp_path, "both", "labelmap")
    binary = make_seg(tmp_path, "both", "binary")
    code, said = _run("push", str(tmp_path / "out"), *_where(orthanc, "dimse"))
    assert (code, said["stored"], said["refused"]) == (0, 1, 0)
    assert len(orthanc.find("Instance", SOPInstanceUID=str(dcmread(binary).SOPInstanceUID))) == 1


def test_a_labelmap_alone_that_is_refused_names_the_remedy(orthanc: Orthanc, tmp_path: Path) -> None:
    """Exit code 2, a code for machines, and the option that helps."""
    make_seg(tmp_path, "labelmap alone", "labelmap")
    code, said = _run("push", str(tmp_path / "out"), *_where(orthanc, "dimse"))
    assert (code, said["refused"]) == (2, 1)
    assert said["refusals"][0]["code"] == "SOP_CLASS_NOT_ACCEPTED"
    assert "--seg-type binary" in said["refusals"][0]["message"]


def test_credentials_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orthanc with passwords lets in who has one, from a file or the environment, and no one else."""
    uids = make_series(tmp_path / "ct", "auth")
    with running_orthanc(tmp_path / "orthanc", 8044, 4244, user="reader") as orthanc:
        token = base64.b64encode(b"reader:secret-password").decode()
        for path in (tmp_path / "ct").iterdir():
            requests.post(
                f"{orthanc.rest}/instances",
                data=path.read_bytes(),
                headers={"Authorization": f"Basic {token}"},
                timeout=10,
            ).raise_for_status()
        (tmp_path / "secret").write_text("basic reader:secret-password\n", encoding="utf-8")
        monkeypatch.setenv("PACS_SECRET", "basic reader:secret-password")
        query = Query({"StudyInstanceUID": uids.study})
        for variable, file in (("PACS_SECRET", None), (None, tmp_path / "secret")):
            archive = open_archive(WebServer(orthanc.url, read_credentials(variable, file)))
            assert len(archive.find_series(query)) == 1
        refused = CliRunner().invoke(
            commands, ["pacs", "pull", "--url", orthanc.url, "-o", str(tmp_path / "in"), "--study", uids.study]
        )
        assert refused.exit_code == 1
        assert "HTTP 401" in str(refused.exception)


def test_a_compressed_series_comes_as_it_is_stored(orthanc: Orthanc, tmp_path: Path) -> None:
    """RLE stays RLE over C-GET and WADO-RS: nothing is transcoded on the way."""
    uids = make_series(tmp_path / "ct", "rle")
    for path in (tmp_path / "ct").iterdir():
        dataset = dcmread(path)
        dataset.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
        dataset.save_as(path)
    orthanc.upload(tmp_path / "ct")
    query = Query({"StudyInstanceUID": uids.study})
    for way, where in {
        "web": WebServer(orthanc.url),
        "dimse": Peer("ORTHANC", "127.0.0.1", orthanc.dicom_port),
    }.items():
        assert pull(open_archive(where), query, tmp_path / way).exit_code == 0
        files = list((tmp_path / way).rglob("*.dcm"))
        assert {str(dcmread(path).file_meta.TransferSyntaxUID) for path in files} == {"1.2.840.10008.1.2.5"}
        want, got = _values(tmp_path / "ct"), _values(tmp_path / way)
        assert all(np.array_equal(got[uid], want[uid]) for uid in want)
