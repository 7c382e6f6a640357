"""Which segmentation belongs to which reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from effvit_med.errors import InputError, SettingsError
from effvit_med.evaluation.pairs import Pair, find_pairs, find_references, read_pair
from effvit_med.io import write_nifti
from effvit_med.io.nifti import labels_path
from tests.evaluation.parts import block, labelled, write_labels
from tests.photographs import save

BOX = block((6, 6, 6), (1, 4), (1, 4), (1, 4))


def _decathlon(folder: Path, **parts: list[str]) -> Path:
    document = {
        "labels": {"0": "background", "1": "head", "2": "tail"},
        **{
            part: [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in names]
            for part, names in parts.items()
        },
        "test": ["./imagesTs/z.nii.gz"],
    }
    folder.mkdir(exist_ok=True)
    path = folder / "dataset.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_files_of_one_name_belong_together(tmp_path: Path) -> None:
    """Whatever their format, sorted by name; a reference without a segmentation is kept."""
    for name in ("b.nii.gz", "a.nii", "c.nii.gz"):
        write_labels(tmp_path / "truth" / name, BOX)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_labels(tmp_path / "ours" / name, BOX)
    pairs = find_pairs(find_references(tmp_path / "truth"), tmp_path / "ours")
    assert [(pair.case_id, pair.found and pair.found.name) for pair in pairs] == [
        ("a", "a.nii.gz"),
        ("b", "b.nii.gz"),
        ("c", None),
    ]


def test_folders_of_cases_are_understood(tmp_path: Path) -> None:
    """What ``effvit-med segment`` writes: a folder with the name of the case."""
    write_labels(tmp_path / "truth" / "a.nii.gz", BOX)
    write_labels(tmp_path / "ours" / "a" / "segmentation.nii.gz", BOX)
    (pair,) = find_pairs(find_references(tmp_path / "truth"), tmp_path / "ours")
    assert pair.found == tmp_path / "ours" / "a" / "segmentation.nii.gz"


def test_nothing_in_common_is_an_error_that_names_both(tmp_path: Path) -> None:
    """So that a wrong folder is seen at once."""
    write_labels(tmp_path / "truth" / "a.nii.gz", BOX)
    write_labels(tmp_path / "ours" / "other.nii.gz", BOX)
    with pytest.raises(InputError, match=r"name of a reference \(a, .*it has other"):
        find_pairs(find_references(tmp_path / "truth"), tmp_path / "ours")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Nobody can know which is meant."""
    for name in ("a.nii.gz", "a.nii"):
        write_labels(tmp_path / "truth" / name, BOX)
    with pytest.raises(InputError, match="have one name"):
        find_references(tmp_path / "truth")


def test_a_list_says_names_and_places(tmp_path: Path) -> None:
    """The validation part of a Decathlon list where there is one, with names for the values."""
    references = find_references(_decathlon(tmp_path, training=["a", "b"], validation=["c"]))
    assert list(references.labels) == ["c"]
    assert references.images["c"] == tmp_path / "imagesTr" / "c.nii.gz"
    assert references.table is not None
    assert [label.name for label in references.table] == ["head", "tail"]


def test_a_part_can_be_chosen(tmp_path: Path) -> None:
    """And training is taken where there is no validation."""
    path = _decathlon(tmp_path, training=["a", "b"], validation=["c"])
    assert list(find_references(path, "training").labels) == ["a", "b"]
    assert list(find_references(_decathlon(tmp_path, training=["a"])).labels) == ["a"]


def test_a_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The error says which parts there are; a folder has none."""
    path = _decathlon(tmp_path, training=["a"])
    with pytest.raises(SettingsError, match="it has training"):
        find_references(path, "validation")
    with pytest.raises(SettingsError, match="is a folder"):
        find_references(tmp_path, "training")


@pytest.mark.parametrize("text", ["", "[]", '{"training": [{"label": 3}]}', '{"labels": {"x": "y"}, "training": []}'])
def test_a_damaged_list_is_an_input_error(tmp_path: Path, text: str) -> None:
    """Not a traceback."""
    path = tmp_path / "dataset.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises((InputError, SettingsError)):
        find_references(path)


def test_an_empty_folder_is_an_input_error(tmp_path: Path) -> None:
    """It says what was expected."""
    with pytest.raises(InputError, match="no label maps"):
        find_references(tmp_path)


def test_scans_are_found_by_the_name_of_the_case(tmp_path: Path) -> None:
    """Also with the channel number that nnU-Net puts behind it."""
    for name in ("a", "b"):
        write_labels(tmp_path / "truth" / f"{name}.nii.gz", BOX)
    write_labels(tmp_path / "scans" / "a.nii.gz", BOX)
    write_labels(tmp_path / "scans" / "b_0000.nii.gz", BOX)
    references = find_references(tmp_path / "truth").with_images(tmp_path / "scans")
    assert {name: path.name for name, path in references.images.items()} == {"a": "a.nii.gz", "b": "b_0000.nii.gz"}


def test_names_come_from_whichever_file_has_them(tmp_path: Path) -> None:
    """A reference without a table is read with that of the segmentation."""
    write_labels(tmp_path / "truth.nii.gz", BOX)
    write_nifti(labelled(BOX), tmp_path / "ours.nii.gz")
    assert labels_path(tmp_path / "ours.nii.gz").is_file()
    truth, ours = read_pair(Pair("a", tmp_path / "truth.nii.gz", tmp_path / "ours.nii.gz"))
    assert [label.name for label in truth.table] == [label.name for label in ours.table] == ["head", "tail"]


def test_plain_names_cover_the_values_of_both(tmp_path: Path) -> None:
    """Where neither file has a table, a value that only one of them has is not lost."""
    write_labels(tmp_path / "truth.nii.gz", BOX)
    write_labels(tmp_path / "ours.nii.gz", BOX * 3)
    truth, ours = read_pair(Pair("a", tmp_path / "truth.nii.gz", tmp_path / "ours.nii.gz"))
    assert [label.value for label in truth.table] == [label.value for label in ours.table] == [1, 3]


def test_a_value_that_the_table_lacks_is_refused(tmp_path: Path) -> None:
    """Another numbering than that of the reference would be scored wrongly."""
    write_nifti(labelled(BOX), tmp_path / "truth.nii.gz")
    write_labels(tmp_path / "ours.nii.gz", BOX * np.uint8(9))
    with pytest.raises(InputError, match=r"\[9\]"):
        read_pair(Pair("a", tmp_path / "truth.nii.gz", tmp_path / "ours.nii.gz"))


def test_a_file_and_a_folder_of_one_case_are_refused(tmp_path: Path) -> None:
    """Which of the two is scored would be chance."""
    write_labels(tmp_path / "truth" / "a.nii.gz", BOX)
    write_labels(tmp_path / "ours" / "a.nii.gz", BOX)
    write_labels(tmp_path / "ours" / "a" / "segmentation.nii.gz", BOX)
    with pytest.raises(InputError, match="both a file and a folder"):
        find_pairs(find_references(tmp_path / "truth"), tmp_path / "ours")


def test_a_folder_of_scans_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    """Not a traceback."""
    write_labels(tmp_path / "truth" / "a.nii.gz", BOX)
    with pytest.raises(InputError, match="is no folder"):
        find_references(tmp_path / "truth").with_images(tmp_path / "scans")


def test_scans_of_other_names_are_an_input_error(tmp_path: Path) -> None:
    """Asked for pictures, nobody wants to find none and no reason."""
    write_labels(tmp_path / "truth" / "a.nii.gz", BOX)
    write_labels(tmp_path / "scans" / "other.nii.gz", BOX)
    with pytest.raises(InputError, match="has the name of a case"):
        find_references(tmp_path / "truth").with_images(tmp_path / "scans")


def test_previews_beside_volumes_are_no_label_maps(tmp_path: Path) -> None:
    """A picture of the name of a case neither competes with its label map nor is one; alone it is."""
    write_labels(tmp_path / "a.nii.gz", BOX)
    for name in ("a.png", "b.png"):
        save(np.zeros((8, 8), np.uint8), tmp_path / name)
    assert {name: path.name for name, path in find_references(tmp_path).labels.items()} == {"a": "a.nii.gz"}
    (tmp_path / "a.nii.gz").unlink()
    assert set(find_references(tmp_path).labels) == {"a", "b"}


def test_a_suffix_chooses_the_references(tmp_path: Path) -> None:
    """Of two observers one is taken, under the name of the case; a list names its files itself."""
    for name in ("a_1stHO.png", "a_2ndHO.png"):
        save(np.zeros((8, 8), np.uint8), tmp_path / name)
    assert {name: path.name for name, path in find_references(tmp_path, suffix="_2ndHO").labels.items()} == {
        "a": "a_2ndHO.png"
    }
    with pytest.raises(InputError, match="whose names end in _3rd"):
        find_references(tmp_path, suffix="_3rd")
    with pytest.raises(SettingsError, match="leave out the suffix"):
        find_references(tmp_path / "dataset.json", suffix="_2ndHO")
