"""What stands beside an exported model: everything that a program needs to use it, as one JSON file.

An exported folder holds the network in the form of a runtime and ``contract.json``. The contract says how a scan
becomes the network's input, what shape that has, how its output becomes labels, and how well the file was found to
agree with the network it was made from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from effvit_med import NOT_FOR_CLINICAL_USE
from effvit_med.engine.model import Model
from effvit_med.engine.quality_reference import QualityReference
from effvit_med.engine.settings import describe
from effvit_med.engine.tiling import Tiling
from effvit_med.errors import InputError, SettingsError, WeightsError
from effvit_med.io.atomic import write_json
from effvit_med.transforms import Preprocess
from effvit_med.volume import LabelTable

CONTRACT_FILE = "contract.json"

LABELLING = (
    "Where windows overlap, add their logits, each weighted by a Gaussian over the window, and divide by the sum of "
    "the weights. Interpolate the logits of every class linearly onto the scan's own voxels; an output voxel stands "
    "for a block of output_stride input voxels and lies at its centre. The class with the highest logit wins, the "
    "lowest on a tie. Class 0 is background; class i is the i-th row of model.labels, whose value is written."
)

ExportFormat = Literal["onnx", "openvino", "program"]
ExportPrecision = Literal["float32", "bfloat16", "int8"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ContractModel(_Part):
    """The model as its bundle describes it."""

    name: str
    version: str
    description: str
    modalities: tuple[str, ...]
    network: Annotated[dict[str, Any], Field(description="arguments of effvit_med.networks.build_network")]
    preprocess: Preprocess
    tiling: Tiling
    labels: tuple[dict[str, Any], ...]
    quality: Annotated[QualityReference | None, Field(description="what is known of the training data")] = None
    colour_weights: Annotated[
        tuple[float, float, float] | None, Field(description="shares of red, green and blue; only for photographs")
    ] = None


class ContractFile(_Part):
    """A file of the exported folder."""

    name: Annotated[str, Field(description="its name in the folder")]
    sha256: str

    @field_validator("name")
    @classmethod
    def _is_plain(cls, name: str) -> str:
        if Path(name).name != name or "\\" in name:
            raise ValueError("a file of the folder itself is needed")
        return name


class ContractTensor(_Part):
    """The input or the output of the network."""

    name: str
    axes: Annotated[tuple[str, ...], Field(description="what each axis is, outermost first")]
    shape: Annotated[tuple[int | None, ...], Field(description="size of each axis; null where it is free")]
    dtype: Literal["float32"] = "float32"


class ContractParity(_Part):
    """How the file labels a sample case, compared with the network in eager float32."""

    case: Annotated[str, Field(description="name of the sample case")]
    voxels: int
    agreement: Annotated[float, Field(description="share of voxels of equal label")]
    least_agreement: Annotated[float, Field(description="the share that was asked for")]
    dice: Annotated[dict[str, float | None], Field(description="by structure; null where neither has a voxel")]
    computed_in: Annotated[str, Field(description="the arithmetic that the machine of the export had for the file")]


class Contract(_Part):
    """The content of ``contract.json``."""

    format_version: Literal[1] = 1
    notice: str = NOT_FOR_CLINICAL_USE
    model: ContractModel
    weights_sha256: Annotated[str, Field(description="of the bundle's weights file that this was made from")]
    runtime: ExportFormat
    precision: ExportPrecision
    files: Annotated[tuple[ContractFile, ...], Field(description="the first is the one to open", min_length=1)]
    input: ContractTensor
    output: ContractTensor
    window: Annotated[tuple[int, ...], Field(description="spatial size of a tile as the network gets it")]
    output_stride: Annotated[tuple[int, ...], Field(description="input voxels per output voxel")]
    labelling: str = LABELLING
    parity: ContractParity
    versions: dict[str, str]
    contract_sha256: Annotated[str, Field(description="of all the rest of this file; set when it is written")] = ""

    def to_model(self, folder: Path) -> Model:
        """The model as the engine uses it, whose weights file is the exported network.

        Args:
            folder: the exported folder.

        Raises:
            SettingsError: if a label is wrong.
        """
        model = Model(
            name=self.model.name,
            version=self.model.version,
            description=self.model.description,
            modalities=self.model.modalities,
            weights=folder / self.files[0].name,
            network=self.model.network,
            preprocess=self.model.preprocess,
            tiling=self.model.tiling,
            labels=LabelTable.from_dicts(self.model.labels),
            quality=self.model.quality,
            colour_weights=self.model.colour_weights,
        )
        # records name the weights that the network was trained to, whatever file they are in now
        vars(model)["weights_sha256"] = self.weights_sha256
        return model


def describe_contract_model(model: Model) -> ContractModel:
    """The part of a contract that a model itself decides.

    Args:
        model: what the bundle says.
    """
    return ContractModel(
        name=model.name,
        version=model.version,
        description=model.description,
        modalities=model.modalities,
        network=model.network,
        preprocess=model.preprocess,
        tiling=model.tiling,
        labels=tuple(model.labels.to_dicts()),
        quality=model.quality,
        colour_weights=model.colour_weights,
    )


def is_exported(folder: Path) -> bool:
    """Whether a folder is an exported model: it has a contract.

    Args:
        folder: any path.

    Examples:
        >>> is_exported(Path("no such folder"))
        False
    """
    return (folder / CONTRACT_FILE).is_file()


def read_contract(folder: Path) -> Contract:
    """The contract of an exported folder; the files it names are not looked at.

    Args:
        folder: the exported folder.

    Raises:
        InputError: if the folder has no contract that can be read.
        SettingsError: if a value is missing, unknown or wrong, or the contract is of another format version.
    """
    path = folder / CONTRACT_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder} is no exported model: {path} cannot be read ({error}).") from error
    try:
        contract = Contract.model_validate_json(text)
    except ValidationError as error:
        raise SettingsError(f"{path}: {describe(error)}") from error
    if contract.contract_sha256 != _digest(contract):
        raise SettingsError(
            f"{path} was changed after the export, so that what it says no longer went through the parity gate. Export "
            "the model again with what you want."
        )
    return contract.model_copy(update={"contract_sha256": ""})


def write_contract(folder: Path, contract: Contract) -> None:
    """Write a contract into a folder, whole or not at all.

    Args:
        folder: the exported folder; it must exist.
        contract: what to write.

    Raises:
        OutputError: if it cannot be written.
    """
    write_json(folder / CONTRACT_FILE, {**_plain(contract), "contract_sha256": _digest(contract)})


def _plain(contract: Contract) -> dict[str, Any]:
    plain = contract.model_dump(mode="json", exclude={"model": {"preprocess", "tiling"}})
    plain["model"]["preprocess"] = asdict(contract.model.preprocess)
    plain["model"]["tiling"] = asdict(contract.model.tiling)
    for name in ("quality", "colour_weights"):
        if plain["model"][name] is None:
            del plain["model"][name]  # so that exports from before there was one keep their digest
    return plain


def _digest(contract: Contract) -> str:
    """The SHA-256 of all that a contract says but this digest itself."""
    said = {name: value for name, value in _plain(contract).items() if name != "contract_sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def check_files(folder: Path, contract: Contract) -> None:
    """Nothing, if every file of a contract is there with the bytes it was exported with.

    Args:
        folder: the exported folder.
        contract: of that folder.

    Raises:
        WeightsError: if a file is missing or has other bytes.
    """
    for file in contract.files:
        found = hash_file(folder / file.name)
        if found != file.sha256:
            raise WeightsError(
                f"{folder / file.name} is damaged: its SHA-256 is {found}, the contract says {file.sha256}. "
                "Export the model again."
            )


def hash_file(path: Path) -> str:
    """The SHA-256 of a file as hex digits.

    Args:
        path: the file.

    Raises:
        WeightsError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}. Export the model again.") from error
