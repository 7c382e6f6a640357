"""Facts about `effvit_med.planning.checks` and `effvit_med.planning.case_facts`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effvit_med.errors import RefusedError
from effvit_med.planning.case_facts import measure_case
from effvit_med.planning.checks import examine
from effvit_med.planning.layouts import find_training_set
from effvit_med.planning.training_set import TrainingCase
from tests.planning.parts import examined, make_image, write_case, write_decathlon, write_folders


def test_every_damaged_case_is_listed_with_its_remedy(tmp_path: Path) -> None:
    """One damaged case does not hide the next: five kinds of damage are all told at once."""
    write_decathlon(tmp_path, 6)
    image, labels = make_image(0)
    write_case(tmp_path, "c0", 0, labels=labels[:, :, 1:])
    write_case(tmp_path, "c1", 1, image=np.full(image.shape, 7, np.int16))
    write_case(tmp_path, "c2", 2, labels=np.where(labels == 2, 9, labels).astype(np.uint8))
    write_case(tmp_path, "c3", 3, labels=(labels * 0.5).astype(np.float32))
    (tmp_path / "images" / "c4.nii.gz").write_bytes(b"no image")
    examination = examined(tmp_path)
    codes = {problem.case_id: problem.code for problem in examination.problems}
    wanted = {"c0": "NOT_ONE_GRID", "c1": "CONSTANT_IMAGE", "c2": "UNKNOWN_LABEL", "c3": "NOT_LABELS"}
    assert codes == {**wanted, "c4": "UNREADABLE"}
    with pytest.raises(
        RefusedError, match=r"(?s)5 of 6 cases.*c0\.nii\.gz.*16 x 24 x 23.*c2\.nii\.gz.*9 \(.*c4"
    ) as told:
        examination.require_sound()
    assert "--leave-out-damaged" in str(told.value)
    assert [f.case_id for f in examination.without_problems().facts] == ["c5"]


def test_a_label_map_that_lies_elsewhere_is_told_in_mm(tmp_path: Path) -> None:
    """Equal shapes are not enough: the distance is measured."""
    write_folders(tmp_path, 3)
    write_case(tmp_path / "other", "c0", 0, spacing_mm=(1.0, 1.0, 1.1))
    (tmp_path / "other" / "labels" / "c0.nii.gz").rename(tmp_path / "labels" / "c0.nii.gz")
    (problem,) = examined(tmp_path).problems
    assert (problem.code, "2.30 mm" in problem.message) == ("NOT_ONE_GRID", True)


def test_copies_share_a_group(tmp_path: Path) -> None:
    """The same image under two names stays on one side of every split, and is a finding."""
    write_folders(tmp_path, 4)
    write_case(tmp_path, "copy", 2)
    examination = examined(tmp_path)
    groups = {case.case_id: case.group for case in examination.training_set.cases}
    assert groups["copy"] == groups["c2"]
    assert len(set(groups.values())) == 4
    assert [f.message[:8] for f in examination.findings if f.code == "COPIES"] == ["c2, copy"]


def test_copies_join_whole_groups(tmp_path: Path) -> None:
    """Where a copy lies in another patient's group, both groups become one."""
    write_folders(tmp_path, 4)
    write_case(tmp_path, "copy", 2)
    found = find_training_set(tmp_path)
    grouped = [
        replace(case, group={"c2": "A", "c3": "A", "copy": "B", "c0": "B"}.get(case.case_id, "C"))
        for case in found.cases
    ]
    groups = {case.case_id: case.group for case in examine(replace(found, cases=tuple(grouped))).training_set.cases}
    assert len({groups[name] for name in ("c0", "c2", "c3", "copy")}) == 1
    assert groups["c1"] != groups["c0"]


def test_the_same_image_with_other_labels_is_refused(tmp_path: Path) -> None:
    """Nobody can learn both; the message names the pair."""
    write_folders(tmp_path, 3)
    write_case(tmp_path, "other", 1, labels=make_image(2)[1])
    (problem,) = examined(tmp_path).problems
    assert (problem.code, problem.case_id) == ("CONTRADICTING_LABELS", "other")
    assert "c1" in problem.message


def test_a_copy_on_both_sides_of_the_given_split_is_leakage(tmp_path: Path) -> None:
    """What is validated on must not have been learnt."""
    rows = [{"image": f"images/c{n}.nii.gz", "label": f"labels/c{n}.nii.gz"} for n in range(6)]
    write_decathlon(tmp_path, training=rows[:4], validation=rows[4:])
    write_case(tmp_path, "c5", 0)
    (problem,) = examined(tmp_path).problems
    assert (problem.code, problem.case_id, "c0" in problem.message) == ("LEAKAGE", "c5", True)


def test_single_objects_are_not_taken_for_structures(tmp_path: Path) -> None:
    """A label map that numbers its objects is refused with what to do, where nothing names the values."""
    write_folders(tmp_path, 2)
    numbers = np.arange(16 * 24 * 24).reshape(16, 24, 24) // 200
    write_case(tmp_path, "c1", 1, labels=numbers.astype(np.uint16))
    with pytest.raises(RefusedError, match=r"INSTANCES: c1.*--structure"):
        examined(tmp_path)


def test_what_few_cases_mark_is_asked_about(tmp_path: Path) -> None:
    """Absent, or not drawn? Silent where the list says that it was not looked for."""
    write_decathlon(tmp_path, 4)
    _, labels = make_image(0)
    for number in (0, 1):
        write_case(
            tmp_path,
            f"c{number}",
            number,
            labels=np.where(make_image(number)[1] == 2, 0, labels * 0 + make_image(number)[1]).astype(np.uint8),
        )
    assert [f.code for f in examined(tmp_path).findings] == ["SELDOM_MARKED"]
    found = find_training_set(tmp_path)
    cases = [replace(case, annotated=("head",) if case.case_id in ("c0", "c1") else None) for case in found.cases]
    assert not examine(replace(found, cases=tuple(cases))).findings


def test_a_structure_that_nobody_marked_is_a_finding(tmp_path: Path) -> None:
    """It stays in the table, so that outputs keep their meaning."""
    write_decathlon(tmp_path, 3, {"1": "head", "2": "tail", "3": "wing"})
    examination = examined(tmp_path)
    assert [(f.code, "wing" in f.message) for f in examination.findings] == [("NEVER_MARKED", True)]
    assert len(examination.training_set.table or ()) == 3


def test_an_empty_label_map_is_a_finding(tmp_path: Path) -> None:
    """A healthy case is right to have one; a forgotten one is not."""
    write_folders(tmp_path, 3)
    write_case(tmp_path, "c1", 1, labels=np.zeros((16, 24, 24), np.uint8))
    assert "NOTHING_MARKED" in [finding.code for finding in examined(tmp_path).findings]


def test_values_that_are_not_finite_are_a_finding(tmp_path: Path) -> None:
    """The reader replaces them; the plan says so."""
    image = make_image(1)[0].astype(np.float32)
    image[0, 0, 0] = np.nan
    write_folders(tmp_path, 3)
    write_case(tmp_path, "c1", 1, image=image)
    assert [f for f in examined(tmp_path).findings if "c1" in f.message or "NaN" in f.message or "finite" in f.message]


@pytest.mark.parametrize(("radius", "spacing"), [(6, 1.0), (5, 2.0)])
def test_thickness_is_about_the_diameter_of_a_cord(tmp_path: Path, radius: int, spacing: float) -> None:
    """A slanting cylinder of voxels measures its diameter within a fifth, in mm."""
    shape = (40, 40, 40)
    a, b, c = np.indices(shape) - 20.0
    direction = np.array([1.0, 0.7, 0.4]) / np.linalg.norm([1.0, 0.7, 0.4])
    along = a * direction[0] + b * direction[1] + c * direction[2]
    inside = a**2 + b**2 + c**2 - along**2 < radius**2
    write_case(tmp_path, "cord", 1, shape, (spacing,) * 3, labels=inside.astype(np.uint8))
    places = [tmp_path / kind / "cord.nii.gz" for kind in ("images", "labels")]
    facts = measure_case(TrainingCase("cord", places[0], places[1], "cord"), None)
    assert facts.thickness_mm[1] == pytest.approx(2 * radius * spacing, rel=0.2)
