"""What a bundle says about its model: the network, its weights, preprocessing, tiling and labels.

A bundle is a folder in the layout of MONAI bundles. Everything needed to use its model stands as plain values in
``configs/model.yaml``; the MONAI configs beside it read the same file, so training and every way of inference agree.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from effvit_med.engine.quality_reference import QualityReference, read_reference
from effvit_med.engine.settings import describe
from effvit_med.engine.shelf import MODEL_FILE, find_bundle
from effvit_med.engine.tiling import Tiling
from effvit_med.errors import InputError, SettingsError, WeightsError
from effvit_med.io.photographs import check_colour_weights
from effvit_med.networks import SegmentationNetwork, build_network, load_weights
from effvit_med.transforms import Preprocess
from effvit_med.volume import LabelTable


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
        labels: what its outputs mean; class 0 is background, class i is the i-th row.
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
        digests = [_digest(path) for path in self.folds]
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

    def values_of(self, classes: npt.NDArray[Any]) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """The label values of classes: 0 for class 0, then those of the table's rows.

        Args:
            classes: class numbers, as `effvit_med.transforms.label_grid` gives them.

        Returns:
            Label values of the same shape; the array itself where class numbers are label values.
        """
        values = np.array([0, *(label.value for label in self.labels)])
        wide = values.max() > 255
        if classes.dtype == np.uint8 and not wide and np.array_equal(values, np.arange(len(values))):
            return classes
        return values.astype(np.uint16)[classes] if wide else values.astype(np.uint8)[classes]

    def classes_of(self, values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
        """The class numbers of label values, to train on; the inverse of `values_of`.

        Args:
            values: label values, of any shape.
            name: what the values came from, for the error.

        Returns:
            uint8 class numbers of the same shape.

        Raises:
            InputError: if a value is not in the label table, or there are more than 255 structures.
        """
        known = np.array([0, *(label.value for label in self.labels)])
        unknown = sorted(set(np.unique(values).tolist()) - set(known.tolist()))
        if unknown or len(known) > 256:
            raise InputError(f"{name} has the label values {unknown}; {self.name} knows {known.tolist()}.")
        return np.searchsorted(known, values).astype(np.uint8)

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


def _digest(path: Path) -> str:
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
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{folder} is no effvit-med bundle: {path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML file: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no settings: expected names and values, found {type(content).__name__}.")
    try:
        file = ModelFile(**content)
        preprocess = TypeAdapter(Preprocess).validate_python(file.preprocess)
        tiling = TypeAdapter(Tiling).validate_python(file.tiling)
    except ValidationError as error:
        raise SettingsError(f"{path}: {describe(error)}") from error
    labels = LabelTable.from_dicts(file.labels)
    _check_agreement(path, file, preprocess, labels)
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
        folds=folds,
        quality=read_reference(folder),
        colour_weights=file.colour_weights,
    )


def _check_agreement(path: Path, file: ModelFile, preprocess: Preprocess, labels: LabelTable) -> None:
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
    wanted = {
        "spatial_dims": preprocess.spatial_dims,
        "in_channels": preprocess.slices_per_input,
        "out_channels": len(labels) + 1,
    }
    for name, value in wanted.items():
        if file.network.get(name) != value:
            found = file.network.get(name)
            raise SettingsError(f"{path}: network.{name} is {found}, but preprocess and labels need {value}.")
