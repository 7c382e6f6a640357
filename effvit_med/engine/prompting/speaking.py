"""How a promptable network is spoken to: what it wants an image and prompts to look like.

Both speakers answer on the same views with the same prompts, so that a session does not know which network it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from effvit_med.engine.prompting.views import Outlook
from effvit_med.networks import EfficientVitSam, SamFrame, prepare_image
from effvit_med.networks.prompt import PromptNetwork, choose_best
from effvit_med.transforms.drawing import RADIUS_VOXELS, draw_prompts, trace_path
from effvit_med.volume.prompts import Prompt

Values = npt.NDArray[np.float32]

_MOST_POINTS = 24

#: Of a `PromptNetwork`, by its spatial axes: views are as large as the samples that it learnt from.
OUTLOOKS = {
    2: Outlook(finest=192, least=96, overview=2048, roomy=3.0),
    3: Outlook(finest=64, least=48, overview=192, evidence=24.0),
}
SAM_OUTLOOK = Outlook(finest=1024, least=512, overview=4096)


class Said(NamedTuple):
    """What a network answers.

    Attributes:
        logits: of the view's shape, above 0 inside.
        score: the Dice that it expects of itself, 0 to 1; None where it expects nothing.
    """

    logits: Values
    score: float | None = None


class Speaker(Protocol):
    """A promptable network and its manners."""

    @property
    def spatial_dims(self) -> int:
        """2 for one that sees slices, 3 for blocks."""
        ...

    @property
    def neighbours(self) -> int:
        """Of a slice, how many on each side it sees too."""
        ...

    @property
    def outlook(self) -> Outlook:
        """How far it looks, unless somebody wants it otherwise."""
        ...

    def encode(self, values: Values) -> Any:
        """What is kept of an image, (a, b, c) as a view has it; needed once for any number of prompts."""
        ...

    @property
    def judges(self) -> bool:
        """Whether it says how good its answers are."""
        ...

    def answer(self, encoded: Any, prompts: Sequence[Prompt], before: Values, shape: Sequence[int]) -> Said:
        """What belongs to the object, on a view.

        Args:
            encoded: of `encode`.
            prompts: oldest first, in indices of the view.
            before: the mask so far, 0 to 1; 0 everywhere where there is none.
            shape: of the view.
        """
        ...


@dataclass
class MapSpeaker:
    """Speaks to a `PromptNetwork`, which takes prompts as maps.

    Args:
        network: in evaluation mode.
        device: where it runs.

    """

    network: PromptNetwork
    device: torch.device

    @property
    def spatial_dims(self) -> int:
        """2 for one that sees slices, 3 for blocks."""
        return self.network.spatial_dims

    @property
    def neighbours(self) -> int:
        """Of a slice, how many on each side it sees too: the image has a channel for each."""
        return (self.network.in_channels - 1) // 2 if self.spatial_dims == 2 else 0

    @property
    def outlook(self) -> Outlook:
        """How far it looks."""
        return OUTLOOKS[self.spatial_dims]

    @property
    def judges(self) -> bool:
        """Whether it proposes several masks, for only then is there a judge."""
        return self.network.proposals > 1

    @torch.inference_mode()
    def encode(self, values: Values) -> list[Tensor]:
        """The feature maps of an image; a flat one has its slices along the axis that is shortest.

        Args:
            values: normalised, (slices, rows, columns) for a network that sees slices.
        """
        image = torch.from_numpy(values)[None] if self.spatial_dims == 2 else torch.from_numpy(values)[None, None]
        return self.network.encode(image.to(self.device))

    @torch.inference_mode()
    def answer(self, encoded: list[Tensor], prompts: Sequence[Prompt], before: Values, shape: Sequence[int]) -> Said:
        """The best proposal; see `Speaker.answer`."""
        radius = [0.0 if size == 1 else RADIUS_VOXELS for size in shape]
        maps = draw_prompts(prompts, shape, radius)
        stacked = np.concatenate([maps, before[None]])
        stacked = stacked[:, 0] if self.spatial_dims == 2 else stacked
        proposed, scores = self.network.propose(encoded, torch.from_numpy(stacked)[None].to(self.device))
        logits = choose_best(proposed, scores)[0, 0].float().cpu().numpy()
        score = float(scores.max().sigmoid()) if self.judges else None
        return Said(np.asarray(logits.reshape(tuple(shape)), np.float32), score)


@dataclass
class SamSpeaker:
    """Speaks to an EfficientViT-SAM: grey values from 0 to 255, points and one box, in its square frame.

    A scribble is said as points along it, a lasso as its box and points within; both can do no better here. The mask
    so far is not said: what the decoder takes is its own low-resolution logits, which a correction by hand has not.

    Args:
        network: in evaluation mode.
        device: where it runs.

    Attributes:
        spatial_dims: it sees slices.
        neighbours: it sees one slice.
        outlook: how far it looks.
        judges: its prediction of overlap chooses among its masks of one view, and is not compared between views.
    """

    network: EfficientVitSam
    device: torch.device
    spatial_dims: int = 2
    neighbours: int = 0
    outlook: Outlook = SAM_OUTLOOK
    judges: bool = False

    @torch.inference_mode()
    def encode(self, values: Values) -> tuple[Tensor, SamFrame]:
        """The embedding of a grey image and the frame that its prompts go through.

        Args:
            values: normalised, (1, rows, columns); their lowest becomes 0 and their highest 255.
        """
        low, high = float(values.min()), float(values.max())
        grey = (values - low) * np.float32(255 / max(high - low, 1e-6))
        image = torch.from_numpy(grey)[None].to(self.device).expand(1, self.network.in_channels, -1, -1)
        pixels, frame = prepare_image(image, self.network.preset.input_size)
        return self.network.encode(pixels), frame

    @torch.inference_mode()
    def answer(
        self,
        encoded: tuple[Tensor, SamFrame],
        prompts: Sequence[Prompt],
        before: Values,
        shape: Sequence[int],
    ) -> Said:
        """The best mask; see `Speaker.answer`."""
        del before
        embedding, frame = encoded
        places, says, box = say_points(prompts)
        points = None
        if len(places):
            tensor = torch.from_numpy(places)[None].to(self.device)
            points = (frame.to_frame(tensor), torch.from_numpy(says)[None].to(self.device))
        boxes = None if box is None else frame.boxes_to_frame(torch.from_numpy(box)[None].to(self.device))
        single = len(places) == 1 and box is None
        output = self.network.decode(embedding, points, boxes, multimask_output=single)
        best = int(output.iou_predictions[0].argmax())
        masks = frame.restore_masks(output.low_res_masks[:, best : best + 1])
        return Said(np.asarray(masks[0, 0].float().cpu().numpy().reshape(tuple(shape)), np.float32))


def say_points(
    prompts: Sequence[Prompt],
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32] | None]:
    """Prompts as SAM takes them.

    Args:
        prompts: oldest first, in indices of a slice that lies along axis 0.

    Returns:
        Places (n, 2) as (column, row), NOT array order; 1 for each on the object and 0 off it; and the newest box, or
        that of the newest lasso, (4,), as (column, row) of both corners; None where there is none.
    """
    places: list[npt.NDArray[np.float64]] = []
    says: list[int] = []
    box = None
    for prompt in prompts:
        flat = np.asarray(prompt.index)[:, :0:-1]
        if prompt.axis is not None and prompt.adds:
            box = np.concatenate([flat.min(axis=0), flat.max(axis=0)]).astype(np.float32)
        elif prompt.axis is not None:
            places.append(flat.mean(axis=0, keepdims=True))
            says.append(0)
        else:
            path = trace_path(prompt)[:, :0:-1] if prompt.kind == "scribble" else flat
            few = path[np.unique(np.linspace(0, len(path) - 1, min(len(path), 5)).astype(int))]
            places.append(few)
            says += [int(prompt.adds)] * len(few)
    joined = np.concatenate(places)[-_MOST_POINTS:] if places else np.zeros((0, 2))
    return joined.astype(np.float32), np.asarray(says[-_MOST_POINTS:], np.int64), box
