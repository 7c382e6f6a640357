"""MONAI dictionary transforms over our own functions; a bundle's YAML names them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from effvit_med.bundle.metatensor import grid_of, scan_of, to_metatensor
from effvit_med.engine.model import Model
from effvit_med.engine.scoring import grid_stride
from effvit_med.errors import GeometryError
from effvit_med.io import read_scan
from effvit_med.io.photographs import LUMA
from effvit_med.io.read import read_truth
from effvit_med.transforms import label_grid, prepare, prepare_labels, strided_grid
from effvit_med.volume import Geometry, Source, Volume

SAME_PLACE_MM = 0.1
"""How far the voxels of an image and of its label map may lie apart."""


class LoadVolumed(MapTransform):  # type: ignore[misc]  # MONAI is not typed
    """Read a NIfTI file or a folder with one DICOM series into a MetaTensor of shape (1, a0, a1, a2).

    Args:
        keys: entries that hold paths.
        model: the bundle's model, whose colour weights photographs are read with.
        label_key: the entry of the label map; it comes behind its image.
        allow_missing_keys: pass over entries that are not there.

    Raises:
        InputError: if a path does not hold exactly one readable case.
    """

    def __init__(
        self,
        keys: KeysCollection,
        model: Model | None = None,
        label_key: str = "label",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.label_key = label_key
        self.colour_weights = (model.colour_weights if model else None) or LUMA

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries with paths replaced by MetaTensors."""
        result = dict(data)
        scan: Geometry | None = None
        for key in self.key_iterator(result):
            path = Path(result[key])
            if scan is not None and key == self.label_key:
                volume = read_truth(path, scan)
            else:
                volume = read_scan(path, self.colour_weights)
                scan = volume.geometry
            result[key] = to_metatensor(torch.from_numpy(volume.array)[None].float(), volume.geometry, volume)
        return result


class PrepareVolumed(MapTransform):  # type: ignore[misc]
    """Bring an image onto the network's grid and into its range, and a label map onto the same grid.

    It is the engine's own preprocessing; a network trained behind it sees what it will see in use.

    Args:
        keys: the entry of the image.
        model: the bundle's model (`effvit_med.bundle.read_model`).
        label_key: the entry of the label map, or None.

        at_least: size to which both are padded at the far end of each axis, the image with its smallest value.

    Raises:
        GeometryError: if image and label map do not lie on the same grid.
        InputError: if the label map has a value that is not in the model's label table.
    """

    def __init__(
        self,
        keys: KeysCollection,
        model: Model,
        label_key: str | None = None,
        at_least: Sequence[int] | None = None,
    ) -> None:
        super().__init__(keys)
        self.model = model
        self.label_key = label_key
        self.at_least = tuple(at_least or (1, 1, 1))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries on the network's grid."""
        result = dict(data)
        for key in self.key_iterator(result):
            geometry, modality, source = scan_of(result[key])
            volume = Volume(result[key][0].numpy(), geometry, modality, source)
            prepared = prepare(volume, self.model.preprocess)
            if self.label_key is not None:
                label = self._prepare_label(result[self.label_key], volume)
                result[self.label_key] = self._pad(label, 0.0)
            result[key] = self._pad(to_metatensor(prepared.values, prepared.grid, volume), prepared.values.min())
        return result

    def _pad(self, values: MetaTensor, fill: float | Tensor) -> MetaTensor:
        missing = [max(0, least - size) for least, size in zip(self.at_least, values.shape[1:], strict=True)]
        pad = [0, missing[2], 0, missing[1], 0, missing[0]]
        return torch.nn.functional.pad(values, pad, value=float(fill)) if any(missing) else values

    def _prepare_label(self, label: MetaTensor, volume: Volume) -> MetaTensor:
        geometry, _, source = scan_of(label)
        _check_same_place(geometry, source, volume.geometry, volume.source)
        classes = self.model.classes_of(label[0].numpy(), _name(source))
        labels, grid = prepare_labels(classes, geometry, self.model.preprocess)
        return to_metatensor(labels[None].float(), grid, volume)


class ClassesOfd(MapTransform):  # type: ignore[misc]
    """Turn label maps, on any grid, into class numbers of the model, and check that they lie on one grid.

    Args:
        keys: entries of label maps, (1, a0, a1, a2); all must share one grid.
        model: the bundle's model.

    Raises:
        GeometryError: if the label maps do not lie on the same grid.
        InputError: if a value is not in the model's label table.
    """

    def __init__(self, keys: KeysCollection, model: Model) -> None:
        super().__init__(keys)
        self.model = model

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries as class numbers."""
        result = dict(data)
        first: tuple[Geometry, Source | None] | None = None
        for key in self.key_iterator(result):
            geometry, _, source = scan_of(result[key])
            first = first or (geometry, source)
            _check_same_place(geometry, source, *first)
            classes = self.model.classes_of(result[key].cpu().numpy(), _name(source))
            result[key] = torch.from_numpy(classes.astype(np.int32))
        return result


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


def _check_same_place(one: Geometry, one_source: Source | None, other: Geometry, other_source: Source | None) -> None:
    distance_mm = one.max_distance_mm(other)
    if distance_mm > SAME_PLACE_MM:
        names = f"{_name(one_source)} and {_name(other_source)}"
        raise GeometryError(f"{names} lie {distance_mm:.3f} mm apart; image and label map must share one grid.")


def _name(source: Source | None) -> str:
    return str(source.files[0].path) if source else "a volume made in memory"
