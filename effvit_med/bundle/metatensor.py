"""Volumes as MONAI MetaTensors and back, with nothing lost on the way.

MONAI's affine is a matrix to RAS and knows no irregular slices, so the whole geometry and the source also travel in
the meta dictionary, as plain values that a DataLoader can collate.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from effvit_med.volume import Finding, Geometry, Source, SourceFile, Volume

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_KEY = "effvit_med"


def to_metatensor(values: Tensor, grid: Geometry, scan: Volume | None = None) -> MetaTensor:
    """Values on a grid as a MetaTensor.

    Args:
        values: (channels, a0, a1, a2) values on ``grid``.
        grid: where they lie.
        scan: the scan they came from; its geometry and source go along. None for values that came from no scan.
    """
    meta: dict[str, Any] = {_KEY: json.dumps(_describe(scan))} if scan else {}
    if scan and scan.source:
        meta["filename_or_obj"] = str(scan.source.files[0].path)
    return MetaTensor(values, affine=torch.from_numpy(LPS_TO_RAS @ grid.affine), meta=meta)


def scan_of(values: MetaTensor) -> tuple[Geometry, str, Source | None]:
    """The geometry, modality and source of the scan that a MetaTensor came from.

    Raises:
        KeyError: if it was not made by `to_metatensor` with a scan.
    """
    described = json.loads(values.meta[_KEY])
    geometry = Geometry(**{**described["geometry"], "affine": np.array(described["geometry"]["affine"])})
    source = described["source"]
    if source is not None:
        files = tuple(SourceFile(**{**file, "path": Path(file["path"])}) for file in source["files"])
        findings = tuple(Finding(**finding) for finding in source["findings"])
        source = Source(**{**source, "files": files, "findings": findings})
    return geometry, described["modality"], source


def grid_of(values: MetaTensor) -> Geometry:
    """The regular grid of a MetaTensor, from its affine and shape."""
    affine = LPS_TO_RAS @ values.affine.numpy()
    return Geometry(affine, (values.shape[-3], values.shape[-2], values.shape[-1]))


def _describe(scan: Volume) -> dict[str, Any]:
    geometry = {**vars(scan.geometry), "affine": scan.geometry.affine.tolist()}
    source = asdict(scan.source) if scan.source else None
    if source:
        for file in source["files"]:
            file["path"] = str(file["path"])
    return {"geometry": geometry, "modality": scan.modality, "source": source}
