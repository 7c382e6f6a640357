"""What a MONAI inference run leaves behind: segmentations with their record."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from effvit_med.bundle.metatensor import scan_of
from effvit_med.engine.model import Model
from effvit_med.engine.record import describe_model, library_versions
from effvit_med.io import write_nifti, write_record
from effvit_med.volume import Provenance, Segmentation, Source


class SaveSegmentationd(MapTransform):  # type: ignore[misc]  # MONAI is not typed
    """Write labels on the scan's own grid as NIfTI, with the label table and a record beside it.

    Args:
        keys: entries of labels made by `LabelSourced`.
        model: the bundle's model.
        output_dir: folder; each case gets a folder of its own in it.
    """

    def __init__(self, keys: KeysCollection, model: Model, output_dir: str) -> None:
        super().__init__(keys)
        self.model = model
        self.output_dir = Path(output_dir)
        self._written: dict[str, str] = {}
        self._started = datetime.now(UTC).isoformat(timespec="seconds")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries as they were, after writing them."""
        for key in self.key_iterator(dict(data)):
            geometry, _, source = scan_of(data[key])
            provenance = Provenance(
                bundle=self.model.name,
                bundle_version=self.model.version,
                weights_sha256=self.model.weights_sha256,
                settings=describe_model(self.model, self.model.tiling),
                versions=library_versions(),
                device=str(data[key].device),
                started=self._started,
                source=source,
                findings=source.findings if source else (),
            )
            values = data[key][0].cpu().numpy()
            labels = values.astype(np.uint8 if values.max() < 256 else np.uint16)
            segmentation = Segmentation(labels, geometry, self.model.table_of(labels), provenance)
            folder = self.output_dir / self._claim(source)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "segmentation.nii.gz"
            write_nifti(segmentation, path)
            write_record(folder / "record.json", provenance, {"nifti": path})
        return dict(data)

    def _claim(self, source: Source | None) -> str:
        """A folder name for a case that no other case of this run has."""
        path = str(source.files[0].path) if source else ""
        name = wanted = source.case_id if source else "case"
        number = 1
        while self._written.setdefault(name, path) != path:
            number += 1
            name = f"{wanted}_{number}"
        return name
