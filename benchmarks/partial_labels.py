"""What labels are worth that lack structures in every case, on the hippocampi of the Medical Segmentation Decathlon.

Run from the repository's root: ``python -m benchmarks.partial_labels FOLDER`` (``--steps 400 --train 80``), FOLDER with
``images`` and ``labels``. The same small network is trained the same way on the same images with four kinds of labels:

- ``all``: both parts in every case;
- ``half the cases``: both parts in half of the cases; as many structures were drawn as in the next two;
- ``merged``: one part in each case, told to the loss as ``annotated``;
- ``as background``: one part in each case, the other taken for background.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureTyped, RandFlipd, RandSpatialCropd
from monai.utils import set_determinism
from torch import Tensor, nn

from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.bundle import LoadVolumed, MarkOutputsd, PrepareVolumed
from effvit_med.engine import read_model
from effvit_med.engine.model import Model
from effvit_med.evaluation import mean_interval
from effvit_med.training.label_codes import list_annotations
from effvit_med.training.losses import HeadLoss
from effvit_med.transforms import Intensity, Preprocess, cut_mirrored
from effvit_med.volume import Label, LabelTable
from effvit_med.volume.labels import ANATOMICAL_STRUCTURE

PARTS = ("anterior", "posterior")
ARMS = ("all", "half the cases", "merged", "as background")
PATCH = (32, 40, 32)

Case = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """One kind of labels.

    Attributes:
        arm: which.
        dice: of each test case, mean over the two parts.
        by_part: mean over the test cases, of each part.
        seconds: of training.
    """

    arm: str
    dice: tuple[float, ...]
    by_part: tuple[float, ...]
    seconds: float


def make_model() -> Model:
    """Two parts on a grid of 1 mm, clipped between percentiles."""
    labels = LabelTable(tuple(Label(i, name, ANATOMICAL_STRUCTURE) for i, name in enumerate(PARTS, start=1)))
    preprocess = Preprocess((1.0, 1.0, 1.0), orientation="RAS", intensity=Intensity("percentile", 0.5, 99.5))
    return replace(read_model(), labels=labels, preprocess=preprocess, quality=None)


def choose_cases(cases: Sequence[Case], arm: str) -> list[Case]:
    """The training cases as an arm has them; the first half of them lacks the posterior part, the second the anterior.

    Args:
        cases: with ``image`` and ``label``.
        arm: one of `ARMS`.

    Examples:
        >>> [case.get("annotated") for case in choose_cases([{"label": "a"}, {"label": "b"}], "merged")]
        [['anterior'], ['posterior']]
    """
    half = len(cases) // 2
    if arm == "all":
        return list(cases)
    if arm == "half the cases":
        return list(cases[:half])
    return [{**case, "annotated": [PARTS[number >= half]]} for number, case in enumerate(cases)]


def hide_parts(label: Tensor, annotated: Sequence[str] | None) -> Tensor:
    """A label map with only the annotated parts; the others are background, as whoever did not draw them left them.

    Examples:
        >>> hide_parts(torch.tensor([0, 1, 2]), ["posterior"]).tolist()
        [0, 0, 2]
    """
    for value, name in enumerate(PARTS, start=1):
        if annotated is not None and name not in annotated:
            label = torch.where(label == value, 0, label)
    return label


class _Drawn:
    """Leaves of a label map what the case has annotated, and, for the arm that does not know, the word for it out."""

    def __init__(self, *, told: bool) -> None:
        self._told = told

    def __call__(self, case: Case) -> Case:
        case = {**case, "label": hide_parts(case["label"], case.get("annotated"))}
        if not self._told:
            case.pop("annotated", None)
        return case


def train(cases: Sequence[Case], model: Model, steps: int, seed: int, *, told: bool) -> nn.Module:
    """A small U-Net after some steps.

    Args:
        cases: as of `choose_cases`.
        model: how they are prepared.
        steps: of two patches.
        seed: of weights, order and patches.
        told: whether the loss knows what was annotated.
    """
    set_determinism(seed)
    annotations = list_annotations(cases) if told else []
    preparing = [
        LoadVolumed(["image", "label"]),
        _Drawn(told=told),
        PrepareVolumed("image", model, label_key="label", at_least=PATCH, annotations=annotations),
        EnsureTyped(["image", "label"], track_meta=False),
    ]
    chance = [
        RandSpatialCropd(["image", "label"], PATCH, random_size=False),
        *(RandFlipd(["image", "label"], prob=0.5, spatial_axis=axis) for axis in range(3)),
    ]
    dataset = CacheDataset(cases, Compose([*preparing, *chance]), num_workers=1, progress=False)
    loader = DataLoader(dataset, batch_size=2, shuffle=True, drop_last=True)
    network = UNet(3, 1, len(PARTS) + 1, (8, 16, 32, 64), (2, 2, 2), num_res_units=1, norm="instance")
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    loss = HeadLoss(model, annotations)
    done = 0
    while done < steps:
        for batch in loader:
            optimiser.zero_grad()
            loss(network(batch["image"]), batch["label"]).backward()
            optimiser.step()
            schedule.step()
            done += 1
            if done == steps:
                break
    return network.eval()


@torch.inference_mode()
def score(network: nn.Module, cases: Sequence[Case], model: Model) -> Tensor:
    """(cases, parts) Dice of whole volumes."""
    prepare = Compose([LoadVolumed(["image", "label"]), PrepareVolumed("image", model, label_key="label")])
    mark, metric = MarkOutputsd(model), DiceMetric(include_background=False, reduction="none")
    rows = []
    for case in cases:
        prepared = prepare(case)
        image, label = (torch.as_tensor(prepared[key]) for key in ("image", "label"))
        padded = cut_mirrored(image, (0, 0, 0), [size + -size % 8 for size in image.shape[1:]])
        logits = network(padded[None])[0, :, : image.shape[1], : image.shape[2], : image.shape[3]]
        marked = mark({"pred": logits, "label": label})
        rows.append(metric(y_pred=marked["pred"][None], y=marked["label"][None])[0])
    return torch.stack(rows)


def to_markdown(scores: Sequence[Score], train_cases: int, steps: int, seeds: int) -> str:
    """The table."""
    rows = []
    for each in scores:
        interval = mean_interval(each.dice)
        rows.append(
            [
                each.arm,
                f"{statistics.fmean(each.dice):.3f}",
                f"{interval.low:.3f} to {interval.high:.3f}",
                *(f"{value:.3f}" for value in each.by_part),
                f"{each.seconds:.0f}",
            ]
        )
    head = ["labels", "Dice", "95 % interval", *PARTS, "training, s"]
    return "\n".join(
        [
            "# Labels that lack structures",
            "",
            (
                f"MONAI's U-Net of widths 8 to 64 after {steps} steps of two patches of {PATCH} on {train_cases} "
                f"hippocampi; mean of {seeds} seed(s), on {len(scores[0].dice)} other cases. Far from full training: "
                "it compares kinds of labels, not networks."
            ),
            "",
            make_table(head, rows),
        ]
    )


def run(folder: Path, train_cases: int, test_cases: int, steps: int, seeds: Sequence[int]) -> list[Score]:
    """All arms, one after the other.

    Raises:
        ValueError: if the folder has too few cases.
    """
    names = sorted(
        path.name for path in (folder / "labels").glob("*.nii.gz") if (folder / "images" / path.name).is_file()
    )
    if len(names) < train_cases + test_cases:
        raise ValueError(
            f"{folder} has {len(names)} cases with images and labels; {train_cases + test_cases} are asked for"
        )
    order = np.random.default_rng(0).permutation(len(names))
    cases: list[Case] = [
        {"image": str(folder / "images" / names[i]), "label": str(folder / "labels" / names[i])} for i in order
    ]
    model, test = make_model(), cases[train_cases : train_cases + test_cases]
    scores = []
    for arm in ARMS:
        seconds, found = 0.0, []
        for seed in seeds:
            start = time.perf_counter()
            network = train(choose_cases(cases[:train_cases], arm), model, steps, seed, told=arm != "as background")
            seconds += time.perf_counter() - start
            found.append(score(network, test, model))
        dice = torch.stack(found).mean(dim=0)
        means = tuple(dice.mean(dim=1).tolist()), tuple(dice.mean(dim=0).tolist())
        scores.append(Score(arm, *means, seconds / len(seeds)))
        print(arm, f"{statistics.fmean(scores[-1].dice):.4f}", flush=True)
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all arms and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with images and labels of one name")
    parser.add_argument("--train", type=int, default=80, help="training cases")
    parser.add_argument("--test", type=int, default=40, help="test cases")
    parser.add_argument("--steps", type=int, default=400, help="training steps")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds")
    chosen = parser.parse_args(arguments)
    made = describe_circumstances("benchmarks.partial_labels", arguments)
    scores = run(chosen.folder, chosen.train, chosen.test, chosen.steps, range(chosen.seeds))
    figures = {"steps": chosen.steps, "train_cases": chosen.train, "scores": [asdict(each) for each in scores]}
    write_report("partial_labels", to_markdown(scores, chosen.train, chosen.steps, chosen.seeds), figures, made)


if __name__ == "__main__":
    main()
