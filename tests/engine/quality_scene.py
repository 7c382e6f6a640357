"""A scene to judge: two kidneys, a liver and a spine as boxes, and a reference in which all of it is usual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from effvit_med.engine import read_model
from effvit_med.engine.model import Model
from effvit_med.engine.quality import judge_case
from effvit_med.engine.quality_intensity import measure_profile
from effvit_med.engine.quality_reference import (
    IntensityReference,
    QualityReference,
    SideReference,
    Spread,
    StructureReference,
)
from effvit_med.volume import Finding, Geometry, Provenance, Segmentation, Volume
from effvit_med.volume.measurements import measure
from effvit_med.volume.quality import CaseQuality, StructureQuality

SHAPE = (24, 48, 64)
SPACING_MM = (5.0, 4.0, 4.0)
VOXEL_ML = 5.0 * 4.0 * 4.0 / 1000
WEIGHTS = "ab" * 32
LIVER, KIDNEY_LEFT, KIDNEY_RIGHT, SPINE = 1, 3, 4, 5

Labels = npt.NDArray[np.uint8]


def scan(modality: str = "CT", seed: int = 0) -> Volume:
    """Soft tissue with noise; slices go to the head, rows to the back, columns to the patient's left."""
    affine = np.array([[0, 0, 4.0, -100], [0, 4.0, 0, -90], [5.0, 0, 0, -60], [0, 0, 0, 1.0]])
    array = np.random.default_rng(seed).normal(50, 25, SHAPE).astype(np.int16)
    return Volume(array, Geometry(affine, SHAPE), modality)


def organs() -> Labels:
    """What is usual: the spine goes through, the others lie whole in the scan, each on its own side."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[8:20, 8:28, 4:24] = LIVER
    labels[4:12, 30:38, 10:18] = KIDNEY_RIGHT
    labels[4:12, 30:38, 44:52] = KIDNEY_LEFT
    labels[:, 34:42, 28:36] = SPINE
    return labels


def reference(*volumes: Volume) -> QualityReference:
    """A reference of 20 cases like `organs`, and of the intensities of some scans."""
    structures = {}
    for name, value in {
        "liver": LIVER,
        "kidney_left": KIDNEY_LEFT,
        "kidney_right": KIDNEY_RIGHT,
        "spine": SPINE,
    }.items():
        volume_ml = np.count_nonzero(organs() == value) * VOXEL_ML
        spread = Spread.of([volume_ml * factor for factor in np.linspace(0.7, 1.4, 20)])
        through = value == SPINE
        structures[name] = StructureReference(
            present=20,
            touching=20 if through else 1,
            volume_ml=None if through else spread,
            volume_touching_ml=spread if through else None,
            share_outside_largest=0.0,
            hole_share=0.0,
            confidence=Spread.of(np.linspace(0.9, 0.98, 20).tolist()),
        )
    return QualityReference(
        made_by="tests",
        data="boxes",
        training_cases=20,
        confidence_cases=20,
        weights_sha256=WEIGHTS,
        intensity=_intensity(volumes) if volumes else None,
        structures=structures,
        sides=(SideReference(left="kidney_left", right="liver", least_mm=60.0, cases=20),),
    )


def _intensity(volumes: tuple[Volume, ...]) -> IntensityReference:
    intensity = read_model().preprocess.intensity
    profiles = [profile for volume in volumes if (profile := measure_profile(volume, intensity)) is not None]
    one = Spread.of([1.0, 2.0])
    return IntensityReference(
        kind=intensity.kind,
        low=intensity.low,
        high=intensity.high,
        mean=tuple(np.mean(profiles, axis=0).tolist()),
        sd=tuple(np.std(profiles, axis=0, ddof=1).tolist()),
        training_scores=one,
        unseen_scores=one,
    )


def model(known: QualityReference | None) -> Model:
    """The shipped bundle with another reference, or none."""
    return replace(read_model(), quality=known)


def segmentation(labels: Labels, volume: Volume, confidence: int | None = 240, *codes: str) -> Segmentation:
    """Labels as the engine would give them, with one confidence everywhere and some findings."""
    findings = tuple(Finding(code, f"said of {code}") for code in codes)
    made = Provenance("test", "1", WEIGHTS, {}, {}, "cpu", "2024-01-01T00:00:00+00:00", findings=findings)
    sure = None if confidence is None else np.full(labels.shape, confidence, np.uint8)
    return Segmentation(labels, volume.geometry, read_model().labels, made, sure)


def judge(labels: Labels, known: QualityReference | None, volume: Volume | None = None, *codes: str) -> CaseQuality:
    """The verdict on labels."""
    volume = volume or scan()
    result = segmentation(labels, volume, 240, *codes)
    return judge_case(volume, result, measure(volume, result), model(known))


def of(quality: CaseQuality, name: str) -> StructureQuality:
    """The verdict on one structure."""
    return next(row for row in quality.structures if row.structure == name)


def codes_of(row: StructureQuality | CaseQuality) -> set[str]:
    """The codes of its reasons."""
    return {reason.code for reason in row.reasons}
