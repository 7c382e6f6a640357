"""How well the shipped model segments phantoms that it was never trained on, on each scan's own grid.

Run from the repository's root: ``python -m benchmarks.accuracy`` (``--seeds 0:20``, ``--bundle PATH``). The phantoms
are those of training, drawn from other seeds. They are far easier than patients: a good result shows that nothing is
put together wrongly, from preprocessing to labels, and nothing about patients.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.engine import Segmenter, Settings, read_model
from effvit_med.evaluation import mean_interval
from effvit_med.io import read_nifti
from effvit_med.training.data import read_datalist, write_phantom_dataset
from effvit_med.volume import LabelTable, Volume

TRAINED_ON = (*range(1000, 1064), *range(500, 506))
"""Seeds of configs/train.yaml; to score on them would say nothing."""

TARGETS = {"liver": 0.95, "spleen": 0.95, "kidney_left": 0.95, "kidney_right": 0.95, "spine": 0.95, "aorta": 0.85}
"""The mean Dice that each structure is to reach: 0.95 for the large ones, 0.85 for the small one."""

LabelArray = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Score:
    """One structure of one scan.

    Attributes:
        seed: of the phantom.
        structure: its name.
        exact_voxels: how many voxels it has.
        found_voxels: how many were labelled.
        dice: 2 |A and B| / (|A| + |B|); None if the scan does not show the structure.
    """

    seed: int
    structure: str
    exact_voxels: int
    found_voxels: int
    dice: float | None

    @property
    def volume_error_percent(self) -> float:
        """What was found too much (above 0) or too little; only for structures that the scan shows."""
        return 100 * (self.found_voxels - self.exact_voxels) / self.exact_voxels


@dataclass(frozen=True)
class Summary:
    """One structure over all scans that show it.

    Attributes:
        structure: its name.
        scans: how many show it.
        absent: how many do not.
        false_alarms: in how many of those some voxel was labelled all the same.
        mean: mean Dice; NaN if no scan shows it, as are all figures below.
        sd: standard deviation between scans.
        minimum: the worst scan.
        interval: 95 % bootstrap interval of the mean.
        volume_error_percent: mean error of the volume with its sign.
        volume_error_abs_percent: mean error of the volume without its sign.
        target: what the mean is to reach; None if nothing was promised.
    """

    structure: str
    scans: int
    absent: int
    false_alarms: int
    mean: float
    sd: float
    minimum: float
    interval: tuple[float, float]
    volume_error_percent: float
    volume_error_abs_percent: float
    target: float | None

    @property
    def holds(self) -> bool | None:
        """Whether the mean reaches its target; None if there is none."""
        return None if self.target is None else self.mean >= self.target


def compare_labels(found: LabelArray, exact: LabelArray, table: LabelTable, seed: int) -> list[Score]:
    """The score of every structure of one scan.

    Args:
        found: labels of the model.
        exact: labels of the phantom, same shape.
        table: the structures.
        seed: of the phantom.

    Raises:
        ValueError: if the shapes differ.
    """
    if found.shape != exact.shape:
        raise ValueError(f"the labels have the shape {found.shape}, the truth {exact.shape}")
    scores = []
    for label in table:
        a, b = found == label.value, exact == label.value
        both, ours, truth = (int(np.count_nonzero(mask)) for mask in (a & b, a, b))
        scores.append(Score(seed, label.name, truth, ours, 2 * both / (ours + truth) if truth else None))
    return scores


def summarise(scores: Sequence[Score], structure: str) -> Summary:
    """One row of the table."""
    ours = [score for score in scores if score.structure == structure]
    shown = [score for score in ours if score.dice is not None]
    dice = [score.dice for score in shown if score.dice is not None]
    errors = [score.volume_error_percent for score in shown]
    interval = mean_interval(dice)
    nan = float("nan")
    return Summary(
        structure=structure,
        scans=len(shown),
        absent=len(ours) - len(shown),
        false_alarms=sum(score.dice is None and score.found_voxels > 0 for score in ours),
        mean=statistics.fmean(dice) if dice else nan,
        sd=statistics.stdev(dice) if len(dice) > 1 else nan,
        minimum=min(dice, default=nan),
        interval=(interval.low, interval.high),
        volume_error_percent=statistics.fmean(errors) if errors else nan,
        volume_error_abs_percent=statistics.fmean(map(abs, errors)) if errors else nan,
        target=TARGETS.get(structure),
    )


def draw_scans(seeds: Sequence[int]) -> Iterator[tuple[int, Volume, Volume]]:
    """Each phantom and its exact labels, on the grid that training draws for its seed, one at a time."""
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            case = read_datalist(write_phantom_dataset(folder, [], [seed]), "validation")[0]
            image, label = (read_nifti(Path(case[kind])) for kind in ("image", "label"))
        yield seed, image, label


def to_markdown(summaries: Sequence[Summary], scans: int, model: str) -> str:
    """The table and whether the targets hold."""
    head = [
        "structure",
        "scans (absent)",
        "Dice mean",
        "95 % interval",
        "sd",
        "min",
        "volume error, % (absolute)",
        "target",
    ]
    words = {True: "holds", False: "MISSED", None: ""}
    rows = [
        [
            each.structure,
            f"{each.scans} ({each.absent})",
            f"{each.mean:.4f}",
            f"{each.interval[0]:.4f} to {each.interval[1]:.4f}",
            f"{each.sd:.4f}",
            f"{each.minimum:.4f}",
            f"{each.volume_error_percent:+.2f} ({each.volume_error_abs_percent:.2f})",
            "" if each.target is None else f"{each.target:.2f} {words[each.holds]}",
        ]
        for each in summaries
    ]
    missed = [each.structure for each in summaries if each.holds is False]
    verdict = f"Targets missed: {', '.join(missed)}." if missed else "All targets hold."
    alarms = sum(each.false_alarms for each in summaries)
    return "\n".join(
        [
            "# Accuracy: Dice on phantoms that were never trained on",
            "",
            (
                f"{scans} scans, the whole path from scan to labels on the scan's own grid; {model}. Phantoms are far "
                "easier than patients: this says nothing about patients."
            ),
            "",
            make_table(head, rows),
            "",
            (
                f"{verdict} Intervals: bootstrap over scans. Structures that a scan does not show are left out of the "
                f"means; {alarms} of them were found all the same."
            ),
        ]
    )


def parse_seeds(text: str) -> list[int]:
    """The seeds of ``first:stop``.

    Raises:
        ValueError: if the text is of another form, names none, or one that was trained on.

    Examples:
        >>> parse_seeds("3:6")
        [3, 4, 5]
    """
    first, _, stop = text.partition(":")
    seeds = list(range(int(first), int(stop)))
    taken = sorted(set(seeds) & set(TRAINED_ON))
    if not seeds or taken:
        raise ValueError(f"{text!r} names no seeds" if not seeds else f"{taken} were used in training")
    return seeds


def main() -> None:
    """Segments, scores, prints the table and writes it into results/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("0:20"), help="first:stop, such as 0:20")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle; the shipped one if not given")
    options = parser.parse_args()
    made = describe_circumstances("benchmarks.accuracy")
    model = read_model(options.bundle)
    segmenter = Segmenter(model, Settings(device="cpu"))
    scores: list[Score] = []
    for seed, image, exact in draw_scans(options.seeds):
        scores += compare_labels(segmenter.segment(image).labels, exact.array, model.labels, seed)
    summaries = [summarise(scores, label.name) for label in model.labels]
    named = f"{model.name} {model.version}, weights {model.weights_sha256[:12]}"
    figures = {
        "weights_sha256": model.weights_sha256,
        "summaries": [{**asdict(each), "holds": each.holds} for each in summaries],
        "scores": [asdict(each) for each in scores],
    }
    write_report("accuracy", to_markdown(summaries, len(options.seeds), named), figures, made)


if __name__ == "__main__":
    main()
