"""Outputs and truth side by side, as MONAI's metrics take them, without what is not known."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from effvit_med.bundle.metatensor import scan_of
from effvit_med.bundle.truth import ANNOTATED, Truth
from effvit_med.engine.model import IGNORED, Model
from effvit_med.training.label_codes import PRESENT, UNKNOWN, LabelCodes
from effvit_med.volume import Volume


class MarkOutputsd(MapTransform):  # type: ignore[misc]  # MONAI is not typed
    """Turn logits and the numbers to learn from into one channel an output, 1 where it is and 0 elsewhere.

    The first channel is background, empty where the head has none, so that metrics leave it out with
    ``include_background: false`` whatever the head. Where it is not known whether an output is there, both are 0; the
    truth of an output that a case does not annotate is empty, and metrics of MONAI leave such a structure out.

    Args:
        model: the bundle's model.
        annotations: as of `effvit_med.bundle.PrepareVolumed`.
        pred_key: the entry of the logits, (outputs, *space).
        label_key: the entry that `PrepareVolumed` made of the label map.
    """

    def __init__(
        self, model: Model, annotations: Sequence[Sequence[str]] = (), pred_key: str = "pred", label_key: str = "label"
    ) -> None:
        super().__init__([pred_key, label_key])
        self.kind = model.head.kind
        self.pred_key, self.label_key = pred_key, label_key
        self.known = torch.empty(0)
        if self.kind != "overlapping":
            self.known = torch.from_numpy(LabelCodes(model.head, model.labels, annotations).known)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The two entries as (1 + structures or regions, *space)."""
        result = dict(data)
        logits, label = torch.as_tensor(result[self.pred_key]), torch.as_tensor(result[self.label_key])
        if self.kind == "overlapping":
            present, known = label == PRESENT, label != IGNORED
        else:
            state = self.known.to(label.device)[label[0].long()].movedim(-1, 0)
            present, known = state == PRESENT, state != UNKNOWN
        found = self._find(logits)
        result[self.pred_key] = self._join(found & known)
        result[self.label_key] = self._join(present & known)
        return result

    def _find(self, logits: Float[Tensor, "outputs *space"]) -> Tensor:
        if self.kind != "softmax":
            return logits > 0
        best = logits.argmax(dim=0)
        return torch.stack([best == number for number in range(len(logits))])

    def _join(self, marks: Tensor) -> Float[Tensor, "outputs *space"]:
        if self.kind != "softmax":
            marks = torch.cat([torch.zeros_like(marks[:1]), marks])
        return marks.float()


class MarkTruthd(MapTransform):  # type: ignore[misc]
    """Turn a case's label map, or its map of each structure, into one channel a structure on the scan's own grid.

    It comes behind `effvit_med.bundle.LoadVolumed` and before `effvit_med.bundle.PrepareVolumed`, which forgets what
    was annotated.

    Args:
        keys: the entry of the label map or maps.
        model: the bundle's model.
        image_key: the entry of the scan.
        ignore: the label value of voxels about which nothing is said.

    Raises:
        GeometryError: if a map does not lie on the grid of the scan.
        InputError: as of `effvit_med.bundle.truth.Truth.prepare`.
    """

    def __init__(self, keys: KeysCollection, model: Model, image_key: str = "image", ignore: int | None = None) -> None:
        super().__init__(keys)
        self.image_key = image_key
        self.truth = Truth(model, ignore=ignore)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The entry as (1 + structures, a0, a1, a2), see `effvit_med.bundle.truth.Truth.mark`."""
        result = dict(data)
        image = result[self.image_key]
        geometry, modality, source = scan_of(image)
        scan = Volume(image[0].numpy(), geometry, modality, source)
        for key in self.key_iterator(result):
            result[key] = self.truth.mark(result[key], scan, result.get(ANNOTATED))
        return result


class MarkLabelsd(MapTransform):  # type: ignore[misc]
    """Turn a label map that was found into one channel a structure, and both into 0 where the truth is not known.

    Args:
        model: the bundle's model.
        pred_key: the entry of the label map, (1, a0, a1, a2), values or sums of them.
        label_key: the entry that `MarkTruthd` made.
    """

    def __init__(self, model: Model, pred_key: str = "pred", label_key: str = "label") -> None:
        super().__init__([pred_key, label_key])
        self.pred_key, self.label_key = pred_key, label_key
        self.values = [structure.value for structure in model.labels]
        self.overlapping = model.head.kind == "overlapping"

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Both entries as (1 + structures, a0, a1, a2), 1 inside."""
        result = dict(data)
        found, truth = torch.as_tensor(result[self.pred_key])[0].long(), torch.as_tensor(result[self.label_key])
        marks = [found & value > 0 if self.overlapping else found == value for value in self.values]
        known = truth != IGNORED
        result[self.pred_key] = (torch.stack([torch.zeros_like(marks[0]), *marks]) & known).float()
        result[self.label_key] = ((truth > 0) & known).float()
        return result
