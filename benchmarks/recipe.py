"""What the training recipe costs beside the network's own work: `python -m benchmarks.recipe`.

It makes random volumes, so that it needs no data. It prints, as the mean of many, seconds of processor time on one
thread, which other work on the machine changes little: of one patch with and without augmentation, of a training step
with the same patches already there, and of cutting a patch out of a large prepared case whose file is mapped into
memory, against reading the whole file.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import torch
import yaml

TEMPLATES = Path(__file__).parents[1] / "effvit_med" / "planning" / "templates"


def mean_ms(work: Callable[[int], Any], repeats: int) -> float:
    """The mean processor time of a piece of work in milliseconds, after one that does not count.

    Args:
        work: gets the number of the repeat.
        repeats: how many count.
    """
    work(0)
    begin = time.process_time()
    for number in range(1, repeats + 1):
        work(number)
    return 1e3 * (time.process_time() - begin) / repeats


def measure_patches(patch: list[int], augmentation: float, repeats: int) -> dict[str, float]:
    """Milliseconds of a patch and of a step of two patches, by the transforms of the template itself.

    Args:
        patch: its size.
        augmentation: as the key of train.yaml.
        repeats: patches that count.
    """
    from monai.bundle import ConfigParser

    from effvit_med.engine import read_model
    from effvit_med.networks import build_network
    from effvit_med.training.cropping import MarkPlacesd
    from effvit_med.training.deep_supervision import DeepSupervision
    from effvit_med.training.patches import SeededPatches

    text = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES)).get_template("train.yaml.j2")
    parser = ConfigParser(yaml.safe_load(text.render(patch=patch, augmentation=augmentation)))
    parser["model"] = read_model()
    image, label = torch.randn(1, *patch), torch.zeros(1, *patch)
    label[0, patch[0] // 4 : patch[0] // 2, patch[1] // 4 : patch[1] // 2, patch[2] // 4 : patch[2] // 2] = 1
    case = MarkPlacesd("label", classes=3)({"image": image, "label": label})
    patches = SeededPatches([case], parser.get_parsed_content("train#preprocessing"), repeats + 1)
    network = DeepSupervision(build_network(3, 1, 3, preset="fullres_small", norm="instance"), 3).train()
    optimizer = torch.optim.AdamW(network.parameters())
    loss = parser.get_parsed_content("training_loss")
    batch = {key: torch.stack([torch.as_tensor(patches[index][key]) for index in (0, 1)]) for key in ("image", "label")}

    def step(_: int) -> None:
        optimizer.zero_grad()
        loss(network(batch["image"]), batch["label"]).backward()
        optimizer.step()

    return {
        "patch_ms": mean_ms(lambda number: patches[number], repeats),
        "step_ms": mean_ms(step, max(5, repeats // 20)),
    }


def measure_reading(shape: tuple[int, int, int], patch: tuple[int, int, int], repeats: int) -> dict[str, float]:
    """Milliseconds to cut a patch out of a prepared case in a mapped file, and to read the file as a whole.

    Args:
        shape: of the case.
        patch: size of the patch.
        repeats: patches that count.
    """
    from effvit_med.training.cases import PreparedCases
    from effvit_med.training.cropping import PLACES, RandPatchd

    def prepare(_: Mapping[str, Any]) -> dict[str, Any]:
        places = torch.zeros((0, 4), dtype=torch.int32)
        return {"image": torch.randn(1, *shape), "label": torch.zeros(1, *shape), PLACES: places}

    with tempfile.TemporaryDirectory() as folder:
        cases = PreparedCases([{"image": "made here"}], prepare, folder)
        cut = RandPatchd(["image", "label"], patch).set_random_state(0)
        mapped = mean_ms(lambda _: cut(cases[0]), repeats)
        path = next(Path(folder).glob("*.pt"))
        whole = mean_ms(lambda _: torch.load(path, weights_only=True), 3)
        return {"mapped_ms": mapped, "whole_ms": whole, "file_mb": path.stat().st_size / 1e6}


def main() -> None:
    """Measure and print; JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--patch", type=int, nargs=3, default=[40, 56, 40])
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"patch": options.patch, "threads": 1}
    for name, factor in (("augmented", 1.0), ("plain", 0.0)):
        result[name] = measure_patches(options.patch, factor, options.repeats)
        print(f"{name}: patch {result[name]['patch_ms']:.1f} ms, step of two {result[name]['step_ms']:.0f} ms")
    result["reading"] = measure_reading((200, 400, 400), (96, 96, 96), options.repeats)
    print(
        "a patch of 96^3 out of 200 x 400 x 400: {mapped_ms:.1f} ms mapped, {whole_ms:.0f} ms whole".format(
            **result["reading"]
        )
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
