"""Between an image of any size and SAM's square frame: images and prompts there, points and masks back.

SAM scales the longest side of an image to that of its frame and fills up the rest at the bottom and at the right.
Prompts are (x, y) = (column, row) in pixels, as everywhere in SAM and NOT in array order.

Source:
    Kirillov et al., Segment Anything (arXiv 2304.02643), appendix A (image encoder: resized, padded). The image itself
    may be smaller than the frame its prompts are in: Zhang et al., EfficientViT-SAM (arXiv 2402.05008), section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Num
from torch import Tensor
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.presets.sam import SAM_MEAN, SAM_STD, PromptPreset


@dataclass(frozen=True)
class SamFrame:
    """How an image lies in SAM's square frame.

    Attributes:
        image_size: (rows, columns) of the image.
        size: rows and columns of the frame.

    Raises:
        SettingsError: if a number is below 1.

    Examples:
        >>> frame = SamFrame((300, 600))
        >>> frame.inner_size
        (512, 1024)
        >>> points = torch.tensor([[[599.0, 0.0]]])
        >>> frame.to_frame(points).round(decimals=1).tolist()
        [[[1022.29..., 0.0]]]
    """

    image_size: tuple[int, int]
    size: int = PromptPreset().frame_size

    def __post_init__(self) -> None:
        if min(*self.image_size, self.size) < 1:
            raise SettingsError(
                f"An image of {self.image_size} (rows, columns) does not go into a frame of {self.size}; every number "
                "must be at least 1."
            )

    @property
    def inner_size(self) -> tuple[int, int]:
        """The (rows, columns) of the frame that the image covers, from the top and the left."""
        return fit_inside(self.image_size, self.size)

    def to_frame(self, pixels: Num[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Points of the image as points of the frame, which is what the prompt encoder takes.

        Args:
            pixels: (x, y) = (column, row), NOT array order, in pixels of the image.
        """
        return pixels.to(_float_of(pixels)) * self._scale(pixels)

    def to_image(self, pixels: Num[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Points of the frame as points of the image: the inverse of `to_frame`.

        Args:
            pixels: (x, y) = (column, row), NOT array order, in pixels of the frame.
        """
        return pixels.to(_float_of(pixels)) / self._scale(pixels)

    def boxes_to_frame(self, boxes: Num[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 4"]:
        """Boxes of the image as boxes of the frame.

        Args:
            boxes: (x, y) of the first and of the second corner, NOT array order, in pixels of the image.
        """
        return self.to_frame(boxes.reshape(*boxes.shape[:-1], 2, 2)).flatten(-2)

    def restore_masks(
        self, masks: Float[Tensor, "batch masks low_rows low_columns"]
    ) -> Float[Tensor, "batch masks rows columns"]:
        """The decoder's masks at the size of the image, still logits: positive is inside.

        Args:
            masks: the decoder's masks, which cover the whole frame.
        """
        rows, columns = self.inner_size
        whole = (self.size, self.size)
        fine = functional.interpolate(masks, size=whole, mode="bilinear", align_corners=False)[..., :rows, :columns]
        return functional.interpolate(fine, size=self.image_size, mode="bilinear", align_corners=False)

    def _scale(self, like: Tensor) -> Tensor:
        (rows, columns), (height, width) = self.inner_size, self.image_size
        return torch.tensor([columns / width, rows / height], dtype=_float_of(like), device=like.device)


def _float_of(pixels: Tensor) -> torch.dtype:
    return torch.promote_types(pixels.dtype, torch.float32)


def fit_inside(image_size: tuple[int, int], size: int) -> tuple[int, int]:
    """The size an image gets when its longest side is scaled to a length, rounded half up and at least 1.

    Args:
        image_size: (rows, columns).
        size: the length of the longest side afterwards.

    Examples:
        >>> fit_inside((300, 600), 512), fit_inside((5, 2000), 512)
        ((256, 512), (1, 512))
    """
    rows, columns = image_size
    scale = size / max(rows, columns)
    return max(1, int(rows * scale + 0.5)), max(1, int(columns * scale + 0.5))


def prepare_image(
    image: Num[Tensor, "batch channels rows columns"],
    input_size: int = 512,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> tuple[Float[Tensor, "batch channels {input_size} {input_size}"], SamFrame]:
    """The encoder's input made of an image of any size, and the frame that prompts and masks go through.

    The longest side is scaled to ``input_size`` (linearly, averaging where it shrinks), the intensities are
    normalised, and zeros fill up the bottom and the right.

    Args:
        image: intensities from 0 to 255; three channels are red, green and blue.
        input_size: ``preset.input_size``: 512 for the L models, 1024 for the XL models.
        mean: what is subtracted from each channel; SAM's where left out, their average where there are not three.
        std: what each channel is divided by; as for the mean.

    Returns:
        The input, (batch, channels, input_size, input_size), in float32 at least; and the frame.

    Raises:
        SettingsError: if a size is below 1 or there are not as many means or deviations as channels.

    Examples:
        >>> pixels, frame = prepare_image(torch.full((1, 1, 100, 50), 255.0), 64)
        >>> tuple(pixels.shape), frame.inner_size, pixels[0, 0, :, 32:].abs().max().item()
        ((1, 1, 64, 64), (1024, 512), 0.0)
    """
    if input_size < 1:
        raise SettingsError(f"input_size is {input_size}; give at least 1.")
    frame = SamFrame((image.shape[2], image.shape[3]))
    x = image.to(_float_of(image))
    rows, columns = fit_inside(frame.image_size, input_size)
    if x.shape[2:] != (rows, columns):
        x = functional.interpolate(x, size=(rows, columns), mode="bilinear", align_corners=False, antialias=True)
    x = (x - _per_channel(mean, SAM_MEAN, "mean", x)) / _per_channel(std, SAM_STD, "std", x)
    return functional.pad(x, (0, input_size - columns, 0, input_size - rows)), frame


def _per_channel(given: tuple[float, ...] | None, published: tuple[float, ...], what: str, like: Tensor) -> Tensor:
    channels = like.shape[1]
    if given is None:
        given = published if channels == len(published) else (sum(published) / len(published),) * channels
    if len(given) != channels:
        raise SettingsError(f"{what} is {given} with {len(given)} numbers; the image has {channels} channels.")
    return torch.tensor(given, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)
