"""Facts about `effvit_med.planning.layouts` and `effvit_med.planning.training_set`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effvit_med.errors import InputError, SettingsError
from effvit_med.planning.layouts import find_training_set
from effvit_med.volume import LabelTable
from tests.planning.parts import write_case, write_decathlon, write_folders


def test_a_decathlon_set_tells_names_modality_and_its_own_validation(tmp_path: Path) -> None:
    """Label names become plain, the validation list is the given split, test images without labels are passed over."""
    row = {"image": "images/c5.nii.gz", "label": "labels/c5.nii.gz"}
    rows = [{"image": f"images/c{n}.nii.gz", "label": f"labels/c{n}.nii.gz"} for n in range(5)]
    write_decathlon(tmp_path, training=rows, validation=[row], test=["images/none.nii.gz"])
    found = find_training_set(tmp_path)
    assert [label.name for label in found.table or ()] == ["head", "tail"]
    assert (found.layout, found.modality, len(found.cases)) == ("decathlon", "MR", 6)
    assert found.given_split == {"c5"}


def test_a_group_in_the_list_is_kept(tmp_path: Path) -> None:
    """A row may say to which patient it belongs; files of one name in several folders are told apart by folder."""
    for patient in ("p1", "p2"):
        write_case(tmp_path / patient, "ED", 1)
    rows = [
        {"image": f"{p}/images/ED.nii.gz", "label": f"{p}/labels/ED.nii.gz", "group": p, "case": f"{p}_ED"}
        for p in ("p1", "p2")
    ]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": rows, "labels": {"1": "a", "2": "b"}}))
    found = find_training_set(tmp_path)
    assert [(case.case_id, case.group) for case in found.cases] == [("p1_ED", "p1"), ("p2_ED", "p2")]


def _write_nnunet(folder: Path, **more: object) -> None:
    write_folders(folder, 3)
    (folder / "images").rename(folder / "imagesTr")
    (folder / "labels").rename(folder / "labelsTr")
    for path in list((folder / "imagesTr").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    document = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "head": 1, "tail": 2, "ignore": 3},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(document))


def test_an_nnunet_set_tells_modality_and_what_to_ignore(tmp_path: Path) -> None:
    """Channels are files, the label called ignore is no structure."""
    _write_nnunet(tmp_path)
    found = find_training_set(tmp_path)
    assert (found.layout, found.modality, found.ignore, len(found.cases)) == ("nnU-Net", "CT", 3, 3)
    assert [label.value for label in found.table or ()] == [1, 2]
    assert found.cases[0].image.name == "c0_0000.nii.gz"


def test_a_channel_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The error names the channels there are."""
    _write_nnunet(tmp_path)
    with pytest.raises(SettingsError, match=r"channel is 1; .* has 0 \(CT\)"):
        find_training_set(tmp_path, channel=1)


def test_several_channels_are_a_finding(tmp_path: Path) -> None:
    """Only one is learnt from, and that is said."""
    write_decathlon(tmp_path, modality={"0": "T1", "1": "T2"})
    assert [finding.code for finding in find_training_set(tmp_path).findings] == ["MANY_CHANNELS"]


def test_folders_pair_by_name_and_tell_who_is_alone(tmp_path: Path) -> None:
    """A file without a partner is left out with a finding, not silently."""
    write_folders(tmp_path, 3)
    (tmp_path / "labels" / "c2.nii.gz").unlink()
    found = find_training_set(tmp_path)
    assert [case.case_id for case in found.cases] == ["c0", "c1"]
    assert [(f.code, "c2" in f.message) for f in found.findings] == [("NO_PARTNER", True)]


def test_label_maps_may_have_longer_names_and_a_folder_of_another_name(tmp_path: Path) -> None:
    """case.nii.gz belongs to case_seg.nii.gz in the folder that --labels names."""
    write_folders(tmp_path, 2)
    (tmp_path / "labels").rename(tmp_path / "first_reader")
    for path in list((tmp_path / "first_reader").iterdir()):
        path.rename(path.with_name(path.name.replace(".nii.gz", "_seg.nii.gz")))
    found = find_training_set(tmp_path, labels="first_reader")
    assert [case.label.name for case in found.cases] == ["c0_seg.nii.gz", "c1_seg.nii.gz"]


def test_two_label_maps_of_one_image_are_refused(tmp_path: Path) -> None:
    """Nobody can tell which is meant, so the error names both."""
    write_folders(tmp_path, 1)
    path = tmp_path / "labels" / "c0.nii.gz"
    path.with_name("c0_a.nii.gz").write_bytes(path.read_bytes())
    path.rename(path.with_name("c0_b.nii.gz"))
    with pytest.raises(InputError, match="belong to c0: c0_a, c0_b"):
        find_training_set(tmp_path)


def test_a_folder_without_a_known_layout_says_what_is_in_it(tmp_path: Path) -> None:
    """The error lists the folders and the option."""
    (tmp_path / "scans").mkdir()
    with pytest.raises(InputError, match=r"in it are scans\..*--labels"):
        find_training_set(tmp_path)


def test_files_that_are_not_there_are_counted(tmp_path: Path) -> None:
    """A list that names missing files is refused with their number and one of them."""
    write_decathlon(tmp_path)
    (tmp_path / "labels" / "c1.nii.gz").unlink()
    with pytest.raises(InputError, match=r"1 files that are not there.*c1"):
        find_training_set(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"training": 3}', '{"training": [], "labels": {}}'])
def test_a_damaged_list_is_an_error_of_ours(tmp_path: Path, text: str) -> None:
    """No KeyError or TypeError reaches the user."""
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json"):
        find_training_set(tmp_path)


def test_groups_are_cut_out_of_names(tmp_path: Path) -> None:
    """What the bracket finds is the group; a name in which it finds nothing is refused."""
    for name in ("ann_1", "ann_2", "bob_1"):
        write_case(tmp_path, name, len(name))
    found = find_training_set(tmp_path)
    assert [case.group for case in found.grouped_by(r"^([a-z]+)_").cases] == ["ann", "ann", "bob"]
    with pytest.raises(SettingsError, match="finds nothing in the name 'ann_1'"):
        found.grouped_by("x(.)")
    with pytest.raises(SettingsError, match="no regular expression"):
        found.grouped_by("(")


def test_names_can_be_given_to_values(tmp_path: Path) -> None:
    """Names of the user stand before those of the data set."""
    found = find_training_set(write_decathlon(tmp_path)).naming({2: "Long tail"})
    assert [label.name for label in found.table or ()] == ["head", "long_tail"]


def test_regions_of_nnunet_become_outputs(tmp_path: Path) -> None:
    """A region is an output; the label value that it is written as bears its name."""
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    _write_nnunet(tmp_path, labels=labels, regions_class_order=[1, 2])
    found = find_training_set(tmp_path)
    assert found.head.names(found.table or LabelTable(())) == ("whole", "core")
    assert [(label.value, label.name) for label in found.table or ()] == [(1, "whole"), (2, "core")]
    assert found.ignore == 3


def test_regions_without_an_order_are_refused(tmp_path: Path) -> None:
    """Nobody could tell which label a voxel of two regions gets."""
    _write_nnunet(tmp_path, labels={"background": 0, "whole": [1, 2], "core": 2})
    with pytest.raises(InputError, match="regions_class_order must give one value for each"):
        find_training_set(tmp_path)
