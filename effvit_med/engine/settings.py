"""What a user may choose: one frozen form from which the command line, bundles and the plugin make theirs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effvit_med.errors import SettingsError

OutputType = Literal["dicom-seg", "nifti"]
Remedy = Literal["gaps", "irregular", "duplicates"]


class Settings(BaseModel):
    """How to segment.

    Every field has a default and is an option of the command line; a test holds the two together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Annotated[str, Field(description="auto, cpu, cuda, cuda:N or mps")] = "auto"
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Field(description="arithmetic of the network; bfloat16 is faster where supported"),
    ] = "float32"
    overlap: Annotated[
        float | None,
        Field(description="overlap of neighbouring tiles, 0 to 0.9; the bundle's own if not given", ge=0, le=0.9),
    ] = None
    batch_size: Annotated[int, Field(description="tiles that go through the network together", ge=1)] = 1
    threads: Annotated[int | None, Field(description="processor threads; all cores if not given", ge=1)] = None

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
        return self.model_dump(include={"precision", "overlap"})


def describe(error: ValidationError) -> str:
    """One line for all that pydantic found: where, the value, what is allowed."""
    parts = []
    for found in error.errors():
        where = ".".join(str(part) for part in found["loc"])
        parts.append(f"{where} is {found['input']!r}: {found['msg']}" if where else found["msg"])
    return "; ".join(parts) + "."
