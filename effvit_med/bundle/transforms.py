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
from effvit_med.bundle.truth import ANNOTATED, Truth
from effvit_med.engine.model import Model
from effvit_med.engine.scoring import grid_stride
from effvit_med.io import read_scan
from effvit_med.io.photographs import LUMA
from effvit_med.io.read import read_truth
from effvit_med.transforms import label_grid, prepare, strided_grid
from effvit_med.volume import Geometry, Volume


class LoadVolumed(MapTransform):  # type: ignore[misc]  # MONAI is not typed
    """Read a NIfTI file or a folder with one DICOM series into a MetaTensor of shape (1, a0, a1, a2).

    Args:
        keys: entries that hold paths, or mappings of names to paths (label maps of structures that overlap).
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
            place = result[key]
            if isinstance(place, Mapping):
                result[key] = {name: self._read(path, scan, is_label=True) for name, path in place.items()}
                continue
            result[key] = self._read(place, scan, is_label=key == self.label_key)
            if scan is None:
                scan, _, _ = scan_of(result[key])
        return result

    def _read(self, place: str, scan: Geometry | None, *, is_label: bool) -> MetaTensor:
        path = Path(place)
        volume = read_truth(path, scan) if is_label and scan else read_scan(path, self.colour_weights)
        return to_metatensor(torch.from_numpy(volume.array)[None].float(), volume.geometry, volume)


class PrepareVolumed(MapTransform):  # type: ignore[misc]
    """Bring an image onto the network's grid and into its range, and a label map onto the same grid.

    It is the engine's own preprocessing; a network trained behind it sees what it will see in use.

    Args:
        keys: the entry of the image.
        model: the bundle's model (`effvit_med.bundle.read_model`).
        label_key: the entry of the label map, or None. It becomes one channel of the numbers of
            `effvit_med.training.label_codes.LabelCodes`, or for overlapping structures a channel for each.
        annotations: the sets of annotated outputs that occur in cases with an entry ``annotated``, which goes (see
            `effvit_med.training.label_codes.list_annotations`).
        ignore: the label value of voxels about which nothing is said; None where there are none.
        at_least: size to which both are padded at the far end of each axis, the image with its smallest value.

    Raises:
        GeometryError: if image and label map do not lie on the same grid.
        InputError: if the label map has a value that is not in the model's label table.
        SettingsError: if the case has a set of annotated outputs that was not listed.
    """

    def __init__(
        self,
        keys: KeysCollection,
        model: Model,
        label_key: str | None = None,
        at_least: Sequence[int] | None = None,
        *,
        annotations: Sequence[Sequence[str]] = (),
        ignore: int | None = None,
    ) -> None:
        super().__init__(keys)
        self.model = model
        self.label_key = label_key
        self.truth = Truth(model, annotations, ignore)
        self.at_least = tuple(at_least or (1, 1, 1))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entries on the network's grid."""
        result = dict(data)
        annotated = result.pop(ANNOTATED, None)
        for key in self.key_iterator(result):
            geometry, modality, source = scan_of(result[key])
            volume = Volume(result[key][0].numpy(), geometry, modality, source)
            prepared = prepare(volume, self.model.preprocess)
            if self.label_key is not None:
                label = self.truth.prepare(result[self.label_key], volume, annotated)
                result[self.label_key] = self._pad(label, 0.0)
            result[key] = self._pad(to_metatensor(prepared.values, prepared.grid, volume), prepared.values.min())
        return result

    def _pad(self, values: MetaTensor, fill: float | Tensor) -> MetaTensor:
        missing = [max(0, least - size) for least, size in zip(self.at_least, values.shape[1:], strict=True)]
        pad = [0, missing[2], 0, missing[1], 0, missing[0]]
        return torch.nn.functional.pad(values, pad, value=float(fill)) if any(missing) else values


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
            numbers = label_grid(scores, scores_grid, geometry, decision=self.model.head.decision)
            labels = self.model.values_of(numbers.numpy()).astype(np.int32)
            scan = Volume(labels, geometry, modality, source)
            result[key] = to_metatensor(torch.from_numpy(labels)[None], geometry, scan)
        return result
