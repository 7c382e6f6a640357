"""What to ask a PACS for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from pydicom.datadict import dictionary_VR, tag_for_keyword

from effvit_med.errors import SettingsError

STUDY_KEYS = frozenset(
    {
        "AccessionNumber",
        "ModalitiesInStudy",
        "PatientBirthDate",
        "PatientID",
        "PatientName",
        "PatientSex",
        "ReferringPhysicianName",
        "StudyDate",
        "StudyDescription",
        "StudyID",
        "StudyInstanceUID",
        "StudyTime",
    }
)
"""Keys of the patient and study levels (PS3.4 tables C.6-1 and C.6-2); all other keys belong to the series."""

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class Query:
    """Keys that a series must match; a PACS takes ranges of dates and the wildcards ``*`` and ``?``.

    Attributes:
        keys: values by DICOM keyword.
        limit: no more than this many series; None for all.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    limit: int | None = None

    @property
    def study_keys(self) -> dict[str, str]:
        """The keys of the patient and study levels; the modality helps to leave out studies that have none of it."""
        keys = {key: value for key, value in self.keys.items() if key in STUDY_KEYS}
        if "Modality" in self.keys:
            keys.setdefault("ModalitiesInStudy", self.keys["Modality"])
        return keys

    @property
    def series_keys(self) -> dict[str, str]:
        """The keys of the series level."""
        return {key: value for key, value in self.keys.items() if key not in STUDY_KEYS}


def parse_query(pairs: Iterable[str], limit: int | None = None) -> Query:
    """A query from ``Keyword=value`` texts.

    Raises:
        SettingsError: if there is no key at all, one has another form, is no DICOM keyword, has no value, is given
            twice, or a UID is none. Values are not shown: they may name a patient.

    Examples:
        >>> parse_query(["Modality=CT", "StudyDate=20240101-20240131"]).series_keys
        {'Modality': 'CT'}
    """
    keys: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key, value = key.strip(), value.strip()
        tag = tag_for_keyword(key) if key else None
        if not equals or not value:
            raise SettingsError(f"A query is Keyword=value; the one for {key!r} has no value.")
        if tag is None or dictionary_VR(tag) == "SQ":
            raise SettingsError(f"{key!r} is no DICOM keyword to query by, such as Modality or StudyDate.")
        if key in keys:
            raise SettingsError(f"{key} is asked for twice.")
        if dictionary_VR(tag) == "UI" and not all(_UID.fullmatch(uid) and len(uid) <= 64 for uid in value.split("\\")):
            raise SettingsError(f"The value for {key} is not a UID: digits and dots, at most 64 characters.")
        keys[key] = value
    if not keys:
        raise SettingsError("The query would match the whole PACS: give --study, --series or --query Keyword=value.")
    return Query(keys, limit)


def shorten(uid: str) -> str:
    """A name for a UID that tells nothing of it, for logs and file names.

    Examples:
        >>> shorten("1.2.3")
        'c47f5b18b8a430e6'
    """
    return sha256(uid.encode()).hexdigest()[:16]
