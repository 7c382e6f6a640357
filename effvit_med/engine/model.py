"""What a bundle says about its model: the network, its weights, preprocessing, tiling and labels.

A bundle is a folder in the layout of MONAI bundles. Everything needed to use its model stands as plain values in
``configs/model.yaml``; the MONAI configs beside it read the same file, so training and every way of inference agree.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from effvit_med.engine.head import Head
from effvit_med.engine.quality_reference import QualityReference, read_reference
from effvit_med.engine.settings import describe, read_values
from effvit_med.engine.shelf import MODEL_FILE, PROMPT_FILE, find_bundle
from effvit_med.engine.tiling import Tiling
from effvit_med.errors import InputError, SettingsError, WeightsError
from effvit_med.io.photographs import check_colour_weights
from effvit_med.networks import SegmentationNetwork, build_network, load_weights
from effvit_med.transforms import Labeller, Preprocess
from effvit_med.volume import Geometry, LabelTable
from effvit_med.volume.counts import find_values

IGNORED = 255
"""The class number of voxels about which nothing is said."""


class ModelFile(BaseModel):
    """The content of ``configs/model.yaml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    description: str = ""
    modalities: Annotated[tuple[str, ...], Field(description="DICOM Modality values the model was trained on")] = ()
    weights: Annotated[
        str | tuple[str, ...], Field(description="path of the weights from the bundle's folder; several for folds")
    ]
    network: Annotated[dict[str, Any], Field(description="arguments of effvit_med.networks.build_network")]
    preprocess: dict[str, Any]
    tiling: dict[str, Any]
    labels: tuple[dict[str, Any], ...]
    colour_weights: Annotated[
        tuple[float, float, float] | None,
        Field(description="shares of red, green and blue in the one channel of photographs; only for such models"),
    ] = None
    head: Annotated[dict[str, Any], Field(description="what the outputs stand for; softmax if not said")] = Field(
        default_factory=dict
    )


@dataclass(frozen=True)
class Model:
    """A model as its bundle describes it; nothing is loaded yet.

    Attributes:
        name: name of the bundle.
        version: its version.
        description: one sentence.
        modalities: DICOM Modality values it was trained on; empty if it does not matter.
        weights: path of the weights file; of folds, the first.
        network: arguments of `effvit_med.networks.build_network`.
        preprocess: how a scan becomes its input.
        tiling: how the grid is cut into windows.
        labels: the structures it knows; class 0 is background, class i is the i-th row.
        head: what its outputs stand for.
        folds: paths of the weights of all folds, whose logits are averaged; one for a single network.
        quality: what is known of the training data, to judge results by; None if the bundle says nothing.
        colour_weights: shares of red, green and blue in the one channel of photographs; None for a model that is not
            made for photographs.
    """

    name: str
    version: str
    description: str
    modalities: tuple[str, ...]
    weights: Path
    network: dict[str, Any]
    preprocess: Preprocess
    tiling: Tiling
    labels: LabelTable
    head: Head = field(default_factory=Head)
    folds: tuple[Path, ...] = ()
    quality: QualityReference | None = None
    colour_weights: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "folds", self.folds or (self.weights,))

    @cached_property
    def weights_sha256(self) -> str:
        """Hex digest of the weights file; of several, that of their digests one after another.

        Raises:
            WeightsError: if a file cannot be read.
        """
        digests = [digest_file(path) for path in self.folds]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def with_fold(self, number: int) -> Model:
        """The model with only one of its folds.

        Args:
            number: of the fold, from 1.

        Raises:
            SettingsError: if there are not so many.
        """
        if not 1 <= number <= len(self.folds):
            raise SettingsError(f"The fold is {number}; {self.name} has {len(self.folds)}, counted from 1.")
        return replace(self, weights=self.folds[number - 1], folds=(self.folds[number - 1],))

    def values_of(self, numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """The label values of the numbers that the network's outputs make; without regions, of class numbers.

        Args:
            numbers: as `effvit_med.transforms.label_grid` gives them, by the decision of the head.

        Returns:
            Label values of the same shape; the array itself where numbers are label values.
        """
        values = np.array(self.head.written(self.labels))
        wide = values.max() > 255
        if numbers.dtype == np.uint8 and not wide and np.array_equal(values, np.arange(len(values))):
            return numbers
        return values.astype(np.uint16)[numbers] if wide else values.astype(np.uint8)[numbers]

    def make_labeller(
        self,
        grid: Geometry,
        target: Geometry,
        *,
        limited: bool = False,
        confidence: npt.NDArray[np.uint8] | None = None,
    ) -> Labeller:
        """What makes label values of the network's outputs as they come.

        Args:
            grid: the grid of the outputs.
            target: the grid of the labels.
            limited: as of `Labeller`.
            confidence: as of `Labeller`.

        Raises:
            GeometryError: as of `Labeller`.
        """
        values, decision = self.head.written(self.labels), self.head.decision
        return Labeller(grid, target, values, decision=decision, limited=limited, confidence=confidence)

    def table_of(self, labels: npt.NDArray[np.unsignedinteger]) -> LabelTable:
        """The label table of a label map: the model's own, and a row for each sum of structures that overlap.

        Args:
            labels: the label values.
        """
        return self.labels.with_sums(find_values(labels)) if self.head.kind == "overlapping" else self.labels

    def classes_of(self, values: npt.NDArray[Any], name: str, ignore: int | None = None) -> npt.NDArray[np.uint8]:
        """The class numbers of label values, to train on: 0 for background, i for the i-th label.

        Args:
            values: label values, of any shape; of a model without overlapping structures.
            name: what the values came from, for the error.
            ignore: the value of voxels about which nothing is said; None where there are none.

        Returns:
            uint8 class numbers of the same shape; `IGNORED` where the value is to be ignored.

        Raises:
            InputError: if a value is not in the label table, or there are more than 254 structures.
        """
        known = np.array([0, *(label.value for label in self.labels)])
        found = set(np.unique(values).tolist()) - ({ignore} if ignore is not None else set())
        unknown = sorted(found - set(known.tolist()))
        if unknown or len(known) > IGNORED:
            raise InputError(f"{name} has the label values {unknown}; {self.name} knows {known.tolist()}.")
        classes = np.searchsorted(known, values).astype(np.uint8)
        if ignore is not None:
            classes[values == ignore] = IGNORED
        return classes

    def build_network(self) -> SegmentationNetwork:
        """The network with fresh weights.

        Raises:
            SettingsError: if an argument is unknown or wrong.
        """
        try:
            return build_network(**self.network)
        except TypeError as error:
            raise SettingsError(f"The network {self.network} of {self.name} cannot be built: {error}.") from error

    def load_network(self, weights: Path | None = None) -> SegmentationNetwork:
        """The network with the bundle's weights, ready for inference.

        Args:
            weights: those of one fold; the first if None.

        Raises:
            SettingsError: if an argument is unknown or wrong.
            WeightsError: if the weights are missing or do not belong to the network.
        """
        network = self.build_network()
        load_weights(network, weights or self.weights)
        return network.eval()


def digest_file(path: Path) -> str:
    """The SHA-256 of a file of weights, as hex digits.

    Args:
        path: the file.

    Raises:
        WeightsError: if it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"The weights {path} cannot be read: {error.strerror}.") from error


def read_model(bundle: Path | str | None = None, weights: Path | str | None = None) -> Model:
    """What a bundle says about its model.

    Args:
        bundle: the bundle's folder, or the name of one that comes with effvit-med; None for the default one.
        weights: a weights file to use in place of the bundle's own; None or empty for its own.

    Returns:
        The model, with all values checked.

    Raises:
        InputError: if the folder is no bundle, or its model.yaml is no YAML.
        SettingsError: if a value in model.yaml or quality.json is missing, unknown or wrong, or no bundle has the name.

    Examples:
        >>> read_model().preprocess.spatial_dims
        3
    """
    folder = find_bundle(bundle)
    path = folder / MODEL_FILE
    try:
        content = read_values(path)
    except OSError as error:
        if (folder / PROMPT_FILE).is_file():
            raise InputError(
                f"{folder} knows no structures: it segments what prompts point at. Use effvit-med prompt."
            ) from error
        raise InputError(f"{folder} is no effvit-med bundle: {path} cannot be read ({error.strerror}).") from error
    try:
        file = ModelFile(**content)
        preprocess = TypeAdapter(Preprocess).validate_python(file.preprocess)
        tiling = TypeAdapter(Tiling).validate_python(file.tiling)
        head = TypeAdapter(Head).validate_python(file.head)
    except ValidationError as error:
        raise SettingsError(f"{path}: {describe(error)}") from error
    labels = LabelTable.from_dicts(file.labels)
    _check_agreement(path, file, preprocess, labels, head)
    named = (file.weights,) if isinstance(file.weights, str) else file.weights
    folds = (Path(weights),) if weights else tuple(folder / name for name in named)
    if not folds:
        raise SettingsError(f"{path}: weights names no file; give at least one.")
    return Model(
        name=file.name,
        version=file.version,
        description=file.description,
        modalities=file.modalities,
        weights=folds[0],
        network=file.network,
        preprocess=preprocess,
        tiling=tiling,
        labels=labels,
        head=head,
        folds=folds,
        quality=read_reference(folder),
        colour_weights=file.colour_weights,
    )


def _check_agreement(path: Path, file: ModelFile, preprocess: Preprocess, labels: LabelTable, head: Head) -> None:
    """Raise SettingsError where two parts of a model file contradict each other."""
    values = [row["value"] for row in file.labels]
    if values != sorted(values):
        raise SettingsError(f"{path}: the label values {values} must rise, because class i is the i-th row.")
    if file.colour_weights is not None:
        try:
            check_colour_weights(file.colour_weights)
        except SettingsError as error:
            raise SettingsError(f"{path}: {error}") from error
        if preprocess.slices_per_input != 1 or preprocess.spatial_dims != 2:
            raise SettingsError(f"{path}: colour_weights is for photographs, which need spatial_dims 2, neighbours 0.")
    try:
        head.check(labels)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    wanted = {
        "spatial_dims": preprocess.spatial_dims,
        "in_channels": preprocess.slices_per_input,
        "out_channels": len(head.names(labels)),
    }
    for name, value in wanted.items():
        if file.network.get(name) != value:
            found = file.network.get(name)
            raise SettingsError(f"{path}: network.{name} is {found}, but preprocess and labels need {value}.")
