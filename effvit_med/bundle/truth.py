"""Label maps as a network learns from them: on its grid, with what is ignored and what was not annotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from torch import Tensor

from effvit_med.bundle.metatensor import scan_of, to_metatensor
from effvit_med.engine.model import IGNORED, Model
from effvit_med.errors import GeometryError, InputError
from effvit_med.training.label_codes import LabelCodes, missing_outputs
from effvit_med.transforms import prepare_labels
from effvit_med.volume import Geometry, Source, Volume

ANNOTATED = "annotated"
"""The entry of a case with the names of what was annotated; a case without it has everything annotated."""

SAME_PLACE_MM = 0.1
"""How far the voxels of an image and of its label map may lie apart."""

Bytes = npt.NDArray[np.uint8]


class Truth:
    """What brings the label maps of a model to its network.

    Args:
        model: the bundle's model.
        annotations: the sets of annotated outputs that occur.
        ignore: the label value of voxels about which nothing is said; None where there are none.

    Raises:
        SettingsError: if an annotated output is none of the model's.
    """

    def __init__(self, model: Model, annotations: Sequence[Sequence[str]] = (), ignore: int | None = None) -> None:
        self.model, self.ignore = model, ignore
        overlapping = model.head.kind == "overlapping"
        self.codes = None if overlapping else LabelCodes(model.head, model.labels, annotations)

    def prepare(
        self, label: MetaTensor | Mapping[str, MetaTensor], volume: Volume, annotated: Sequence[str] | None
    ) -> MetaTensor:
        """A label map on the network's grid.

        Args:
            label: (1, a0, a1, a2) label values; of structures that overlap also one map a structure, by name, in which
                everything above 0 belongs to it.
            volume: the scan, on the same grid.
            annotated: the names of what was annotated; None for everything.

        Returns:
            (1, g0, g1, g2) numbers of `LabelCodes`; of structures that overlap (structures, g0, g1, g2), 1 where a
            structure is, 0 where it is not, 255 where that is not known.

        Raises:
            GeometryError: if a map does not lie on the grid of the scan.
            InputError: if a map has a value, or the case a structure, that is not in the model's label table; or if a
                structure has no map and the case does not say what was annotated.
            SettingsError: if the set of what was annotated was not listed.
        """
        if self.codes is None:
            return self._prepare_each(label, volume, annotated)
        if isinstance(label, Mapping):
            raise self._refuse_maps(label)
        values, geometry, name = _take(label, volume)
        classes, grid = self._to_grid(self.model.classes_of(values, name, self.ignore), geometry)
        codes = self.codes.encode(classes, annotated)
        return to_metatensor(torch.from_numpy(codes)[None].float(), grid, volume)

    def mark(
        self, label: MetaTensor | Mapping[str, MetaTensor], volume: Volume, annotated: Sequence[str] | None
    ) -> MetaTensor:
        """A label map on the scan's own grid, a channel for background and for each structure.

        Args:
            label: as `prepare` takes it.
            volume: the scan, on the same grid.
            annotated: the names of what was annotated; None for everything.

        Returns:
            (1 + structures, a0, a1, a2): 1 inside, 0 outside, 255 where that is not known. Of structures that overlap
            the first channel is 0 everywhere. Of regions no structure is known in a case that lacks a region.

        Raises:
            GeometryError: if a map does not lie on the grid of the scan.
            InputError: as of `prepare`.
        """
        names = [structure.name for structure in self.model.labels]
        shape = volume.geometry.shape
        if self.codes is None:
            maps = self._split(label, volume, annotated)
            marks = [maps[name][0] if name in maps else np.zeros(shape, np.uint8) for name in names]
            marks.insert(0, np.zeros(shape, np.uint8))
        elif isinstance(label, Mapping):
            raise self._refuse_maps(label)
        else:
            values, _, name = _take(label, volume)
            classes = self.model.classes_of(values, name, self.ignore)
            marks = [
                np.where(classes == IGNORED, IGNORED, classes == n).astype(np.uint8) for n in range(1 + len(names))
            ]
        for number in self._unknown(annotated):
            marks[number] = np.full(shape, IGNORED, np.uint8)
        return to_metatensor(torch.from_numpy(np.stack(marks)).float(), volume.geometry, volume)

    def _unknown(self, annotated: Sequence[str] | None) -> list[int]:
        """The channels of `mark` of which a case says nothing."""
        head, labels = self.model.head, self.model.labels
        missing = [] if annotated is None else missing_outputs(head, labels, annotated)
        if head.kind == "regions":
            return list(range(1, 1 + len(labels))) if missing else []
        return [number + (head.kind == "overlapping") for number in missing]

    def _refuse_maps(self, label: Mapping[str, MetaTensor]) -> InputError:
        return InputError(
            f"A case has one label map for each of {', '.join(label)}; that is for a head of the kind overlapping, "
            f"and {self.model.name} has {self.model.head.kind}. Give one label map."
        )

    def _prepare_each(
        self, label: MetaTensor | Mapping[str, MetaTensor], volume: Volume, annotated: Sequence[str] | None
    ) -> MetaTensor:
        labels = self.model.labels
        missing = [] if annotated is None else missing_outputs(self.model.head, labels, annotated)
        maps = self._split(label, volume, annotated)
        channels: list[Tensor] = []
        grid = volume.geometry
        for number, structure in enumerate(labels):
            mask, geometry = maps.get(structure.name, (np.zeros(volume.geometry.shape, np.uint8), volume.geometry))
            prepared, grid = self._to_grid(mask, geometry)
            channels.append(torch.full(prepared.shape, IGNORED) if number in missing else torch.from_numpy(prepared))
        return to_metatensor(torch.stack(channels).float(), grid, volume)

    def _split(
        self, label: MetaTensor | Mapping[str, MetaTensor], volume: Volume, annotated: Sequence[str] | None
    ) -> dict[str, tuple[Bytes, Geometry]]:
        """The mask of each structure, 1 inside, 0 outside, `IGNORED` where nothing is said."""
        names = [structure.name for structure in self.model.labels]
        if isinstance(label, Mapping):
            unknown, absent = sorted(set(label) - set(names)), [name for name in names if name not in label]
            if unknown:
                raise InputError(
                    f"A case has label maps of {', '.join(unknown)}; the structures are {', '.join(names)}."
                )
            if absent and annotated is None:
                raise InputError(
                    f"A case has no label map of {', '.join(absent)} and does not say whether that was annotated. List "
                    "what was under `annotated`: a structure that is listed and has no map is not in the image."
                )
            taken = {name: _take(each, volume) for name, each in label.items()}
            return {
                name: (np.where(values == self._ignore, IGNORED, values > 0).astype(np.uint8), geometry)
                for name, (values, geometry, _) in taken.items()
            }
        values, geometry, name = _take(label, volume)
        ignored = values == self._ignore
        sums = np.where(ignored, 0, values).astype(np.int64)
        if sums.min() < 0 or sums.max() >= 1 << len(names):
            raise InputError(
                f"{name} has values from {sums.min()} to {sums.max()}; sums of {', '.join(names)} go up to "
                f"{(1 << len(names)) - 1}."
            )
        return {
            each: (np.where(ignored, IGNORED, (sums >> number) & 1).astype(np.uint8), geometry)
            for number, each in enumerate(names)
        }

    @property
    def _ignore(self) -> int:
        return -1 if self.ignore is None else self.ignore

    def _to_grid(self, classes: Bytes, geometry: Geometry) -> tuple[Bytes, Geometry]:
        prepared, grid = prepare_labels(classes, geometry, self.model.preprocess)
        return prepared.numpy(), grid


def check_same_place(one: Geometry, one_source: Source | None, other: Geometry, other_source: Source | None) -> None:
    """Nothing, if two grids have their voxels in one place.

    Args:
        one: the first grid.
        one_source: where it came from.
        other: the second grid.
        other_source: where that came from.

    Raises:
        GeometryError: if a voxel lies more than `SAME_PLACE_MM` from its counterpart.
    """
    distance_mm = one.max_distance_mm(other)
    if distance_mm > SAME_PLACE_MM:
        names = f"{name_source(one_source)} and {name_source(other_source)}"
        raise GeometryError(f"{names} lie {distance_mm:.3f} mm apart; image and label map must share one grid.")


def name_source(source: Source | None) -> str:
    """What to call the file that a volume came from."""
    return str(source.files[0].path) if source else "a volume made in memory"


def _take(label: MetaTensor, volume: Volume) -> tuple[npt.NDArray[np.float32], Geometry, str]:
    """The values of a label map, their grid and what to call it."""
    geometry, _, source = scan_of(label)
    check_same_place(geometry, source, volume.geometry, volume.source)
    return label[0].numpy(), geometry, name_source(source)
