"""Facts about `effvit_med.engine.quality`: the verdict on a structure and on a case."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from effvit_med.engine.quality import judge_case
from effvit_med.engine.quality_reference import Spread
from effvit_med.volume.measurements import measure
from tests.engine.quality_scene import (
    KIDNEY_LEFT,
    KIDNEY_RIGHT,
    LIVER,
    SHAPE,
    SPINE,
    codes_of,
    judge,
    model,
    of,
    organs,
    reference,
    scan,
    segmentation,
)


def test_what_is_usual_passes() -> None:
    """Organs like those of the training data give a pass without a reason; what is not there has no verdict."""
    quality = judge(organs(), reference())
    assert quality.verdict == "pass"
    assert not quality.reasons
    assert of(quality, "liver").verdict == "pass"
    assert not of(quality, "liver").reasons
    assert of(quality, "spleen").verdict is None
    assert codes_of(of(quality, "spleen")) == {"NOT_FOUND"}


def test_a_structure_at_the_border_is_to_be_reviewed() -> None:
    """A liver that the end of the scan cuts is named; the volume of a part is not called too small."""
    labels = organs()
    labels[labels == LIVER] = 0
    labels[22:, 8:12, 4:10] = LIVER
    quality = judge(labels, reference())
    assert codes_of(of(quality, "liver")) == {"TOUCHES_EDGE"}
    assert (of(quality, "liver").verdict, quality.verdict) == ("review", "review")


def test_a_structure_that_always_goes_through_may_touch_the_border() -> None:
    """The spine touches the border in every training case, so that nothing speaks against it."""
    assert of(judge(organs(), reference()), "spine").verdict == "pass"


def test_a_structure_at_the_border_is_still_too_large() -> None:
    """A part that is larger than every whole one in the training data is unusual."""
    labels = organs()
    labels[2:, :28, 2:28] = LIVER
    assert "VOLUME_UNUSUAL" in codes_of(of(judge(labels, reference()), "liver"))


def test_a_torn_structure_is_to_be_reviewed() -> None:
    """Two parts where training cases have one are told with the share outside the larger."""
    labels = organs()
    labels[8:11] = np.where(labels[8:11] == LIVER, 0, labels[8:11])
    labels[12:14] = np.where(labels[12:14] == LIVER, 0, labels[12:14])
    (reason,) = of(judge(labels, reference()), "liver").reasons
    assert reason.code == "FRAGMENTS"
    assert "2 separate parts, 14.3%" in reason.message


def test_a_speck_is_no_fragment() -> None:
    """A few stray voxels change no volume and no verdict."""
    labels = organs()
    labels[2, 2, 60] = LIVER
    assert of(judge(labels, reference()), "liver").verdict == "pass"


def test_parts_that_the_training_data_had_are_no_fragments() -> None:
    """Where a training case lies in two parts, so may another."""
    labels = organs()
    labels[10:14] = np.where(labels[10:14] == LIVER, 0, labels[10:14])
    known = reference()
    usual = known.structures["liver"].model_copy(update={"fragments": 2})
    known = known.model_copy(update={"structures": {**known.structures, "liver": usual}})
    assert "FRAGMENTS" not in codes_of(of(judge(labels, known), "liver"))


def test_a_hole_is_to_be_reviewed() -> None:
    """Background enclosed by a structure is a hole."""
    labels = organs()
    labels[12:15, 14:20, 10:16] = 0
    (reason,) = of(judge(labels, reference()), "liver").reasons
    assert reason.code == "HOLES"


def test_another_structure_inside_is_no_hole() -> None:
    """What is labelled as something else is not missing."""
    labels = organs()
    labels[12:15, 14:20, 10:16] = 2
    assert "HOLES" not in codes_of(of(judge(labels, reference()), "liver"))


@pytest.mark.parametrize("factor", [0.2, 3.0])
def test_a_volume_outside_the_training_data_is_unusual(factor: float) -> None:
    """Far more or far less than in any training case is told, with the value."""
    known = reference()
    spread = known.structures["liver"].volume_ml
    assert spread is not None
    moved = Spread.of([spread.median * factor * each for each in np.linspace(0.9, 1.1, 20)])
    usual = known.structures["liver"].model_copy(update={"volume_ml": moved})
    known = known.model_copy(update={"structures": {**known.structures, "liver": usual}})
    (reason,) = of(judge(organs(), known), "liver").reasons
    assert reason.code == "VOLUME_UNUSUAL"
    assert "384 mL" in reason.message


def test_swapped_kidneys_fail() -> None:
    """A left kidney on the patient's right of the right one fails, and both are named."""
    labels = organs()
    left, right = labels == KIDNEY_LEFT, labels == KIDNEY_RIGHT
    labels[left], labels[right] = KIDNEY_RIGHT, KIDNEY_LEFT
    quality = judge(labels, None)
    assert quality.verdict == "fail"
    assert of(quality, "kidney_left").verdict == of(quality, "kidney_right").verdict == "fail"
    assert "136 mm" in of(quality, "kidney_left").reasons[0].message


@pytest.mark.parametrize("orientation", ["SPL", "SPR", "IAR", "LPS", "PSR"])
def test_the_side_is_that_of_the_patient(orientation: str) -> None:
    """Right sides are right and wrong sides wrong, in whatever order and direction the voxels lie."""
    for labels in (organs(), organs()[:, :, ::-1].copy()):
        volume = scan()
        axes, flips = volume.geometry.reorienting(orientation)
        turned = np.flip(labels.transpose(axes), np.flatnonzero(flips))
        quality = judge(np.ascontiguousarray(turned), None, volume.reoriented(orientation))
        mirrored = labels[8, 34, 48] != KIDNEY_LEFT
        assert ("MIRRORED_LATERALITY" in codes_of(of(quality, "kidney_left"))) == mirrored


def test_a_side_can_be_told_without_a_counterpart() -> None:
    """A liver on the wrong side of a kidney fails although neither has its pair, as the training data never had it."""
    labels = organs()
    labels[labels == KIDNEY_RIGHT] = 0
    quality = judge(np.ascontiguousarray(labels[:, :, ::-1]), reference())
    assert of(quality, "liver").verdict == "fail"
    assert "all 20 training cases" in of(quality, "liver").reasons[0].message


def test_low_confidence_is_to_be_reviewed() -> None:
    """Less confidence than cases that were not trained on had speaks against every structure."""
    volume = scan()
    result = segmentation(organs(), volume, 150)
    quality = judge_case(volume, result, measure(volume, result), model(reference()))
    assert codes_of(of(quality, "liver")) == {"LOW_CONFIDENCE"}


def test_the_confidence_of_other_weights_is_not_judged() -> None:
    """A reference of other weights says nothing; the verdict stands on the other rules and says so."""
    known = reference().model_copy(update={"weights_sha256": "other"})
    row = of(judge(organs(), known), "liver")
    assert (row.verdict, codes_of(row)) == ("pass", {"CONFIDENCE_NOT_JUDGED"})


def test_a_missing_confidence_is_not_judged() -> None:
    """Without a confidence map the rule is left out, with the reason."""
    volume = scan()
    result = segmentation(organs(), volume, None)
    row = of(judge_case(volume, result, measure(volume, result), model(reference())), "liver")
    assert "no confidence map" in row.reasons[0].message


def test_without_a_reference_nothing_passes() -> None:
    """A bundle that keeps no reference gives no verdict where nothing was found, and says what was not judged."""
    quality = judge(np.where(organs() == SPINE, 0, organs()).astype(np.uint8), None)
    assert quality.verdict is None
    assert quality.out_of_distribution is None
    assert "keeps no reference" in quality.out_of_distribution_reason
    assert of(quality, "liver").verdict is None
    assert codes_of(of(quality, "liver")) == {"NO_REFERENCE"}
    assert codes_of(quality) == {"NO_REFERENCE"}


def test_mr_given_to_a_model_of_ct_fails() -> None:
    """Another modality than the model was trained on fails whatever the labels look like."""
    quality = judge(organs(), reference(), scan("MR"))
    assert (quality.verdict, codes_of(quality)) == ("fail", {"WRONG_MODALITY"})


def test_an_unknown_modality_is_no_wrong_one() -> None:
    """NIfTI does not say what it is."""
    assert judge(organs(), reference(), scan("")).verdict == "pass"


@pytest.mark.parametrize(
    ("code", "verdict"),
    [("MISSING_SLICES", "review"), ("UNUSUAL_VALUES", "fail"), ("SHEARED", "pass"), ("PADDING", "pass")],
)
def test_findings_of_reading_count_where_they_touch_the_labels(code: str, verdict: str) -> None:
    """Missing slices are to be reviewed, values of no scan fail, a tilted gantry changes nothing."""
    assert judge(organs(), reference(), None, code).verdict == verdict


def test_an_empty_result_is_to_be_reviewed() -> None:
    """No structure at all is no pass, even where no structure has a verdict."""
    quality = judge(np.zeros(SHAPE, np.uint8), reference())
    assert (quality.verdict, codes_of(quality)) == ("review", {"NOTHING_FOUND"})


def test_what_all_training_cases_show_is_missed() -> None:
    """A kidney that is not found where every training case has it is told; its own verdict stays empty."""
    labels = organs()
    labels[labels == KIDNEY_LEFT] = 0
    quality = judge(labels, reference())
    assert (quality.verdict, codes_of(quality)) == ("review", {"STRUCTURES_MISSING"})
    assert of(quality, "kidney_left").verdict is None


def test_intensities_unlike_the_training_data_are_found() -> None:
    """A scan of the training kind scores about 1, one with other values far more, and is told."""
    known = reference(*(scan(seed=seed) for seed in range(1, 20)))
    usual = judge(organs(), known)
    assert usual.verdict == "pass"
    assert usual.out_of_distribution is not None
    assert usual.out_of_distribution < 2
    strange = replace(scan(), array=(scan().array + 60).astype(np.int16))
    quality = judge(organs(), known, strange)
    assert quality.verdict == "fail"
    assert quality.out_of_distribution is not None
    assert quality.out_of_distribution > 20
    assert codes_of(quality) == {"OUT_OF_DISTRIBUTION"}


def test_a_scan_outside_the_window_has_no_score() -> None:
    """Where nothing lies in the range that the model looks at, the score is empty with a reason."""
    known = reference(*(scan(seed=seed) for seed in range(1, 20)))
    quality = judge(organs(), known, replace(scan(), array=np.full(SHAPE, 3000, np.int16)))
    assert quality.out_of_distribution is None
    assert "too few voxels" in quality.out_of_distribution_reason


def test_the_verdict_fits_into_json() -> None:
    """Every part of it is a plain value."""
    plain = json.loads(json.dumps(judge(organs(), reference()).to_dict()))
    assert plain["verdict"] == "pass"
    assert [row["structure"] for row in plain["structures"]][:2] == ["liver", "spleen"]


def test_the_spine_may_be_too_large() -> None:
    """What goes through every scan is compared with what went through the training scans."""
    labels = organs()
    labels[:, 30:46, 26:40] = np.where(labels[:, 30:46, 26:40] == 0, SPINE, labels[:, 30:46, 26:40])
    assert codes_of(of(judge(labels, reference()), "spine")) == {"VOLUME_UNUSUAL"}
