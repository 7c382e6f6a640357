"""How often the verdict is wrong on phantoms that nothing was made from, and how often it finds what was damaged.

Run from the repository's root: ``python -m benchmarks.quality`` (``--seeds 0:20``). Each phantom is segmented as it is,
and some of them after each damage as well; labels are also damaged by themselves. A damaged case is found if a rule
about that damage speaks; a whole one is a false alarm if a rule speaks that the exact labels do not bear out.
"""

from __future__ import annotations

import argparse
import pickle
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from benchmarks.accuracy import parse_seeds
from benchmarks.report import describe_circumstances, make_table, write_report
from effvit_med.engine import Model, Segmenter, Settings, read_model
from effvit_med.engine.quality import judge_case
from effvit_med.training.quality_reference import TRAINING_SEEDS, UNSEEN_SEEDS, draw_phantoms
from effvit_med.volume import Code, Geometry, Label, LabelTable, Provenance, Segmentation, Volume
from effvit_med.volume.measurements import measure
from effvit_med.volume.quality import CaseQuality

Labels = npt.NDArray[np.uint8]
Rng = np.random.Generator

_KIDNEY_LEFT, _LIVER = 3, 1


@dataclass(frozen=True)
class Damage:
    """Something that goes wrong, and the rules that are about it.

    Attributes:
        name: for the table.
        codes: any of these finds it.
        scan: what it does to a scan before it is segmented; None if it does nothing.
        labels: what it does to labels; None if it does nothing.
    """

    name: str
    codes: frozenset[str]
    scan: Callable[[Volume, Rng], Volume] | None = None
    labels: Callable[[Labels, Rng], Labels] | None = None


@dataclass(frozen=True)
class Judgement:
    """What became of one case.

    Attributes:
        seed: of the phantom.
        damage: what was done to it.
        verdict: on the case.
        codes: of all that speaks against it.
        found: whether a rule about the damage speaks.
        score: how unlike the training data the intensities are.
        seconds: of the judging alone.
    """

    seed: int
    damage: str
    verdict: str | None
    codes: tuple[str, ...]
    found: bool
    score: float | None
    seconds: float


def mirror(volume: Volume, _: Rng) -> Volume:
    """The patient mirrored left to right, as a header with a wrong sign does it."""
    return replace(volume, array=np.ascontiguousarray(volume.array[:, :, ::-1]))


def crop(volume: Volume, _: Rng) -> Volume:
    """Two fifths of the slices, from the middle: both ends are missing."""
    count = volume.geometry.shape[0]
    first, last = round(0.3 * count), round(0.7 * count)
    affine = volume.geometry.affine.copy()
    affine[:3, 3] += first * affine[:3, 0]
    array = np.ascontiguousarray(volume.array[first:last])
    return replace(volume, array=array, geometry=replace(volume.geometry, affine=affine, shape=array.shape))


def like_mr(volume: Volume, rng: Rng) -> Volume:
    """Values as MR has them under the name CT: positive, with a bright fat, a smooth bias and no unit."""
    hu = volume.array.astype(np.float32)
    fat, tissue = np.clip((-20 - hu) / 80, 0, 1) * (hu > -250), np.clip((hu + 60) / 160, 0, 1) * (hu < 300)
    ramp = np.linspace(0.7, 1.3, volume.array.shape[2], dtype=np.float32)
    signal = (700 * fat + 420 * tissue) * ramp + rng.normal(0, 15, hu.shape)
    return replace(volume, array=np.rint(np.abs(signal)).astype(np.int16))


def add_noise(volume: Volume, rng: Rng) -> Volume:
    """Noise of 120 HU, several times that of the training scans."""
    return replace(volume, array=np.rint(volume.array + rng.normal(0, 120, volume.array.shape)).astype(np.int16))


def offset(volume: Volume, _: Rng) -> Volume:
    """A rescale intercept that was not applied: all values 1024 too high."""
    return replace(volume, array=(volume.array + np.int16(1024)).astype(np.int16))


def swap_kidneys(labels: Labels, _: Rng) -> Labels:
    """Left kidney called right and right called left."""
    swapped = labels.copy()
    swapped[labels == _KIDNEY_LEFT], swapped[labels == _KIDNEY_LEFT + 1] = _KIDNEY_LEFT + 1, _KIDNEY_LEFT
    return swapped


def tear(labels: Labels, _: Rng) -> Labels:
    """The middle fifth of the liver's slices lost."""
    torn, planes = labels.copy(), np.flatnonzero((labels == _LIVER).any(axis=(1, 2)))
    middle = planes[int(0.45 * len(planes)) : int(0.55 * len(planes)) + 3]
    part = torn[middle]
    part[part == _LIVER] = 0
    torn[middle] = part
    return torn


def hollow(labels: Labels, _: Rng) -> Labels:
    """A ball of 18 mm, or what fits, lost inside the liver."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(labels == _LIVER, 1), sampling=(4.7, 3.0, 3.0))[1:-1, 1:-1, 1:-1]
    centre = np.unravel_index(int(depth.argmax()), depth.shape)
    ball = np.ones(labels.shape, bool)
    ball[centre] = False
    radius = min(18.0, float(depth.max()) - 6.0)
    inside = ndimage.distance_transform_edt(ball, sampling=(4.7, 3.0, 3.0)) <= radius
    return np.where(inside & (labels == _LIVER), 0, labels).astype(np.uint8)


def shrink(labels: Labels, _: Rng) -> Labels:
    """The spleen nearly gone: one voxel in twenty left, in one piece."""
    spleen = np.argwhere(labels == 2)
    kept = spleen[np.argsort(np.linalg.norm(spleen - spleen.mean(axis=0), axis=1))[: max(8, len(spleen) // 20)]]
    small = np.where(labels == 2, 0, labels).astype(np.uint8)
    small[tuple(kept.T)] = 2
    return small


WHOLE = Damage("none", frozenset())
DAMAGES = (
    Damage("patient mirrored", frozenset({"MIRRORED_LATERALITY"}), scan=mirror),
    Damage("two fifths of the slices", frozenset({"TOUCHES_EDGE", "STRUCTURES_MISSING"}), scan=crop),
    Damage("MR-like values", frozenset({"OUT_OF_DISTRIBUTION", "UNUSUAL_VALUES", "NOTHING_FOUND"}), scan=like_mr),
    Damage("MR by its header", frozenset({"WRONG_MODALITY"}), scan=lambda volume, _: replace(volume, modality="MR")),
    Damage("values 1024 too high", frozenset({"OUT_OF_DISTRIBUTION", "UNUSUAL_VALUES"}), scan=offset),
    Damage("noise of 120 HU", frozenset({"OUT_OF_DISTRIBUTION", "LOW_CONFIDENCE"}), scan=add_noise),
    Damage("kidneys swapped", frozenset({"MIRRORED_LATERALITY"}), labels=swap_kidneys),
    Damage("liver torn", frozenset({"FRAGMENTS"}), labels=tear),
    Damage("liver with a hole", frozenset({"HOLES"}), labels=hollow),
    Damage("spleen nearly gone", frozenset({"VOLUME_UNUSUAL"}), labels=shrink),
)


def judge(volume: Volume, result: Segmentation, model: Model) -> tuple[CaseQuality, float]:
    """The verdict on a result, and how long the judging took."""
    rows = measure(volume, result)
    start = time.perf_counter()
    return judge_case(volume, result, rows, model), time.perf_counter() - start


def list_codes(quality: CaseQuality) -> tuple[str, ...]:
    """The codes of all that speaks against a case."""
    against = [row for row in quality.structures if row.verdict in ("review", "fail")]
    reasons = [*quality.reasons, *(reason for row in against for reason in row.reasons)]
    return tuple(sorted({reason.code for reason in reasons}))


def segment_once(scan: Volume, segmenter: Segmenter, kept: Path | None) -> Segmentation:
    """The labels of a scan: those of an earlier run where they were kept, since they do not depend on the reference."""
    if kept is None or not kept.exists():
        result = segmenter.segment(scan)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(pickle.dumps(result))
        return result
    result = pickle.loads(kept.read_bytes())
    if result.provenance.weights_sha256 != segmenter.model.weights_sha256:
        raise ValueError(f"{kept} holds the labels of other weights; remove it")
    return result


def run_phantom(seed: int, segmenter: Segmenter, damages: Sequence[Damage], keep: Path | None) -> Iterator[Judgement]:
    """Every judgement on one phantom, whole and damaged."""
    ((volume, exact),) = draw_phantoms([seed])
    whole = segment_once(volume, segmenter, keep and keep / f"{seed}.pickle")
    yield _to_judgement(seed, WHOLE, volume, whole, segmenter.model, exact)
    for damage in damages:
        rng = np.random.default_rng([seed, len(damage.name)])
        scan = damage.scan(volume, rng) if damage.scan else volume
        labels = damage.labels(np.asarray(whole.labels, np.uint8), rng) if damage.labels else None
        if damage.name == "MR by its header" or labels is not None:
            result = replace(whole, labels=whole.labels if labels is None else labels)
        else:
            result = segment_once(scan, segmenter, keep and keep / f"{seed} {damage.name}.pickle")
        yield _to_judgement(seed, damage, scan, result, segmenter.model, exact)


def _to_judgement(
    seed: int, damage: Damage, volume: Volume, result: Segmentation, model: Model, exact: Labels
) -> Judgement:
    quality, seconds = judge(volume, result, model)
    codes = list_codes(quality)
    if damage is WHOLE:  # what the exact labels bear out is no false alarm
        truth, _ = judge(volume, replace(result, labels=exact), model)
        found = bool(set(codes) - set(list_codes(truth)))
    else:
        found = bool(damage.codes & set(codes))
    return Judgement(seed, damage.name, quality.verdict, codes, found, quality.out_of_distribution, seconds)


@dataclass(frozen=True)
class LargeCase:
    """What judging a scan of clinical size takes.

    Attributes:
        shape: of the scan, whose voxels and labels lie in files.
        structures: how many there are.
        seconds: wall time of each of three runs.
        cpu_seconds: processor time of each.
        peak_mb: most memory that was taken at a time, beside the mapped files.
    """

    shape: tuple[int, int, int]
    structures: int
    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    peak_mb: float


def judge_large(model: Model, structures: int = 105, shape: tuple[int, int, int] = (300, 512, 512)) -> LargeCase:
    """The verdict on a large scan with many structures, each of which lies around a point of its own."""
    rng = np.random.default_rng(0)
    small = (-(-shape[0] // 4), -(-shape[1] // 4), -(-shape[2] // 4))
    points = rng.uniform([20, 60, 60], [280, 320, 320], (structures, 3))
    places = np.indices(small).reshape(3, -1).T * np.array([4.0, 3.0, 3.0])
    distance, nearest = KDTree(points).query(places)
    rough = np.where(distance < 40, nearest + 1, 0).astype(np.uint8).reshape(small)
    index = np.ix_(*(np.arange(size) // 4 for size in shape))
    table = LabelTable(tuple(Label(k, f"structure_{k}", Code(str(k), f"{k}")) for k in range(1, structures + 1)))
    geometry = Geometry(np.array([[0, 0, 0.75, 0], [0, 0.75, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]]), shape)
    with tempfile.TemporaryDirectory() as folder:
        arrays: list[npt.NDArray[Any]] = []
        contents: dict[str, npt.NDArray[Any]] = {"hu": rng.integers(-100, 200, small).astype(np.int16), "labels": rough}
        for name, content in contents.items():
            np.save(Path(folder) / f"{name}.npy", content[index])
            arrays.append(np.load(Path(folder) / f"{name}.npy", mmap_mode="r"))
        volume = Volume(arrays[0], geometry, "CT")
        made = Provenance("large", "1", "", {}, {}, "cpu", "2024-01-01T00:00:00+00:00")
        result = Segmentation(arrays[1], geometry, table, made)
        rows = measure(volume, result)
        walls, cpus = [], []
        for _ in range(3):
            wall, cpu = time.perf_counter(), time.process_time()
            judge_case(volume, result, rows, model)
            walls.append(round(time.perf_counter() - wall, 3))
            cpus.append(round(time.process_time() - cpu, 3))
        tracemalloc.start()
        judge_case(volume, result, rows, model)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return LargeCase(shape, structures, tuple(walls), tuple(cpus), round(peak / 1e6, 1))


def to_markdown(judgements: Sequence[Judgement], model: Model, large: LargeCase) -> str:
    """The table."""
    rows = []
    for damage in (WHOLE, *DAMAGES):
        ours = [each for each in judgements if each.damage == damage.name]
        if not ours:
            continue
        verdicts = [sum(each.verdict == word for each in ours) for word in ("pass", "review", "fail")]
        scores = [each.score for each in ours if each.score is not None]
        rows.append(
            [
                damage.name,
                ", ".join(sorted(damage.codes)) or "-",
                str(len(ours)),
                *map(str, verdicts),
                f"{sum(each.found for each in ours)} of {len(ours)}",
                f"{statistics.median(scores):.1f}" if scores else "",
            ]
        )
    whole = [each for each in judgements if each.damage == WHOLE.name]
    borne = sum(each.verdict != "pass" and not each.found for each in whole)
    alarms = sum(each.found for each in whole)
    codes = sorted({code for each in whole for code in each.codes})
    counted = ", ".join(f"{code} {sum(code in each.codes for each in whole)}" for code in codes) or "none"
    head = ["damage", "rules about it", "cases", "pass", "review", "fail", "found", "median score"]
    return "\n".join(
        [
            "# Quality verdict: false alarms and finds on phantoms that nothing was made from",
            "",
            (
                f"{model.name} {model.version}. The bundle's reference comes from seeds {TRAINING_SEEDS[0]} to "
                f"{TRAINING_SEEDS[-1]} and {UNSEEN_SEEDS[0]} to {UNSEEN_SEEDS[-1]}; none of them is here. Phantoms are "
                "far easier than patients: this says nothing about patients."
            ),
            "",
            make_table(head, rows, texts=2),
            "",
            (
                f"Of {len(whole)} whole cases, {len(whole) - borne - alarms} pass, {borne} are to be reviewed for what "
                f"the exact labels show as well (an organ cut by the end of the scan), and {alarms} are false alarms "
                f"(the row “none” counts them as found). What spoke against whole cases: {counted}. Judging took "
                f"{statistics.median(each.seconds for each in judgements):.2f} s a case (64 x 128 x 128)."
            ),
            "",
            (
                f"A scan of {' x '.join(map(str, large.shape))} with {large.structures} structures, voxels and labels "
                f"in files: {statistics.median(large.seconds):.2f} s, {statistics.median(large.cpu_seconds):.2f} "
                f"s of processor (medians of {len(large.seconds)}), {large.peak_mb:.0f} MB at most beside the files."
            ),
        ]
    )


def main() -> None:
    """Judges, prints the table and writes it into results/."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=parse_seeds, default=parse_seeds("0:20"), help="first:stop, such as 0:20")
    parser.add_argument("--damaged", type=int, default=10, help="how many of the seeds are damaged as well")
    parser.add_argument("--keep", type=Path, help="folder of labels, so that a second run need not segment again")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle; the shipped one if not given")
    options = parser.parse_args()
    taken = sorted(set(options.seeds) & {*TRAINING_SEEDS, *UNSEEN_SEEDS})
    if taken:
        parser.error(f"the reference was made from the seeds {taken}; choose others")
    made = describe_circumstances("benchmarks.quality")
    segmenter = Segmenter(read_model(options.bundle), Settings(device="cpu"))
    judgements: list[Judgement] = []
    for count, seed in enumerate(options.seeds):
        damages = DAMAGES if count < options.damaged else ()
        judgements += run_phantom(seed, segmenter, damages, options.keep)
        print(f"seed {seed}: {judgements[-len(damages) - 1].codes}", flush=True)
    large = judge_large(segmenter.model)
    figures: dict[str, Any] = {"judgements": [asdict(each) for each in judgements], "large": asdict(large)}
    write_report("quality", to_markdown(judgements, segmenter.model, large), figures, made)


if __name__ == "__main__":
    main()
