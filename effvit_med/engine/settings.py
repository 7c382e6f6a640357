"""What a user may choose: one frozen form from which the command line, bundles and the plugin make theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effvit_med.errors import InputError, SettingsError

OutputType = Literal["dicom-seg", "rtstruct", "nifti", "nrrd", "dicom-sr", "png"]
Precision = Literal["float32", "bfloat16", "float16"]
Runtime = Literal["auto", "eager", "compile", "onnx", "openvino", "tensorrt"]
Region = Literal["whole", "body", "organs"]
Remedy = Literal["gaps", "irregular", "duplicates"]


class Settings(BaseModel):
    """How to segment.

    Every field has a default and is an option of the command line; a test holds the two together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Annotated[str, Field(description="auto, cpu, cuda, cuda:N or mps")] = "auto"
    precision: Annotated[
        Precision, Field(description="arithmetic of the network; bfloat16 is faster where supported")
    ] = "float32"
    runtime: Annotated[
        Runtime,
        Field(description="what runs the network; auto measures once on this machine and takes the fastest"),
    ] = "eager"
    overlap: Annotated[
        float | None,
        Field(description="overlap of neighbouring tiles, 0 to 0.9; the bundle's own if not given", ge=0, le=0.9),
    ] = None
    batch_size: Annotated[int, Field(description="tiles that go through the network together", ge=1)] = 1
    threads: Annotated[int | None, Field(description="processor threads; all cores if not given", ge=1)] = None
    memory_gb: Annotated[
        float | None,
        Field(description="memory to stay within, in GiB; four fifths of what is free if not given", gt=0),
    ] = None
    mirror: Annotated[
        bool, Field(description="average over mirrored tiles too: more certain, several times slower")
    ] = False
    fold: Annotated[
        int | None, Field(description="which of a bundle's several weights, from 1; the mean of all if not given", ge=1)
    ] = None
    region: Annotated[
        Region,
        Field(description="segment the whole scan, or a box around the body or organs, found by a quick pass"),
    ] = "whole"

    @classmethod
    def from_values(cls, **values: Any) -> Settings:
        """Settings from plain values.

        Raises:
            SettingsError: if a name is unknown or a value is not allowed; the message names both.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError(describe(error)) from error

    def that_change_labels(self) -> dict[str, Any]:
        """The settings that can change the result, for the record's identity."""
        return self.model_dump(include={"precision", "overlap", "runtime", "mirror", "fold", "region"})


def read_values(path: Path) -> dict[str, Any]:
    """The names and values of a YAML file.

    Args:
        path: the file.

    Raises:
        InputError: if it is no YAML, or holds something else.
        OSError: if it cannot be read.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML file: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no settings: expected names and values, found {type(content).__name__}.")
    return content


def describe(error: ValidationError) -> str:
    """One line for all that pydantic found: where, the value, what is allowed."""
    parts = []
    for found in error.errors():
        where = ".".join(str(part) for part in found["loc"])
        value = repr(found["input"])
        value = value if len(value) <= 80 else f"{value[:77]}..."
        parts.append(f"{where} is {value}: {found['msg']}" if where else found["msg"])
    return "; ".join(parts) + "."
