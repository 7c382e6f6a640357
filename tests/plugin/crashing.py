"""A process that reviews with napari's viewer model until it is killed; it says on stdout what it was told is kept.

Called with the folder of a home and the folder of a scan. Each line is a word and the digest of the labels after it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from effvit_med.io import open_input, read_case
from effvit_med.volume.counts import digest_labels
from effvit_med.volume.prompts import Prompt
from tests.plugin.parts import wait_for

SHAPE = (20, 112, 144)
CLICKS = ((10, 50, 60), (5, 40, 50), (14, 35, 45))
"""Places of the first structure, which is taken away there."""
FIRST, SECOND = 1, 2


def main(source: Path) -> None:
    """Review labels of a scan: three clicks, a stroke, an undo, then click after click without waiting."""
    from napari.components import ViewerModel

    from napari_effvit_med.controller import Controller

    viewer = ViewerModel()
    control = Controller(viewer)
    with open_input(source) as found:
        control.show_volume(read_case(found.cases[0]))
    image = viewer.layers[0]
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 30:60, 40:70] = FIRST
    labels[:, 60:90, 70:100] = SECOND
    place = {"scale": image.scale, "translate": image.translate, "units": image.units}
    control.review_labels(viewer.add_labels(labels, **place), image)
    wait_for(lambda: not control.running, control.poll)
    desk = control.desk
    assert desk.opened is not None, control.message
    session, layer = desk.opened.session, desk.layer

    def confirm(word: str) -> None:
        wait_for(lambda: not desk.busy, control.poll)
        assert not control.is_error, control.message
        print(word, digest_labels(session.labels), flush=True)

    print("folder", session.folder, flush=True)
    confirm("start")
    desk.choose(FIRST, jump=False)
    for place_of_click in CLICKS:
        desk.prompt(Prompt("point", FIRST, False, (place_of_click,)))
        confirm("click")
    layer.mode, layer.selected_label, layer.brush_size = "paint", SECOND, 9
    layer.paint((4, 20, 20), SECOND)
    confirm("stroke")
    desk.undo()
    confirm("undo")
    desk.redo()
    confirm("redo")
    print("endless", os.getpid(), flush=True)
    draw = np.random.default_rng(0)
    while True:  # a click is under way at any moment from now on
        index = tuple(int(at) for at in draw.integers(2, np.array(SHAPE) - 2))
        desk.prompt(Prompt("point", FIRST, bool(draw.integers(2)), (index,)))
        control.poll()
        time.sleep(0.002)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
