"""What tests of the review in the plugin share: a small scan with a wrong result, and waiting without a window."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from effvit_med.volume import Code, Finding, Geometry, Label, LabelTable, Provenance, Segmentation, Volume
from napari_effvit_med.layers import DisplayFrame
from napari_effvit_med.opening import OpenedReview, start_review

SHAPE = (12, 40, 48)
AFFINE = np.array([[0, 0, 1.5, -20], [0, 1.5, 0, -30], [4, 0, 0, 100], [0, 0, 0, 1]], float)
LIVER, SPLEEN = 1, 2


def make_scan() -> Volume:
    """An axial scan from the feet up, with a bright block (liver) and a darker one (spleen)."""
    noise = np.random.default_rng(3).normal(0, 2, SHAPE)
    array = noise.astype(np.float32)
    array[2:10, 8:30, 6:22] += 100
    array[3:9, 10:26, 30:42] += 60
    return Volume(array, Geometry(AFFINE, SHAPE), "CT")


def make_result(*, confidence: bool = True) -> Segmentation:
    """The automatic result: the right half of the liver's block is missing, and said to be in doubt."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:10, 8:30, 6:14] = LIVER
    labels[3:9, 10:26, 30:42] = SPLEEN
    sure = np.full(SHAPE, 255, np.uint8)
    sure[2:10, 8:30, 14:22] = 40
    table = LabelTable(
        (
            Label(LIVER, "liver", Code("10200004", "Liver"), colour=(221, 130, 101)),
            Label(SPLEEN, "spleen", Code("78961009", "Spleen"), colour=(157, 108, 162)),
        )
    )
    made = Provenance("demo", "1", "", {}, {}, "cpu", "2024-01-01T00:00:00+00:00")
    return Segmentation(labels, Geometry(AFFINE, SHAPE), table, made, sure if confidence else None)


def make_review(
    folder: Path, *, confidence: bool = True, reasons: tuple[tuple[int, Finding], ...] = ()
) -> OpenedReview:
    """A review that has just begun."""
    return start_review(make_scan(), make_result(confidence=confidence), folder, DisplayFrame(), "scan", reasons)


def wait_for(holds: Callable[[], bool], poll: Callable[[], None], timeout_s: float = 60.0) -> None:
    """Poll until something holds."""
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "it did not come true"
        poll()
        time.sleep(0.005)
