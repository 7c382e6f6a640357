"""What the outputs of a network stand for: classes that exclude one another, regions, or structures that overlap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from effvit_med.errors import SettingsError
from effvit_med.transforms.decision import Decision
from effvit_med.volume import LabelTable

HeadKind = Literal["softmax", "regions", "overlapping"]

MOST_OVERLAPPING = 16
"""Structures of an overlapping head: a label map has a bit for each."""


@dataclass(frozen=True)
class Region:
    """A set of label values that a network finds together, such as a whole tumour of core and rim.

    Attributes:
        name: what it is called.
        values: the label values of which it is made.
    """

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class Head:
    """What the outputs of a network stand for.

    ``softmax``: output 0 is background, output i the i-th label; the highest wins. ``regions``: one output per region,
    each by itself present where it is above 0; regions are written in their order, so that the later wins, each as one
    label value, and a label map comes out as ever. ``overlapping``: one output per label, each by itself present where
    it is above 0; the labels have the values 1, 2, 4, ... and a voxel has the sum of the values of all that are there.

    Args:
        kind: which of the three.
        regions: for ``regions`` only: one for each output.
        order: for ``regions`` only: the label value that each region is written as (``regions_class_order`` of
            nnU-Net).

    Raises:
        SettingsError: if regions stand with another kind, there are none, or there is not one value for each.

    Source:
        Isensee et al., nnU-Net for Brain Tumor Segmentation (arXiv 2011.00848), section 2.2 (regions and their order).

    Examples:
        >>> whole, core = Region("whole tumour", (1, 2)), Region("core", (2,))
        >>> Head("regions", (whole, core), (1, 2)).decision.name
        'LAST'
    """

    kind: HeadKind = "softmax"
    regions: tuple[Region, ...] = ()
    order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.kind != "regions" and (self.regions or self.order):
            raise SettingsError(f"head: regions and order belong to the kind regions, not to {self.kind}.")
        if self.kind == "regions" and not self.regions:
            raise SettingsError("head: the kind regions needs a list of regions, each with name and values.")
        if len(self.order) != len(self.regions):
            raise SettingsError(
                f"head: order has {len(self.order)} label values for {len(self.regions)} regions; give the value that "
                "each region is written as."
            )

    @property
    def decision(self) -> Decision:
        """How the outputs at a voxel become one number."""
        return {"softmax": Decision.HIGHEST, "regions": Decision.LAST, "overlapping": Decision.EACH}[self.kind]

    def names(self, labels: LabelTable) -> tuple[str, ...]:
        """What each output stands for.

        Args:
            labels: the model's label table.
        """
        if self.kind == "regions":
            return tuple(region.name for region in self.regions)
        names = tuple(label.name for label in labels)
        return ("background", *names) if self.kind == "softmax" else names

    def written(self, labels: LabelTable) -> tuple[int, ...]:
        """The label value of each number that the outputs can make (see `Decision`).

        Args:
            labels: the model's label table.
        """
        if self.kind == "overlapping":
            return tuple(range(1 << len(labels)))
        return (0, *self.order) if self.kind == "regions" else (0, *(label.value for label in labels))

    def truth_of(self, labels: LabelTable) -> tuple[tuple[int, ...], ...]:
        """For each output, the class numbers (0 is background, i the i-th label) at which it is present.

        Args:
            labels: the model's label table.
        """
        if self.kind == "regions":
            numbers = {label.value: number for number, label in enumerate(labels, start=1)}
            return tuple(tuple(numbers[value] for value in region.values) for region in self.regions)
        first = 0 if self.kind == "softmax" else 1
        return tuple((number,) for number in range(first, len(labels) + 1))

    def check(self, labels: LabelTable) -> None:
        """Nothing, if the head fits a label table.

        Args:
            labels: the model's label table.

        Raises:
            SettingsError: if a region has a value that is not in the table; if a label lies in no region, or would be
                written as another one; or if labels that overlap have other values than 1, 2, 4, ..., or too many.
        """
        values = [label.value for label in labels]
        if self.kind == "overlapping":
            wanted = [1 << number for number in range(len(values))]
            if values != wanted or len(values) > MOST_OVERLAPPING:
                raise SettingsError(
                    f"head: the label values are {values}; labels that overlap need {wanted[:MOST_OVERLAPPING]}, at "
                    f"most {MOST_OVERLAPPING} of them, so that a sum of values names what overlaps."
                )
        for region in self.regions:
            unknown = sorted(set(region.values) - set(values))
            if unknown or not region.values:
                raise SettingsError(
                    f"head: the region {region.name!r} has the label values {list(region.values)}; the labels have "
                    f"{values}."
                )
        for value in values if self.regions else ():
            writes = [order for region, order in zip(self.regions, self.order, strict=True) if value in region.values]
            if writes[-1:] != [value]:
                what = f"would be written as {writes[-1]}" if writes else "lies in no region"
                raise SettingsError(
                    f"head: the label value {value} {what}. Write regions from the widest to the narrowest, each as "
                    "the value that lies in no later one."
                )


def read_nnunet_labels(
    labels: Mapping[str, Any], order: Sequence[int] | None = None
) -> tuple[dict[int, str], Head, int | None]:
    """What ``labels`` and ``regions_class_order`` of an nnU-Net ``dataset.json`` say.

    Args:
        labels: ``labels``: name to value, or to the list of values of a region.
        order: ``regions_class_order``; None where there is none.

    Returns:
        The name of each label value but background, the head, and the value that marks what is to be ignored (None
        without one). A label value of regions has the name of the region that is written as it.

    Raises:
        SettingsError: if a value is no whole number, regions have no order, or a value has two names.

    Examples:
        >>> names, head, ignore = read_nnunet_labels({"background": 0, "all": [1, 2], "core": 2, "ignore": 3}, [1, 2])
        >>> names, head.kind, ignore
        ({1: 'all', 2: 'core'}, 'regions', 3)
    """
    try:
        sets = {
            str(name): tuple(int(part) for part in value) if isinstance(value, (list, tuple)) else (int(value),)
            for name, value in labels.items()
        }
    except (TypeError, ValueError) as error:
        raise SettingsError(f"The labels {dict(labels)} are not names with values: {error}.") from error
    ignore = sets.pop("ignore", None)
    found = {name: values for name, values in sets.items() if values != (0,)}
    if any(len(values) > 1 for values in found.values()):
        if order is None or len(order) != len(found):
            raise SettingsError(
                f"The labels {dict(labels)} have regions; regions_class_order must give one value for each, and is "
                f"{order}."
            )
        head = Head("regions", tuple(Region(*item) for item in found.items()), tuple(order))
        pairs = list(zip(head.order, found, strict=True))
    else:
        head, pairs = Head(), [(value, name) for name, (value,) in found.items()]
    names = dict(sorted(pairs))
    if len(names) < len(pairs):
        raise SettingsError(f"The labels {dict(labels)} give one value to two names.")
    return names, head, None if ignore is None else ignore[0]
