"""Outputs and truth side by side, as MONAI's metrics take them, without what is not known."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from monai.transforms import MapTransform
from torch import Tensor

from effvit_med.engine.model import IGNORED, Model
from effvit_med.training.label_codes import PRESENT, UNKNOWN, LabelCodes


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
