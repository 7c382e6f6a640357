"""Reviews of a scan that are on the disk already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from effvit_med.review.journal import JOURNAL_FILE, read_first
from effvit_med.volume import Volume

if TYPE_CHECKING:
    from effvit_med.review.session import ReviewSession

IMAGE_DIGEST = "image_sha256"
"""Member of a source note: the digest of a scan that came from no file we know."""


@dataclass(frozen=True)
class FoundReview:
    """A review on the disk.

    Attributes:
        folder: where it lives; `ReviewSession.resume` opens it.
        changed: when something was written to it last, in UTC.
        bundle: name of the model whose result is reviewed.
    """

    folder: Path
    changed: datetime
    bundle: str


def find_reviews(root: Path, volume: Volume) -> tuple[FoundReview, ...]:
    """The reviews of a scan among the folders of a folder, the latest first.

    Only the first line of each journal is read.

    Args:
        root: where folders of reviews lie; it need not be there.
        volume: the scan; its files tell which reviews are of it, or its voxels where they came from no file.
    """
    wanted = _key_of_volume(volume)
    found = []
    for path in sorted(root.glob(f"*/{JOURNAL_FILE}")) if root.is_dir() else ():
        first = read_first(path.parent)
        if first is None or _key_of_event(first) != wanted:
            continue
        changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
        bundle = str(first["automatic"]["provenance"].get("bundle", ""))
        found.append(FoundReview(path.parent, changed, bundle))
    return tuple(sorted(found, key=lambda each: (each.changed, each.folder.name), reverse=True))


def is_review_of(session: ReviewSession, volume: Volume) -> bool:
    """Whether a review is of a scan, as `find_reviews` has it.

    Args:
        session: the review.
        volume: the scan.
    """
    event = {"automatic": {"provenance": session.provenance.to_dict()}, "source_note": session.source_note}
    return bool(_key_of_event(event) == _key_of_volume(volume))


def note_source(volume: Volume) -> dict[str, Any]:
    """What a source note must say of a scan so that its review is found again; empty where the files say it.

    Args:
        volume: the scan.
    """
    return {} if volume.source and volume.source.files else {IMAGE_DIGEST: digest_image(volume)}


def digest_image(volume: Volume) -> str:
    """SHA-256 of the voxels of a scan and of where they lie."""
    digest = hashlib.sha256(str(volume.array.shape).encode() + volume.array.dtype.str.encode())
    digest.update(np.round(volume.geometry.affine, 4).tobytes())
    for plane in volume.array:
        digest.update(np.ascontiguousarray(plane).data)
    return digest.hexdigest()


def _key_of_volume(volume: Volume) -> Any:
    if volume.source and volume.source.files:
        return [(file.sha256, file.frame) for file in volume.source.files]
    return digest_image(volume)


def _key_of_event(event: Mapping[str, Any]) -> Any:
    try:
        source = event["automatic"]["provenance"].get("source")
        if source and source["files"] and IMAGE_DIGEST not in event["source_note"]:
            return [(file["sha256"], file.get("frame", 0)) for file in source["files"]]
        return event["source_note"].get(IMAGE_DIGEST)
    except (KeyError, TypeError, AttributeError):
        return None
