"""Lists of labelled images for fine-tuning a promptable network: what `benchmarks.clicks` does not try it on.

Run from the repository's root: ``python -m benchmarks.click_lists --data ../shared/data -o runs/clicks.json``; then
``python -m monai.bundle run --config_file configs/interactive_train.yaml --datalist runs/clicks.json
--initial_weights FILE``. ``--images`` is that of `benchmarks.clicks`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.click_sets import CLICK_SETS, label_path, list_learnt
from effvit_med.io.atomic import write_json


def main() -> None:
    """Writes the list and says how many of each set are in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of openly licensed scans")
    parser.add_argument("--images", type=int, default=12, help="of a set that are tried")
    parser.add_argument("--most", type=int, default=60, help="of a set that are learnt from, so that none prevails")
    parser.add_argument("--spatial-dims", type=int, choices=(2, 3), default=2)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for chosen in CLICK_SETS:
        if (chosen.spatial_dims == 2) != (options.spatial_dims == 2) or chosen.cut:
            continue
        found = list_learnt(chosen, options.data, options.images)[: options.most]
        files = [{"image": str(path.resolve()), "label": str(label_path(chosen, path).resolve())} for path in found]
        # a small set is as often seen as a large one, but no image more than eight times as often as another
        rows += files * max(1, min(8, options.most // max(1, len(files))))
        print(f"{chosen.name}: {len(files)} images")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.output, {"training": rows})


if __name__ == "__main__":
    main()
