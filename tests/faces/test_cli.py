"""Facts about the command line, called as its users call it: in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-W", "ignore", "-c", "from effvit_med.cli import main; main()"]
NOTICE = "Not for clinical use"


def _run(*arguments: object, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def _fails_in_one_line(run: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One clear line on stderr, no traceback, nothing on stdout, and the right exit code."""
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    errors = [line for line in run.stderr.splitlines() if line.startswith("Error:")]
    assert len(errors) == 1, run.stderr
    for word in words:
        assert word in run.stderr


def test_help_imports_neither_torch_nor_monai() -> None:
    """The help of every command is there without the heavy libraries."""
    code = (
        "import sys; from effvit_med.cli import commands\n"
        "for name in [[], ['segment'], ['info'], ['demo'], ['models']]:\n"
        "    commands.main([*name, '--help'], standalone_mode=False)\n"
        "assert not {'torch', 'monai', 'pydicom', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(NOTICE) == 5


def test_options_are_those_of_the_settings() -> None:
    """Each setting of the engine is an option of the command, with the same choices and default."""
    from typing import get_args

    from effvit_med.cli import OUTPUT_TYPES, REMEDIES, segment
    from effvit_med.engine import OutputType, Remedy, Settings

    chosen = segment.make_context("segment", ["INPUT", "-o", "OUT"]).params
    assert {name: chosen[name] for name in Settings.model_fields} == Settings().model_dump()
    assert get_args(OutputType) == OUTPUT_TYPES
    assert get_args(Remedy) == REMEDIES


@pytest.mark.parametrize(
    ("words", "kind", "strip"),
    [("INPUT", "binary", True), ("INPUT --seg-type auto --keep-free-text", "auto", False)],
)
def test_kinds_of_seg_and_free_text_reach_the_writers(words: str, kind: str, strip: bool) -> None:
    """The options for DICOM results are those of the writers, and free text stays behind by default."""
    from effvit_med.cli import segment
    from effvit_med.cli.running import SEG_TYPES as CHOICES
    from effvit_med.cli.running import make_job
    from effvit_med.io.dicom_seg import SEG_TYPES

    job = make_job(segment.make_context("segment", [*words.split(), "-o", "out"]).params)
    assert CHOICES == SEG_TYPES
    assert (job.seg.segmentation_type, job.seg.strip_free_text) == (kind, strip)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--output-type dicom-seg nifti INPUT", ("dicom-seg", "nifti")),
        ("INPUT --output-type nifti --output-type dicom-seg", ("nifti", "dicom-seg")),
        ("--output-type nifti INPUT", ("nifti",)),
        ("INPUT", ()),
    ],
)
def test_several_output_types_can_follow_one_option(words: str, wanted: tuple[str, ...]) -> None:
    """The types may stand after one option, or each after its own."""
    from effvit_med.cli import segment

    context = segment.make_context("segment", [*words.split(), "-o", "out", "--allow", "gaps", "irregular"])
    assert context.params["output_types"] == wanted
    assert context.params["allow"] == ("gaps", "irregular")
    assert context.params["source"] == Path("INPUT")


def test_stdout_is_one_json_line(tiny_bundle: Path, sample_data: Path, tmp_path: Path) -> None:
    """All that comes on stdout is one JSON document; it names the files."""
    run = _run("segment", sample_data / "ct_nonsquare", "-o", tmp_path, "--bundle", tiny_bundle)
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    summary = json.loads(line)
    assert summary["status"] == "ok"
    assert NOTICE in summary["notice"]
    assert all(Path(path).is_file() for path in summary["cases"][0]["outputs"].values())


def test_refused_cases_have_an_exit_code_of_their_own(tiny_bundle: Path, sample_data: Path, tmp_path: Path) -> None:
    """A series with a missing slice ends with 3, and the JSON line says why."""
    run = _run("segment", sample_data / "ct_missing_slice", "-o", tmp_path, "--bundle", tiny_bundle)
    assert run.returncode == 3
    assert json.loads(run.stdout)["cases"][0]["code"] == "MISSING_SLICES"


def test_a_zip_archive_is_read(tiny_bundle: Path, sample_data: Path, tmp_path: Path) -> None:
    """A zipped series is segmented as its folder would be."""
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for file in (sample_data / "ct_nonsquare").iterdir():
            target.write(file, file.name)
    run = _run("segment", archive, "-o", tmp_path / "out", "--bundle", tiny_bundle)
    assert run.returncode == 0, run.stderr
    assert list((tmp_path / "out").rglob("segmentation.seg.dcm"))


def test_an_input_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    """A path that is not there is named; exit code 2."""
    run = _run("segment", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert run.returncode == 2
    assert "nowhere" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("name", ["empty folder", "text file", "truncated file", "colour image"])
def test_bad_input_is_one_clear_line(name: str, tiny_bundle: Path, sample_data: Path, tmp_path: Path) -> None:
    """Bad input of any kind is one line, an exit code, and no output."""
    source = tmp_path / "in"
    source.mkdir()
    slice_bytes = next(iter(sorted((sample_data / "ct_nonsquare").iterdir()))).read_bytes()
    if name == "text file":
        (source / "letter.txt").write_text("Dear colleague")
    elif name == "truncated file":
        (source / "cut.dcm").write_bytes(slice_bytes[:300])
    elif name == "colour image":
        _write_colour_image(source / "photo.dcm")
    run = _run("segment", source, "-o", tmp_path / "out", "--bundle", tiny_bundle)
    assert run.returncode in (1, 3), run.stderr
    assert "Traceback" not in run.stderr
    if run.returncode == 1:
        _fails_in_one_line(run, 1)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def _write_colour_image(path: Path) -> None:
    import numpy as np
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = SecondaryCaptureImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = generate_uid(), generate_uid(), "OT"
    image.Rows = image.Columns = 8
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.PixelData = np.zeros((8, 8, 3), np.uint8).tobytes()
    image.save_as(path, enforce_file_format=True)


def test_a_bundle_that_is_none_is_one_clear_line(sample_data: Path, tmp_path: Path) -> None:
    """A folder without model.yaml is named."""
    run = _run("segment", sample_data / "ct_nonsquare", "-o", tmp_path / "out", "--bundle", tmp_path)
    _fails_in_one_line(run, 1, "model.yaml")


def test_a_device_that_is_not_there_is_a_usage_error(tiny_bundle: Path, sample_data: Path, tmp_path: Path) -> None:
    """An unknown device is named; exit code 2."""
    run = _run(
        "segment", sample_data / "ct_nonsquare", "-o", tmp_path / "out", "--bundle", tiny_bundle, "--device", "tpu"
    )
    _fails_in_one_line(run, 2, "'tpu'")


def test_info_names_the_structures() -> None:
    """The model's structures and weights are told as JSON."""
    run = _run("info", "--json")
    assert run.returncode == 0, run.stderr
    assert "kidney_left" in json.loads(run.stdout)["bundle"]["structures"]


def test_no_patient_name_leaves_the_dicom_files(tiny_bundle: Path, sample_data: Path, tmp_path: Path) -> None:
    """A name in the headers is in the DICOM SEG, as it must be, and in no message, file name or other output."""
    import pydicom

    source = tmp_path / "in"
    source.mkdir()
    for path in (sample_data / "ct_nonsquare").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.PatientID = "Mustermann Erika", "PID-4711"
        dataset.save_as(source / path.name)
    run = _run("segment", source, "-o", tmp_path / "out", "--bundle", tiny_bundle, "--verbose")
    assert run.returncode == 0, run.stderr
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".dcm"]
    told = [run.stdout, run.stderr, *map(str, files), *(path.read_bytes().decode("latin-1") for path in files)]
    assert not [text for text in told if "Mustermann" in text or "PID-4711" in text]


@pytest.mark.skipif(os.name != "posix", reason="sends a POSIX signal")
def test_ctrl_c_leaves_nothing_half_written(tiny_bundle: Path, sample_data: Path, tmp_path: Path) -> None:
    """Stopped in the middle: exit code 130, one line, and no file."""
    with subprocess.Popen(
        [*COMMAND, "segment", str(sample_data), "-o", str(tmp_path / "out"), "--bundle", str(tiny_bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None and not (tmp_path / "out").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    left = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert all((path.parent / "record.json").exists() for path in left)
    assert not list((tmp_path / "out").glob(".*"))


def test_the_demo_finds_the_organs(tmp_path: Path) -> None:
    """The shipped model segments the shipped phantom well, and the demo says how well."""
    run = _run("demo", "-o", tmp_path)
    assert run.returncode == 0, run.stderr
    dice = json.loads(run.stdout)["dice"]
    assert min(dice.values()) > 0.85, dice
    assert NOTICE in run.stderr


def test_models_are_listed_with_their_cost() -> None:
    """One line a model and size, or one JSON document; names choose by their beginnings."""
    run = _run("models", "shvit_s1", "--no-time")
    assert run.returncode == 0, run.stderr
    heading, *lines = run.stdout.splitlines()
    assert heading.split()[:3] == ["model", "input", "parameters"]
    assert [line.split()[:2] for line in lines] == [["shvit_s1", "512x512"], ["shvit_s1", "96x96x96"]]
    document = json.loads(_run("models", "shvit_s1", "--spatial-dims", "2", "--json").stdout)
    (model,) = document["models"]
    assert (model["parameters"], model["layouts"]) == (6_008_880, ["shvit", "timm"])
    assert model["segmenter_s"] > 0
    assert NOTICE in document["notice"]


def test_unknown_model_is_one_clear_line() -> None:
    """A name that no model begins with is told with the nearest."""
    _fails_in_one_line(_run("models", "resnet50"), 2, "There is no model 'resnet50'")


def test_a_plan_is_shown_for_every_case_and_nothing_is_written(
    tiny_bundle: Path, sample_data: Path, tmp_path: Path
) -> None:
    """Cases that fit have their parts, one that is refused says why and does not hide the others; exit code 3."""
    source = tmp_path / "in"
    for name in ("ct_nonsquare", "ct_missing_slice"):
        shutil.copytree(sample_data / name, source / name)
    run = _run("segment", source, "--plan", "--bundle", tiny_bundle)
    assert run.returncode == 3, run.stderr
    (line,) = run.stdout.splitlines()
    plans = {plan["status"]: plan for plan in json.loads(line)["plans"]}
    assert plans["planned"]["batch_size"] == 1
    assert "weights" in {part["name"] for part in plans["planned"]["parts"]}
    assert "MISSING_SLICES" in plans["refused"]["message"]
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_plan_that_does_not_fit_is_refused_with_figures(tiny_bundle: Path, sample_data: Path) -> None:
    """What would be needed and what is allowed, before a night's batch begins."""
    run = _run("segment", sample_data / "ct_nonsquare", "--plan", "--bundle", tiny_bundle, "--memory-gb", "0.01")
    assert run.returncode == 3
    assert "10.2 MiB" in json.loads(run.stdout)["plans"][0]["message"]
