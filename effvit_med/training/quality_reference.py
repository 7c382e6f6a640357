"""Makes ``configs/quality.json`` of a bundle: what its training data look like, so that results can be held against it.

``python -m effvit_med.training.quality_reference`` makes that of the bundle at the root of the repository, from the
phantoms it was trained on. ``--bundle FOLDER --datalist dataset.json`` makes that of any bundle.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from effvit_med.engine import Model, Segmenter, Settings, read_model, shipped_bundle
from effvit_med.engine.quality_intensity import Profile, measure_profile, score_profile
from effvit_med.engine.quality_reference import (
    QUALITY_FILE,
    IntensityReference,
    QualityReference,
    SideReference,
    Spread,
    StructureReference,
)
from effvit_med.engine.quality_rules import QualityThresholds
from effvit_med.engine.quality_shapes import Shape, describe_shapes
from effvit_med.errors import EffvitError, InputError
from effvit_med.io import read_nifti
from effvit_med.io.atomic import write_json
from effvit_med.training.data import read_datalist
from effvit_med.training.phantom import make_case
from effvit_med.volume import Geometry, Provenance, Segmentation, Volume
from effvit_med.volume.measurements import Measurement, measure

log = logging.getLogger(__name__)

TRAINING_SEEDS = range(1000, 1064)
"""Those of configs/train.yaml."""

UNSEEN_SEEDS = range(2000, 2012)
"""Phantoms for confidence and scores: never trained on, and never those that benchmarks evaluate on."""

LabelArray = npt.NDArray[np.unsignedinteger]
Case = tuple[Volume, LabelArray]

_SIDES_KEPT = 2  # for each structure, those farthest away


@dataclass
class _Seen:
    """What was counted in the training cases."""

    rows: list[tuple[Measurement, ...]] = field(default_factory=list)
    shapes: list[dict[str, Shape]] = field(default_factory=list)
    to_left: list[dict[str, float]] = field(default_factory=list)
    profiles: list[Profile] = field(default_factory=list)


def make_reference(
    training: Iterable[Case], unseen: Iterable[Volume], segmenter: Segmenter, data: str, made_by: str
) -> QualityReference:
    """What a bundle is to know of its training data.

    Args:
        training: the scans that the model was trained on, with their exact labels.
        unseen: scans of the same kind that it was not trained on; they are segmented for their confidence.
        segmenter: the loaded model.
        data: one sentence on the cases.
        made_by: the command.

    Raises:
        InputError: if there is no training case, or a label is not in the bundle's table.
    """
    model, seen = segmenter.model, _Seen()
    for volume, labels in training:
        _look_at(volume, labels, model, seen)
    if not seen.rows:
        raise InputError("There is no training case to make a reference from; give a datalist that holds some.")
    confidence: dict[str, list[float]] = {}
    profiles: list[Profile] = []
    for volume in unseen:
        result = segmenter.segment(volume)
        for row in measure(volume, result):
            if row.mean_confidence is not None:
                confidence.setdefault(row.structure, []).append(row.mean_confidence)
        profile = measure_profile(volume, model.preprocess.intensity)
        profiles += [] if profile is None else [profile]
        log.info("unseen case %d", len(profiles))
    structures = {}
    for index, label in enumerate(model.labels):
        known = _structure([rows[index] for rows in seen.rows], [shapes.get(label.name) for shapes in seen.shapes])
        values = confidence.get(label.name)
        structures[label.name] = known.model_copy(update={"confidence": Spread.of(values) if values else None})
    return QualityReference(
        made_by=made_by,
        data=data,
        training_cases=len(seen.rows),
        confidence_cases=len(profiles),
        weights_sha256=model.weights_sha256,
        intensity=_intensity(seen.profiles, profiles, model),
        structures=structures,
        sides=tuple(_sides(seen.to_left)),
    )


def _look_at(volume: Volume, labels: LabelArray, model: Model, seen: _Seen) -> None:
    exact = Segmentation(labels, volume.geometry, model.labels, Provenance(model.name, "", "", {}, {}, "", ""))
    seen.rows.append(measure(volume, exact))
    shapes = describe_shapes(labels, volume.geometry.spacing_mm)
    named = {model.labels.by_value(value).name: shape for value, shape in shapes.items()}
    seen.shapes.append(named)
    seen.to_left.append({name: float(volume.geometry.index_to_world(shape.centre)[0]) for name, shape in named.items()})
    profile = measure_profile(volume, model.preprocess.intensity)
    seen.profiles += [] if profile is None else [profile]
    log.info("training case %d", len(seen.rows))


def _structure(rows: Sequence[Measurement], shapes: Sequence[Shape | None]) -> StructureReference:
    found = [row for row in rows if row.volume_ml is not None]
    whole = [row.volume_ml for row in found if row.volume_ml is not None and not row.cut_by_field_of_view]
    cut = [row.volume_ml for row in found if row.volume_ml is not None and row.cut_by_field_of_view]
    known = [shape for shape in shapes if shape is not None]
    return StructureReference(
        present=len(found),
        touching=len(cut),
        volume_ml=Spread.of(whole) if whole else None,
        volume_touching_ml=Spread.of(cut) if cut else None,
        fragments=max((shape.fragments for shape in known), default=1),
        share_outside_largest=round(max((shape.share_outside_largest for shape in known), default=0.0), 4),
        hole_share=round(max((shape.hole_share for shape in known), default=0.0), 4),
    )


def _intensity(seen: Sequence[Profile], unseen: Sequence[Profile], model: Model) -> IntensityReference | None:
    """The spread of profiles; None where there are too few cases to have a spread."""
    if len(seen) < 2 or not unseen:
        return None
    intensity = model.preprocess.intensity
    one = Spread.of([1.0])
    reference = IntensityReference(
        kind=intensity.kind,
        low=intensity.low,
        high=intensity.high,
        mean=tuple(float(f"{value:.6g}") for value in np.mean(seen, axis=0)),
        sd=tuple(float(f"{value:.6g}") for value in np.std(seen, axis=0, ddof=1)),
        training_scores=one,
        unseen_scores=one,
    )
    scores = [Spread.of([score_profile(each, reference) for each in profiles]) for profiles in (seen, unseen)]
    return reference.model_copy(update={"training_scores": scores[0], "unseen_scores": scores[1]})


def _sides(to_left: Sequence[dict[str, float]]) -> Iterator[SideReference]:
    """For each structure those that always lay farthest towards the right of it."""
    least_mm = QualityThresholds().side_mm
    names = sorted({name for case in to_left for name in case})
    apart: dict[str, list[SideReference]] = {}
    for left, right in permutations(names, 2):
        distances = [case[left] - case[right] for case in to_left if left in case and right in case]
        if len(distances) > len(to_left) / 2 and min(distances) >= least_mm:
            side = SideReference(left=left, right=right, least_mm=round(min(distances), 1), cases=len(distances))
            apart.setdefault(left, []).append(side)
    for sides in apart.values():
        yield from sorted(sides, key=lambda side: -side.least_mm)[:_SIDES_KEPT]


def draw_phantoms(seeds: Iterable[int]) -> Iterator[Case]:
    """The phantom of each seed, as training draws it.

    Args:
        seeds: 0 or more.
    """
    for seed in seeds:
        drawn = make_case(seed)
        yield Volume(drawn.hu, Geometry(drawn.affine_lps, drawn.hu.shape), "CT"), drawn.labels


def _read_cases(datalist: Path, part: str, modality: str) -> Iterator[Case]:
    for case in read_datalist(datalist, part):
        image, label = (read_nifti(Path(case[kind])) for kind in ("image", "label"))
        labels: LabelArray = label.array.astype(np.uint16 if label.array.max() > 255 else np.uint8)
        yield Volume(image.array, image.geometry, modality), labels


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the file.

    Args:
        arguments: of the command line; those of this process if None.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m effvit_med.training.quality_reference", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=shipped_bundle(), help="folder of the bundle; the shipped one")
    parser.add_argument("--datalist", type=Path, help="MSD-style dataset.json; the phantoms of training if not given")
    parser.add_argument("--output", type=Path, help="file to write; configs/quality.json of the bundle if not given")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        model = read_model(options.bundle)
        made_by = "python -m effvit_med.training.quality_reference"
        if options.datalist is None:
            training = draw_phantoms(TRAINING_SEEDS)
            unseen = (volume for volume, _ in draw_phantoms(UNSEEN_SEEDS))
            data = (
                f"effvit_med.training.phantom, training seeds {TRAINING_SEEDS[0]} to {TRAINING_SEEDS[-1]}, "
                f"unseen seeds {UNSEEN_SEEDS[0]} to {UNSEEN_SEEDS[-1]}"
            )
        else:
            modality = model.modalities[0] if model.modalities else ""
            training = _read_cases(options.datalist, "training", modality)
            unseen = (volume for volume, _ in _read_cases(options.datalist, "validation", modality))
            data = f"training and validation cases of {options.datalist.name}"
            made_by += " --bundle BUNDLE --datalist DATALIST"
        reference = make_reference(training, unseen, Segmenter(model, Settings(device="cpu")), data, made_by)
        path = options.output or options.bundle / QUALITY_FILE
        write_json(path, reference.model_dump(mode="json"))
    except EffvitError as error:
        log.error("%s", error)  # noqa: TRY400 - our own errors say all in one line
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
