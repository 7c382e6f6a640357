"""Which pictures of an input become cases."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from effvit_med.errors import NoImagesError
from effvit_med.io import Found, ReadOptions, open_input, read_case
from effvit_med.io.inspection import inspect_input
from effvit_med.io.nifti import write_volume
from effvit_med.volume import Geometry, Volume
from tests.io.source_series import axial, write_series
from tests.photographs import colours, save


def find(path: Path, photographs: str = "alone") -> Found:
    """What an input holds."""
    with open_input(path, ReadOptions(photographs=photographs), needs_images=False) as found:  # type: ignore[arg-type]
        return found


def write_nifti_scan(path: Path) -> Path:
    """A small scan."""
    write_volume(Volume(np.zeros((4, 5, 6), np.int16), Geometry(np.eye(4), (4, 5, 6))), path)
    return path


def test_a_folder_of_pictures_gives_a_case_for_each(tmp_path: Path) -> None:
    """Named after the file; formats may be mixed; texts are set aside."""
    for name in ("b.PNG", "a 1.jpg", "c.tiff"):
        save(colours(), tmp_path / name)
    (tmp_path / "index.csv").write_text("a,b\n", encoding="utf-8")
    found = find(tmp_path)
    assert [case.case_id for case in found.cases] == ["a_1", "b", "c"]
    assert [aside.code for aside in found.set_aside] == ["TEXT"]
    assert read_case(found.cases[0]).source.case_id == "a_1"  # type: ignore[union-attr]


def test_one_stem_with_two_endings_gives_two_names(tmp_path: Path) -> None:
    """Also in two folders, and whatever the case of the letters."""
    for name in ("a.jpg", "a.png", "deep/A.tif"):
        save(colours(), tmp_path / name)
    assert sorted(case.case_id for case in find(tmp_path).cases) == ["A_3", "a", "a_2"]


def test_previews_beside_a_dicom_series_are_no_cases(tmp_path: Path) -> None:
    """Only a model for photographs looks at them."""
    (tmp_path / "ct").mkdir()
    write_series(tmp_path / "ct", axial())
    save(colours(), tmp_path / "ct" / "preview.png")
    found = find(tmp_path)
    assert len(found.cases) == 1
    assert [(aside.path.name, aside.code) for aside in found.set_aside] == [("preview.png", "PHOTOGRAPH")]
    assert found.count_set_aside() == "1 photograph"
    assert len(find(tmp_path, "always").cases) == 2


def test_previews_beside_nifti_are_no_cases(tmp_path: Path) -> None:
    """As beside DICOM."""
    write_nifti_scan(tmp_path / "a.nii.gz")
    save(colours(), tmp_path / "a.png")
    assert [case.path.name for case in find(tmp_path).cases] == ["a.nii.gz"]  # type: ignore[union-attr]
    assert [case.case_id for case in find(tmp_path, "always").cases] == ["a", "a_2"]


def test_nobody_asked_means_as_before(tmp_path: Path) -> None:
    """The default of the library: a picture is a file of another format."""
    save(colours(), tmp_path / "a.png")
    with pytest.raises(NoImagesError, match="neither DICOM nor NIfTI"), open_input(tmp_path):
        pass


def test_a_dicom_file_called_png_is_dicom(tmp_path: Path) -> None:
    """Content decides, not the name."""
    write_series(tmp_path, axial())
    for number, path in enumerate(sorted(tmp_path.iterdir())):
        path.rename(tmp_path / f"{number}.png")
    found = find(tmp_path)
    assert len(found.cases) == 1
    assert not found.set_aside


def test_masks_and_own_results_are_no_cases(tmp_path: Path) -> None:
    """One bit per pixel, a label table beside it, or a name of ours beside a record."""
    Image.fromarray(colours()).convert("1").save(tmp_path / "mask.png")
    save(colours()[..., 0], tmp_path / "drawn.png")
    (tmp_path / "drawn.labels.json").write_text("{}", encoding="utf-8")
    save(colours(), tmp_path / "case" / "overlay.png")
    (tmp_path / "case" / "record.json").write_text("{}", encoding="utf-8")
    save(colours(), tmp_path / "overlay.png")
    found = find(tmp_path, "always")
    assert [case.path.relative_to(tmp_path).as_posix() for case in found.cases] == ["overlay.png"]  # type: ignore[union-attr]
    codes = {aside.path.name: aside.code for aside in found.set_aside if aside.code != "TEXT"}
    assert codes == {"mask.png": "LABEL_MAP", "drawn.png": "LABEL_MAP", "overlay.png": "OWN_RESULT"}


def test_refused_and_damaged_pictures_do_not_stop_the_others(tmp_path: Path) -> None:
    """Several pages are refused with a remedy; what is no picture at all is set aside."""
    pages = [Image.fromarray(colours(seed=seed)) for seed in range(2)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    save(colours(), tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    (tmp_path / "empty.png").write_bytes(b"")
    found = find(tmp_path)
    assert [case.case_id for case in found.cases] == ["good"]
    assert [(case.case_id, case.code, case.is_dicom) for case in found.refused] == [("pages", "MULTI_VOLUME", False)]
    assert {aside.path.name: aside.code for aside in found.set_aside} == {
        "bad.jpg": "UNREADABLE",
        "empty.png": "EMPTY_FILE",
    }


def test_a_zip_of_photographs_is_an_input(tmp_path: Path) -> None:
    """As of scans."""
    save(colours(), tmp_path / "a.jpg")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.jpg", "eyes/a.jpg")
    with open_input(tmp_path / "a.zip", ReadOptions(photographs="alone")) as found:
        assert [case.case_id for case in found.cases] == ["a"]


def test_a_picture_is_inspected_as_a_file(tmp_path: Path) -> None:
    """With its grid, and damage in its pixels where they are decoded."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 80, 3), np.uint8)
    data = save(noise, tmp_path / "a.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(data[: len(data) // 2])
    options = ReadOptions(photographs="alone")
    entries = [entry.to_dict() for entry in inspect_input(tmp_path, options, pixels=True)]
    assert [(entry["kind"], entry["name"], entry["status"]) for entry in entries] == [
        ("file", "a.jpg", "findings"),
        ("file", "b.jpg", "refused"),
    ]
    assert entries[0]["shape"] == [1, 90, 80]
    assert entries[0]["codes"] == ["SPACING_ASSUMED"]
    assert entries[1]["codes"] == ["UNREADABLE_PIXELS"]
    assert json.dumps(entries)
