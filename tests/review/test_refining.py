"""A prompt changes what belongs to it in the image, and nothing that is locked, settled or far."""

import numpy as np
import pytest

from effvit_med.errors import GeometryError
from effvit_med.review.refining import LocalRefiner, RefineRequest, crop_around, cut_request, list_changes
from effvit_med.volume import Geometry, Volume
from effvit_med.volume.prompts import Prompt

pytest.importorskip("skimage", reason="scikit-image is not installed")

SHAPE = (20, 60, 60)
SPACING = (2.0, 1.0, 1.0)
GRID = Geometry(np.diag([*SPACING, 1.0]), SHAPE)


def make_scan():
    """A bright box in noise, the right half of which is not labelled, beside an equally bright box that is apart."""
    image = np.random.default_rng(0).normal(0, 8, SHAPE).astype(np.float32)
    truth = np.zeros(SHAPE, bool)
    truth[4:16, 20:40, 10:34] = True
    image[truth] += 100
    image[4:16, 20:40, 42:56] += 100
    labels = (truth & (np.arange(60) < 22)).astype(np.uint8)
    return image, labels, truth


def refine(image, labels, *prompts, **more):
    """The structure after the last of the prompts."""
    return LocalRefiner().refine(RefineRequest(image, labels, 1, prompts, SPACING, **more))


def dice(a, b):
    """The Dice coefficient."""
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def point(index, adds=True):
    """A click on structure 1."""
    return Prompt("point", 1, adds, (index,))


def test_a_click_adds_what_hangs_together_and_no_more():
    """One click into the missing half brings nearly all of it, and nothing of the box that is apart."""
    image, labels, truth = make_scan()
    after = refine(image, labels, point((10, 30, 28)))
    assert dice(labels == 1, truth) < 0.7
    assert dice(after, truth) > 0.9
    assert not after[..., 42:].any()


def test_a_click_takes_away_what_leaked():
    """One click into labels over the dark gap removes them and leaves the bright box."""
    image, labels, truth = make_scan()
    labels[truth] = 1
    labels[6:14, 24:36, 34:40] = 1
    after = refine(image, labels, point((10, 30, 37), adds=False))
    assert dice(after, truth) > 0.97


def test_an_adding_click_only_adds_and_a_removing_one_only_removes():
    """No click changes voxels the other way."""
    image, labels, _ = make_scan()
    assert not ((labels == 1) & ~refine(image, labels, point((10, 30, 28)))).any()
    assert not (refine(image, labels, point((10, 30, 15), adds=False)) & (labels != 1)).any()


@pytest.mark.parametrize("kind", ["point", "scribble", "box", "lasso"])
def test_locked_labels_do_not_change(kind):
    """Whatever is pointed at, voxels with a locked label stay as they are."""
    image, labels, _ = make_scan()
    labels[:, :, 26:30] = 7
    index = {
        "point": ((10, 30, 24),),
        "scribble": ((10, 30, 24), (10, 30, 32)),
        "box": ((10, 18, 20), (10, 42, 36)),
        "lasso": ((10, 18, 20), (10, 42, 20), (10, 42, 36), (10, 18, 36)),
    }[kind]
    prompt = Prompt(kind, 1, True, index, axis=0 if kind in ("box", "lasso") else None)
    after = refine(image, labels, prompt, locked=frozenset({7}))
    assert after.sum() > (labels == 1).sum()
    assert not after[labels == 7].any()


def test_an_earlier_click_keeps_its_surroundings():
    """A removing click near an earlier adding one does not take what is nearer to the earlier one."""
    image, labels, truth = make_scan()
    labels[truth] = 1
    kept, newest = point((10, 30, 18)), point((10, 30, 28), adds=False)
    assert not refine(image, labels, newest)[10, 30, 19]
    after = refine(image, labels, kept, newest)
    assert after[10, 30, 15:23].all()
    assert not after[10, 30, 28]


def test_the_newest_click_has_its_way_at_its_own_voxel():
    """A click on the very voxel of an earlier contrary one changes it."""
    image, labels, _ = make_scan()
    assert refine(image, labels, point((10, 30, 28), adds=False), point((10, 30, 28)))[10, 30, 28]


def test_a_click_on_what_is_so_already_changes_nothing():
    """An adding click inside of the structure leaves it as it is."""
    image, labels, _ = make_scan()
    assert np.array_equal(refine(image, labels, point((10, 30, 15))), labels == 1)


def test_the_same_request_gets_the_same_answer():
    """Two calls agree in every voxel; the request is left as it was."""
    image, labels, _ = make_scan()
    before = image.copy(), labels.copy()
    first, second = (refine(image, labels, point((10, 30, 28))) for _ in range(2))
    assert np.array_equal(first, second)
    assert np.array_equal(image, before[0])
    assert np.array_equal(labels, before[1])


@pytest.mark.parametrize("kind", ["box", "lasso"])
def test_an_outline_snaps_to_the_edges_in_its_slice(kind):
    """A box or lasso drawn 3 mm too large gives the bright box in that slice, and changes no other slice."""
    image, _, truth = make_scan()
    corners = {"box": ((10, 17, 7), (10, 42, 36)), "lasso": ((10, 17, 7), (10, 42, 7), (10, 42, 36), (10, 17, 36))}
    after = refine(image, np.zeros(SHAPE, np.uint8), Prompt(kind, 1, True, corners[kind], axis=0))
    assert dice(after[10], truth[10]) > 0.95
    assert not after[[9, 11]].any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_outline_works_across_every_axis(axis):
    """A lasso across another axis of a transposed scan gives the transposed result."""
    image, _, truth = make_scan()
    order = [(0, 1, 2), (1, 0, 2), (1, 2, 0)][axis]
    corners = np.array([(10, 17, 7), (10, 42, 7), (10, 42, 36), (10, 17, 36)])[:, order]
    prompt = Prompt("lasso", 1, True, tuple(map(tuple, corners.tolist())), axis=axis)
    turned = np.ascontiguousarray(image.transpose(order))
    spacing = tuple(SPACING[other] for other in order)
    request = RefineRequest(turned, np.zeros(turned.shape, np.uint8), 1, (prompt,), spacing)
    after = LocalRefiner().refine(request)
    assert dice(after.take(10, axis), truth.transpose(order).take(10, axis)) > 0.95


def test_changes_put_into_the_scan_give_what_was_refined():
    """Crop, refine and write back change the right voxels of the whole scan, and those of the structure alone."""
    image, labels, truth = make_scan()
    volume = Volume(image, GRID, "CT")
    request, crop = cut_request(volume, labels, [Prompt("point", 2, True, ((0, 0, 0),)), point((10, 30, 28))])
    structure = LocalRefiner().refine(request)
    flat, after = list_changes(request, structure, crop, SHAPE)
    assert (np.diff(flat) > 0).all()
    changed = labels.copy()
    changed.reshape(-1)[flat] = after
    assert np.array_equal(changed[crop] == 1, structure)
    assert dice(changed == 1, truth) > 0.9
    nothing, _ = list_changes(request, request.labels == 1, crop, SHAPE)
    assert nothing.size == 0


def test_a_crop_stays_inside_the_scan_and_holds_the_prompt():
    """At a corner the crop is cut off; around a long scribble it grows."""
    crop = crop_around([point((0, 59, 0))], GRID, 20)
    assert crop == (slice(0, 6), slice(49, 60), slice(0, 11))
    scribble = Prompt("scribble", 1, True, ((10, 10, 5), (10, 10, 55)))
    assert crop_around([scribble], GRID, 4)[2] == slice(3, 58)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((2, 3, 4), np.uint8)}, "must be one, of three axes"),
        ({"prompts": ()}, "has no prompt"),
        ({"value": 2}, "the request about 2"),
        ({"prompts": (point((0, 0, 60)),)}, "outside its crop"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused(change, message):
    """Shapes, structures and places must fit together."""
    image, labels, _ = make_scan()
    fields = {"image": image, "labels": labels, "value": 1, "prompts": (point((10, 30, 28)),), "spacing_mm": SPACING}
    with pytest.raises(GeometryError, match=message):
        RefineRequest(**{**fields, **change})
