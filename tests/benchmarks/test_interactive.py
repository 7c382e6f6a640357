"""The made-up reviewer finds the largest error, and the spoilers spoil what they say."""

import numpy as np
import pytest

from benchmarks.interactive import Answer, Course, make_prompt, summarise_answers, summarise_courses
from benchmarks.interactive_reviewer import SPOILERS, brush_with, dice, find_largest_error, review

SPACING = (2.0, 1.0, 1.0)


def make_labels():
    """A block of structure 2."""
    labels = np.zeros((24, 48, 48), np.uint8)
    labels[6:18, 12:36, 12:36] = 2
    return labels


def test_the_largest_error_is_found_in_its_middle():
    """Of a missing and a smaller superfluous part, the missing one is named, with its middle and radius."""
    truth = make_labels() == 2
    now = truth.copy()
    now[8:13, 14:25, 14:25] = False
    now[20:22, 40:44, 40:44] = True
    error = find_largest_error(now, truth, SPACING)
    assert error is not None
    assert error.missing
    assert error.index == (10, 19, 19)
    assert error.radius_mm == pytest.approx(6.0)
    assert find_largest_error(truth, truth, SPACING) is None


@pytest.mark.parametrize("name", SPOILERS)
def test_spoiled_labels_differ_and_the_brush_mends_them(name):
    """Each spoiler changes the structure alone; dabs of the brush never make it worse."""
    labels = make_labels()
    bad = SPOILERS[name](labels, 2, SPACING, np.random.default_rng(3))
    assert set(np.unique(bad)) == {0, 2}
    course = list(review(bad, labels, 2, SPACING, brush_with(SPACING, 2, flat=False), 4))
    assert course[0] < 1
    assert course == sorted(course)
    assert course[0] == dice(bad == 2, labels == 2)


@pytest.mark.parametrize("kind", ["point", "scribble", "box", "lasso"])
def test_prompts_of_every_kind_are_about_the_voxel(kind):
    """A made prompt is of its kind and in the slice of the voxel."""
    prompt = make_prompt(kind, 2, True, np.array([10, 20, 20]), np.random.default_rng(0))
    assert prompt.kind == kind
    assert {vertex[0] for vertex in prompt.index} == {10.0}


def test_the_tables_tell_tools_apart():
    """Answers of two tools stand in two rows; courses are averaged."""
    answers = [Answer("click", "point", True, 10, 5, 20.0), Answer("other", "point", True, 10, 5, 900.0)]
    table = summarise_answers(answers)
    assert "| click | point | 1 | 20 | 20 | 20 | 5 |" in table
    assert "| other | point | 1 | 900 |" in table
    courses = [Course("s", "a", "bites", "click", (0.5, 0.4), 1.0), Course("s", "b", "bites", "click", (0.5, 0.8), 1.0)]
    assert "| s | bites | click | 2 | 0.5000 | 0.6000 | 1 |" in summarise_courses(courses, (0, 1))
