"""MONAI dictionary transforms over our own functions; a bundle's YAML names them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from effvit_med.bundle.metatensor import grid_of, scan_of, to_metatensor
from effvit_med.engine.model import Model
from effvit_med.engine.scoring import grid_stride
from effvit_med.errors import GeometryError, InputError
from effvit_med.io import open_input, read_case
from effvit_med.transforms import label_grid, prepare, prepare_labels, strided_grid
from effvit_med.volume import Volume

SAME_PLACE_MM = 0.1
"""How far the voxels of an image and of its label map may lie apart."""


class LoadVolumed(MapTransform):  # type: ignore[misc]  # MONAI is not typed
    """Read a NIfTI file or a folder with one DICOM series into a MetaTensor of shape (1, a0, a1, a2).

    Args:
        keys: entries that hold paths.
        allow_missing_keys: pass over entries that are not there.

    Raises:
        InputError: if a path does not hold exactly one readable case.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries with paths replaced by MetaTensors."""
        result = dict(data)
        for key in self.key_iterator(result):
            volume = _read_one(Path(result[key]))
            result[key] = to_metatensor(torch.from_numpy(volume.array)[None].float(), volume.geometry, volume)
        return result


class PrepareVolumed(MapTransform):  # type: ignore[misc]
    """Bring an image onto the network's grid and into its range, and a label map onto the same grid.

    It is the engine's own preprocessing; a network trained behind it sees what it will see in use.

    Args:
        keys: the entry of the image.
        model: the bundle's model (`effvit_med.bundle.read_model`).
        label_key: the entry of the label map, or None.

    Raises:
        GeometryError: if image and label map do not lie on the same grid.
    """

    def __init__(self, keys: KeysCollection, model: Model, label_key: str | None = None) -> None:
        super().__init__(keys)
        self.model = model
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries on the network's grid."""
        result = dict(data)
        for key in self.key_iterator(result):
            geometry, modality, source = scan_of(result[key])
            volume = Volume(result[key][0].numpy(), geometry, modality, source)
            prepared = prepare(volume, self.model.preprocess)
            if self.label_key is not None:
                result[self.label_key] = self._prepare_label(result[self.label_key], volume)
            result[key] = to_metatensor(prepared.values, prepared.grid, volume)
        return result

    def _prepare_label(self, label: MetaTensor, volume: Volume) -> MetaTensor:
        geometry, _, source = scan_of(label)
        distance_mm = geometry.max_distance_mm(volume.geometry)
        if distance_mm > SAME_PLACE_MM:
            names = [each.files[0].path for each in (volume.source, source) if each]
            raise GeometryError(
                f"Image and label map {names} lie {distance_mm:.3f} mm apart; they must share one grid."
            )
        labels, grid = prepare_labels(label[0].numpy().astype(np.uint8), geometry, self.model.preprocess)
        return to_metatensor(labels[None].float(), grid, volume)


class SlicesToChannelsd(MapTransform):  # type: ignore[misc]
    """Turn a crop of 2k+1 slices into one slice with 2k+1 channels, and its label map into the middle slice.

    For a 3D model it does nothing, so one training configuration serves 2D, 2.5D and 3D.

    Args:
        keys: image entries of shape (1, 2k+1, height, width).
        model: the bundle's model.
        label_key: entry of the label map.
    """

    def __init__(self, keys: KeysCollection, model: Model, label_key: str = "label") -> None:
        super().__init__(keys)
        self.preprocess = model.preprocess
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries with slices as channels."""
        result = dict(data)
        if self.preprocess.spatial_dims == 3:
            return result
        for key in self.key_iterator(result):
            result[key] = torch.as_tensor(result[key]).flatten(0, 1)
        label = torch.as_tensor(result[self.label_key])
        result[self.label_key] = label[:, self.preprocess.neighbours]
        return result


class LabelSourced(MapTransform):  # type: ignore[misc]
    """Turn scores on the network's grid into labels on the scan's own grid.

    Args:
        keys: entries of scores, (classes, s0, s1, s2).
        model: the bundle's model.
        image_key: the entry of the prepared image, which knows the scan.
    """

    def __init__(self, keys: KeysCollection, model: Model, image_key: str = "image") -> None:
        super().__init__(keys)
        self.image_key = image_key
        self.model = model
        self.stride = grid_stride(model.build_network().output_stride)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries as labels, (1, a0, a1, a2)."""
        result = dict(data)
        image = result[self.image_key]
        geometry, modality, source = scan_of(image)
        scores_grid = strided_grid(grid_of(image), self.stride)
        for key in self.key_iterator(result):
            scores = torch.as_tensor(result[key]).float().cpu()
            labels = self.model.values_of(label_grid(scores, scores_grid, geometry).numpy()).astype(np.int32)
            scan = Volume(labels, geometry, modality, source)
            result[key] = to_metatensor(torch.from_numpy(labels)[None], geometry, scan)
        return result


def _read_one(path: Path) -> Volume:
    with open_input(path) as found:
        if len(found.cases) != 1:
            refused = "; ".join(f"{case.case_id}: {case.message}" for case in found.refused)
            raise InputError(f"{path} holds {len(found.cases)} cases to read, not one. {refused}".strip())
        return read_case(found.cases[0])
