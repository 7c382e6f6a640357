"""What a DICOM segmentation says about each of its segments and about who made it."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from effvit_med.io.dicom_seg_headers import make_uid
from effvit_med.volume.labels import Code, Label
from effvit_med.volume.provenance import Provenance

MANUFACTURER = "effvit-med"

EDITED_VALUES = "edited_values"
"""The setting of a provenance that lists the label values which a person has changed."""

_LONG_STRING = 64  # characters of a DICOM Long String
_PARAMETERS = 10240  # characters of a DICOM Long Text


def long_string(text: str) -> str:
    """The text as a DICOM Long String: at most 64 characters, no backslash, no control characters, no outer spaces.

    Source:
        DICOM PS3.5 section 6.2, table 6.2-1.

    Examples:
        >>> long_string("a" * 70).count("a"), long_string("a/b" + chr(92) + "c")
        (64, 'a/b/c')
    """
    plain = "".join(letter if letter.isprintable() else " " for letter in text.replace("\\", "/"))
    return plain.strip()[:_LONG_STRING].strip()


def describe_segments(
    labels: Sequence[Label],
    numbers: Sequence[int],
    provenance: Provenance,
    meaning: str = "",
    *,
    edited: AbstractSet[int] = frozenset(),
) -> list[Any]:
    """One highdicom SegmentDescription per label, with coded meaning, side, colour, algorithm and tracking UID.

    Args:
        labels: the structures that the file holds.
        numbers: the segment number of each.
        provenance: how the segmentation was made.
        meaning: what the values of a voxel mean, where that is not plain.
        edited: the label values that a person changed.

    Returns:
        The descriptions, in the order of ``labels``.
    """
    algorithm = identify_algorithm(provenance)
    described = [_describe(label, number, algorithm, provenance) for label, number in zip(labels, numbers, strict=True)]
    for label, item in zip(labels, described, strict=True):
        if label.value in edited:
            item.SegmentAlgorithmType = hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC.value
    for item in described if meaning else ():
        item.SegmentDescription = meaning
    return described


def track(label: Label, provenance: Provenance) -> tuple[str, str]:
    """The tracking id and the tracking UID of a structure, the same in every file of one result.

    Args:
        label: the structure.
        provenance: how the segmentation was made.

    Source:
        DICOM PS3.3 section C.8.20.4 (Tracking ID, Tracking UID); PS3.16 TID 1410 (Tracking Identifier).
    """
    identity = provenance.identity()
    return long_string(f"{label.name[:40]} {identity[:16]}"), make_uid("tracking", identity, label.name)


def identify_algorithm(provenance: Provenance) -> Any:
    """The bundle as a highdicom AlgorithmIdentificationSequence: name, version, weights and settings.

    Source:
        DICOM PS3.3 section 10.16 (Algorithm Identification Macro); PS3.16 CID 7162.
    """
    parameters = {"weights_sha256": provenance.weights_sha256 or "none", **provenance.settings}
    text = {name: str(value).replace("\\", "/") for name, value in parameters.items()}
    sequence = hd.AlgorithmIdentificationSequence(
        name=long_string(provenance.bundle) or "unnamed",
        family=codes.DCM.ArtificialIntelligence,
        version=long_string(provenance.bundle_version) or "unknown",
        source=MANUFACTURER,
        parameters=text,
    )
    sequence[0].AlgorithmParameters = sequence[0].AlgorithmParameters[:_PARAMETERS]
    return sequence


def software_versions(provenance: Provenance) -> list[str]:
    """The versions as DICOM texts, ours first."""
    names = sorted(provenance.versions, key=lambda name: (name != MANUFACTURER, name))
    return [long_string(f"{name} {provenance.versions[name]}") for name in names] or ["unknown"]


def contributing_equipment(provenance: Provenance, *, reviewed: bool = False) -> Any:
    """This program as a highdicom ContributingEquipment.

    Args:
        provenance: how the segmentation was made.
        reviewed: whether a person has looked at the result.

    Source:
        DICOM PS3.3 section C.12.1 (Contributing Equipment Sequence); PS3.16 CID 7005.
    """
    made = "Automatic segmentation, reviewed by a person." if reviewed else "Automatic segmentation."
    return hd.ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=long_string(provenance.bundle) or "unnamed",
        software_versions=software_versions(provenance),
        contribution_description=f"{made} {provenance.notice} Identity {provenance.identity()}.",
    )


def settle_dates(dataset: Dataset) -> None:
    """Replace the times that highdicom takes from the clock by that of the run, so that equal results are equal bytes.

    Args:
        dataset: made by highdicom with series date and time; changed in place.
    """
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = dataset.SeriesDate, dataset.SeriesTime
    for item in dataset.ContributingEquipmentSequence:
        if "ContributionDateTime" in item:
            item.ContributionDateTime = f"{dataset.SeriesDate}{dataset.SeriesTime}"


def _algorithm_type(label: Label, provenance: Provenance) -> Any:
    """AUTOMATIC, or SEMIAUTOMATIC for a structure that a person has changed."""
    types = hd.seg.SegmentAlgorithmTypeValues
    edited = label.value in provenance.settings.get(EDITED_VALUES, ())
    return types.SEMIAUTOMATIC if edited else types.AUTOMATIC


def _describe(label: Label, number: int, algorithm: Any, provenance: Provenance) -> Any:
    tracking_id, tracking_uid = track(label, provenance)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=long_string(label.name),
        segmented_property_category=make_concept(label.category),
        segmented_property_type=make_concept(label.type),
        algorithm_type=_algorithm_type(label, provenance),
        algorithm_identification=algorithm,
        tracking_id=tracking_id,
        tracking_uid=tracking_uid,
        display_color=hd.color.CIELabColor.from_rgb(*label.colour),
    )
    if label.laterality is not None:  # highdicom has no argument for it
        item = description.SegmentedPropertyTypeCodeSequence[0]
        item.SegmentedPropertyTypeModifierCodeSequence = [make_concept(label.laterality)]
    return description


def make_concept(code: Code) -> Any:
    """A code as a highdicom CodedConcept."""
    return hd.sr.CodedConcept(code.value, code.scheme, long_string(code.meaning))
