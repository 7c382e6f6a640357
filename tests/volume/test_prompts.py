"""Prompts keep what was pointed at, and refuse what cannot be meant."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effvit_med.errors import GeometryError
from effvit_med.volume.prompts import Prompt

finite = st.floats(-1e4, 1e4)
vertices = st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=5).map(tuple)


@given(vertices, st.booleans(), st.sampled_from(["point", "scribble"]))
def test_json_keeps_every_bit_of_a_prompt(index, adds, kind):
    """What is read back from JSON is equal to what was written, to the last bit."""
    prompt = Prompt(kind, 3, adds, index)
    assert Prompt.from_dict(json.loads(json.dumps(prompt.to_dict()))) == prompt


def test_json_keeps_the_axis_of_a_lasso():
    """A lasso that is read back lies across the same axis."""
    lasso = Prompt("lasso", 1, True, ((4, 0, 0), (4, 5, 0), (4, 5, 5)), axis=0)
    assert Prompt.from_dict(json.loads(json.dumps(lasso.to_dict()))) == lasso
    assert lasso.slice_number == 4


@given(vertices, st.tuples(st.integers(-50, 50), st.integers(-50, 50), st.integers(-50, 50)))
def test_moving_there_and_back_ends_where_it_began(index, by):
    """A prompt moved into a crop and out again points at the same voxels."""
    prompt = Prompt("point", 1, True, index)
    back = prompt.moved(by).moved([-step for step in by])
    assert all(a == pytest.approx(b, abs=1e-9) for a, b in zip(back.index, prompt.index, strict=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "circle"}, "kind of a prompt is 'circle'"),
        ({"value": 0}, "value of a prompt is 0"),
        ({"value": True}, "value of a prompt is True"),
        ({"adds": 1}, "adds is 1"),
        ({"index": ()}, "three finite numbers"),
        ({"index": ((1, 2),)}, "three finite numbers"),
        ({"index": ((1, 2, float("nan")),)}, "three finite numbers"),
        ({"index": ((1, 2, 3), (1,))}, "three finite numbers"),
        ({"axis": 0}, "only a box and a lasso"),
        ({"kind": "box", "axis": 0}, "A box has 1 vertices; give 2"),
        ({"kind": "lasso", "axis": 0}, "A lasso has 1 vertices; give at least 3"),
        ({"kind": "box", "index": ((1, 2, 3), (1, 5, 6))}, "axis of a box is None"),
        ({"kind": "box", "index": ((1, 2, 3), (4, 5, 6)), "axis": 0}, "slices 1 to 4 along axis 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(fields, message):
    """A prompt that contradicts itself raises an error that names the value."""
    with pytest.raises(GeometryError, match=message):
        Prompt.from_dict({"kind": "point", "value": 1, "adds": True, "index": ((1, 2, 3),), **fields})


@pytest.mark.parametrize("fields", [{}, {"kind": "point"}, {"colour": "red"}])
def test_a_record_with_other_fields_is_refused(fields):
    """A missing or an unknown field is named."""
    written = {"kind": "point", "value": 1, "adds": True, "index": [[1, 2, 3]]}
    with pytest.raises(GeometryError, match="A prompt has the fields"):
        Prompt.from_dict({**written, **fields} if "colour" in fields else fields)
