"""Dice plus cross entropy that learns from what is known: not from ignored voxels, nor from what nobody annotated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Shaped
from monai.losses import DiceLoss
from monai.networks import one_hot
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.loss import _Loss

from effvit_med.engine.model import IGNORED, Model
from effvit_med.errors import SettingsError
from effvit_med.training.label_codes import PRESENT, UNKNOWN, LabelCodes


class HeadLoss(_Loss):
    """Dice plus cross entropy for every kind of head, in MONAI's calling convention.

    A softmax head learns by Dice over the structures and cross entropy over all classes; at a voxel of a case in which
    structures were not annotated, their probabilities are merged with background, so that nothing is learnt there about
    which of them it is (a marginal loss). Regions and overlapping structures learn by Dice and binary cross entropy,
    each for itself; where one is not known, it learns nothing. Ignored voxels give no gradient at all. Where everything
    is known this is MONAI's ``DiceLoss`` plus the cross entropy of torch.

    Args:
        model: the bundle's model: its head and its labels.
        annotations: the sets of annotated outputs that occur in cases where not everything was annotated (see
            `effvit_med.training.label_codes.list_annotations`).
        batch: whether Dice is taken over the whole batch or case by case.
        dice_weight: factor of the Dice term.
        entropy_weight: factor of the cross entropy.

    Raises:
        SettingsError: if an annotated output is none of the model's.

    Source:
        Marginal loss: Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ segmentation
        (Medical Image Analysis 70, 2021), section 3.2.
    """

    def __init__(
        self,
        model: Model,
        annotations: Sequence[Sequence[str]] = (),
        *,
        batch: bool = True,
        dice_weight: float = 1.0,
        entropy_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.kind = model.head.kind
        self.outputs = len(model.head.names(model.labels))
        self.dice_weight, self.entropy_weight = dice_weight, entropy_weight
        self.dice = DiceLoss(batch=batch, include_background=self.kind != "softmax")
        self.known = torch.empty(0)  # what each number says of each output
        if self.kind != "overlapping":
            self.known = torch.from_numpy(LabelCodes(model.head, model.labels, annotations).known)

    def forward(
        self,
        input: Float[Tensor, "batch outputs *space"],  # noqa: A002  # MONAI's word for it
        target: Shaped[Tensor, "batch channels *space"],
    ) -> Float[Tensor, ""]:
        """The loss.

        Args:
            input: (batch, outputs, *space) logits.
            target: (batch, 1, *space) numbers of `LabelCodes`; of overlapping structures (batch, outputs, *space), 1
                where a structure is, 0 where it is not and 255 where that is not known.

        Raises:
            SettingsError: if the channels do not fit the head.
        """
        channels = self.outputs if self.kind == "overlapping" else 1
        if input.shape[1] != self.outputs or target.shape[1] != channels:
            raise SettingsError(
                f"The loss of a head of the kind {self.kind} takes {self.outputs} outputs and label maps of {channels} "
                f"channels; it was given {input.shape[1]} and {target.shape[1]}."
            )
        if self.kind == "softmax":
            return self._among_classes(input, target[:, 0].long())
        if self.kind == "overlapping":
            present, known = target == PRESENT, target != IGNORED
        else:
            state = self._known(target[:, 0].long())
            present, known = state == PRESENT, state != UNKNOWN
        return self._each(input, present, known)

    def _among_classes(
        self, logits: Float[Tensor, "batch classes *space"], codes: Shaped[Tensor, "batch *space"]
    ) -> Float[Tensor, ""]:
        """Classes that exclude one another."""
        seen = codes != IGNORED
        partial = seen & (codes >= self.outputs)
        if partial.any():
            logits = _merge(logits, (self._known(codes) == UNKNOWN) & partial[:, None])
            codes = codes.masked_fill(partial, 0)
        entropy = functional.cross_entropy(logits, codes, ignore_index=IGNORED, reduction="sum") / seen.sum().clamp(
            min=1
        )
        shares = logits.softmax(dim=1)
        truth = one_hot(codes.masked_fill(~seen, 0)[:, None], self.outputs).to(shares)
        return self._sum(shares, truth, seen[:, None].expand_as(shares), entropy)

    def _each(
        self,
        logits: Float[Tensor, "batch outputs *space"],
        present: Bool[Tensor, "batch outputs *space"],
        known: Bool[Tensor, "batch outputs *space"],
    ) -> Float[Tensor, ""]:
        """Outputs that are each there or not."""
        truth = present.to(logits)
        entropies = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        entropy = (entropies * known).sum() / known.sum().clamp(min=1)
        return self._sum(logits.sigmoid(), truth, known, entropy)

    def _sum(self, shares: Tensor, truth: Tensor, known: Tensor, entropy: Tensor) -> Tensor:
        if not known.all():
            shares, truth = shares * known, truth * known
        return self.dice_weight * self.dice(shares, truth) + self.entropy_weight * entropy

    def _known(self, codes: Shaped[Tensor, "batch *space"]) -> Shaped[Tensor, "batch outputs *space"]:
        self.known = self.known.to(codes.device)
        return self.known[codes].movedim(-1, 1)


def _merge(
    logits: Float[Tensor, "batch classes *space"], possible: Bool[Tensor, "batch classes *space"]
) -> Float[Tensor, "batch classes *space"]:
    """Logits whose softmax gives background the shares of all classes that are possible at a voxel, and these none.

    Voxels at which no class is marked stay as they are.
    """
    merged = logits.masked_fill(~possible, -torch.inf).logsumexp(dim=1, keepdim=True)
    rest = logits.masked_fill(possible, -torch.inf)
    background = torch.where(possible.any(dim=1, keepdim=True), merged, logits[:, :1])
    return torch.cat([background, rest[:, 1:]], dim=1)
