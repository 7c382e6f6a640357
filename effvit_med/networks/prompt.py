"""A promptable network: an image is encoded once; each prompt then costs only the narrow rest.

Prompts reach it as maps of the image's size (`PROMPT_CHANNELS`), so that points, scribbles, boxes, lassos and an
earlier mask are one kind of input, in 2D and 3D alike, and nothing is lost of where they lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from effvit_med.errors import SettingsError
from effvit_med.networks.attention import AttentionKind, EfficientVitBlock
from effvit_med.networks.blocks import BlockStyle, ConvKind, ConvNorm, OpSequence, ResBlock, Residual, add
from effvit_med.networks.decoder import HighResolutionDecoder
from effvit_med.networks.efficientvit import EfficientVit
from effvit_med.networks.layers import lay_out
from effvit_med.networks.presets import refuse_unknown
from effvit_med.networks.presets.prompt import PROMPT, PROMPT_NAMES, PromptPreset
from effvit_med.networks.registry import NetworkDetails, style_of

PROMPT_CHANNELS = ("adds", "removes", "outline", "before")
"""What the maps of the prompts hold: where points and scribbles say yes; where they say no; 1 inside of boxes and
lassos that add, -1 inside of those that take away; and the mask so far, 0 to 1."""

HEAD_DIM = 16

JUDGED = 7
"""Numbers that a proposal is judged by beside features: see `describe_proposals`."""


@dataclass
class _Maps:
    """Feature maps as a decoder wants to know them; see `effvit_med.networks.efficientvit.Backbone`."""

    in_channels: int
    channels: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    def features(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError


class PromptNetwork(nn.Module):
    """What belongs to the object that the prompts mean, as one logit a voxel.

    A click may mean a nucleus, the cell or the tissue, and a mask between all of them is none. So a network may have
    several proposals, and a judge that says how good each is; `decode` gives the best.

    Args:
        preset: the numbers.
        style: what all blocks share.
        in_channels: channels of the image; of a slab as many as it has slices.
        proposals: how many masks are proposed.

    Attributes:
        preset_name: the name it is built by.
        spatial_dims: 2 or 3.
        in_channels: channels of the image.
        proposals: how many masks are proposed.

    Source:
        Several masks for one prompt, and a prediction of how good they are: Kirillov et al., Segment Anything (arXiv
        2304.02643), section 3. The judge, which looks at each proposal, is our own.

    Examples:
        >>> import torch
        >>> network = build_prompt_network(2).eval()
        >>> image, prompts = torch.zeros(1, 1, 40, 33), torch.zeros(1, 4, 40, 33)
        >>> with torch.inference_mode():
        ...     features = network.encode(image)
        ...     tuple(network.decode(features, prompts).shape)
        (1, 1, 40, 33)
    """

    def __init__(self, preset: PromptPreset, style: BlockStyle, in_channels: int, proposals: int = 1) -> None:
        super().__init__()
        self.preset_name = preset.name
        self.spatial_dims = style.layers.spatial_dims
        self.in_channels = in_channels
        self.proposals = proposals
        self.encoder = EfficientVit(preset.image, style, in_channels)
        self.pointer = EfficientVit(preset.prompts, style, len(PROMPT_CHANNELS))
        point = ConvKind(style.point, style.point, activation=False)
        pairs = list(zip(self.encoder.channels, self.pointer.channels, preset.widths, strict=True))
        self.narrow = nn.ModuleList(ConvNorm(style, seen, width, point) for seen, _, width in pairs)
        self.widen = nn.ModuleList(
            ConvNorm(style, pointed + len(PROMPT_CHANNELS), width, point) for _, pointed, width in pairs
        )
        attention = AttentionKind(HEAD_DIM, ((3,) * self.spatial_dims,), preset.image.attention_eps)
        self.meeting = nn.ModuleList(
            OpSequence(
                [
                    EfficientVitBlock(style, width, attention, 4)
                    if kind == "attention"
                    else Residual(ResBlock(style, width))
                    for _ in range(blocks)
                ]
            )
            for width, blocks, kind in zip(preset.widths, preset.meeting, preset.kinds, strict=True)
        )
        maps = _Maps(len(PROMPT_CHANNELS), preset.widths, self.encoder.strides)
        self.decoder = HighResolutionDecoder(style, maps, proposals, preset.decoder)
        self.judge: nn.Module | None = None
        if proposals > 1:
            seen = 2 * preset.widths[-1] + 4 * preset.widths[0] + JUDGED + proposals
            self.judge = nn.Sequential(nn.Linear(seen, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))
        self.to(memory_format=style.layers.memory_format)  # type: ignore[call-overload]

    def encode(self, image: Float[Tensor, "batch in_channels *space"]) -> list[Tensor]:
        """The feature maps of the image, finest first, for a judge the image as well: needed once for any prompts.

        Args:
            image: of any size.

        Raises:
            SettingsError: if it has not the channels or the axes that the network was built for.
        """
        image = lay_out(image, self.spatial_dims, self.in_channels)
        features = [narrow(each) for narrow, each in zip(self.narrow, self.encoder.features(image), strict=True)]
        return features if self.judge is None else [*features, _pool_to(image, features[0])]

    def decode(
        self, features: list[Tensor], prompts: Float[Tensor, "batch prompt_channels *space"]
    ) -> Float[Tensor, "batch 1 *space"]:
        """The logits of the best proposal, above 0 inside.

        Args:
            features: what `encode` gave for the image.
            prompts: the maps of `PROMPT_CHANNELS`, of the image's size.

        Raises:
            SettingsError: if the maps have not these channels.
        """
        return choose_best(*self.propose(features, prompts))

    def propose(
        self, features: list[Tensor], prompts: Float[Tensor, "batch prompt_channels *space"]
    ) -> tuple[Float[Tensor, "batch proposals *space"], Float[Tensor, "batch proposals"]]:
        """All proposals, and how good each is judged to be.

        Args:
            features: what `encode` gave for the image.
            prompts: the maps of `PROMPT_CHANNELS`, of the image's size.

        Returns:
            Logits, above 0 inside; and the logits of the Dice that each is expected to have, all 0 of a single one.

        Raises:
            SettingsError: if the maps have not these channels.
        """
        prompts = lay_out(prompts, self.spatial_dims, len(PROMPT_CHANNELS))
        pointed = self.pointer.features(prompts)
        met = [
            blocks(add(widen(torch.cat([wish, compare(seen, prompts).to(wish.dtype)], dim=1)), seen))
            for blocks, widen, wish, seen in zip(
                self.meeting, self.widen, pointed, features[: len(pointed)], strict=True
            )
        ]
        logits = self.decoder(prompts, met)
        if self.judge is None:
            return logits, logits.new_zeros(len(logits), 1)
        with torch.autocast(logits.device.type, enabled=False):
            maps = (features[-1].float(), met[0].float(), met[-1].float())
            seen = describe_proposals(logits.detach().float(), *maps, prompts.float())
            return logits, self.judge(seen)[..., 0]

    def forward(
        self,
        image: Float[Tensor, "batch in_channels *space"],
        prompts: Float[Tensor, "batch prompt_channels *space"],
    ) -> Float[Tensor, "batch 1 *space"]:
        """`decode` of `encode`, which see."""
        return self.decode(self.encode(image), prompts)


def choose_best(
    logits: Float[Tensor, "batch proposals *space"], scores: Float[Tensor, "batch proposals"]
) -> Float[Tensor, "batch 1 *space"]:
    """The proposal of each sample that is judged to be the best.

    Args:
        logits: of all proposals.
        scores: how good each is, whatever the scale.

    Examples:
        >>> choose_best(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[0.2, 0.9]])).tolist()
        [[[3.0, 4.0]]]
    """
    best = scores.argmax(dim=1)
    return logits[torch.arange(len(logits), device=logits.device), best][:, None]


def describe_proposals(
    logits: Float[Tensor, "batch proposals *space"],
    image: Float[Tensor, "batch in_channels *fine"],
    finest: Float[Tensor, "batch fine_channels *fine"],
    deepest: Float[Tensor, "batch channels *coarse"],
    prompts: Float[Tensor, "batch prompt_channels *space"],
) -> Float[Tensor, "batch proposals described"]:
    """What a proposal is judged by.

    Args:
        logits: of all proposals.
        image: as small as the finest features.
        finest: the finest features of image and prompts.
        deepest: the deepest ones.
        prompts: the maps of `PROMPT_CHANNELS`.

    Returns:
        For each: the mean of the deepest features within it and everywhere; the mean of the finest ones within it and
        right outside, how they change from right inside to right outside, and how they spread within; the square root
        of its share of the image, how sure it is, how far its grey values are from those right outside, and its inner
        rim from its outer one, in standard deviations, and how much they spread; how much of what was said to belong
        and not to belong lies in it; and which proposal it is.
    """
    batch, count = logits.shape[:2]
    inside = logits.sigmoid()
    within = _average(deepest, [_pool_to(inside, deepest)])[0]
    everywhere = deepest.flatten(2).mean(dim=2)[:, None].expand(-1, count, -1)
    here = _pool_to(inside, finest)
    grow = functional.max_pool2d if logits.ndim == 4 else functional.max_pool3d
    outer = grow(here, 5, stride=1, padding=2) - here
    inner = here + grow(-here, 5, stride=1, padding=2)
    mean, out, edge, squares = _average(finest, [here, outer, inner]) + _average(finest.square(), [here])
    spread = (squares - mean.square()).clamp(min=0).sqrt()
    said = prompts[:, :2].clamp(min=0).flatten(2)
    covered = torch.bmm(inside.flatten(2), said.transpose(1, 2)) / (said.sum(dim=2)[:, None] + 1e-3)
    taken = (logits > 0).float()
    area = taken.flatten(2).mean(dim=2)
    sure = (inside * taken).flatten(2).sum(dim=2) / (taken.flatten(2).sum(dim=2) + 1.0)
    grey = image.mean(dim=1, keepdim=True)
    level, beside, rim = _average(grey, [here, outer, inner])
    squared = [
        each - mean.square() for each, mean in zip(_average(grey.square(), [here, outer]), (level, beside), strict=True)
    ]
    noise = (squared[0] + squared[1]).clamp(min=0).sqrt() + 0.1
    greys = torch.cat([(level - beside).abs() / noise, (rim - beside).abs() / noise, noise], dim=2)
    numbers = torch.cat([torch.stack([area.sqrt(), sure], dim=2), greys], dim=2)
    which = torch.eye(count, device=logits.device).expand(batch, -1, -1)
    return torch.cat([within, everywhere, mean, out, edge - out, spread, numbers, covered, which], dim=2)


def _pool_to(maps: Tensor, like: Tensor) -> Tensor:
    pool = functional.adaptive_avg_pool2d if maps.ndim == 4 else functional.adaptive_avg_pool3d
    return pool(maps, tuple(like.shape[2:]))  # type: ignore[arg-type]


def _average(features: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """The means of features over each of some maps of weights, (batch, proposals, channels) each."""
    flat = features.flatten(2).transpose(1, 2)
    return [torch.bmm(each.flatten(2), flat) / (each.flatten(2).sum(dim=2, keepdim=True) + 1e-3) for each in weights]


def compare(
    features: Float[Tensor, "batch channels *coarse"], prompts: Float[Tensor, "batch prompt_channels *space"]
) -> Float[Tensor, "batch prompt_channels *coarse"]:
    """How much each place of an image looks like what lies under each map of the prompts, from -1 to 1.

    That is the cosine between its features and the mean of those under the map, weighted by the map; 0 where a map is
    empty. Negative values of a map count as nothing.

    Args:
        features: of the image at some stride.
        prompts: the maps of `PROMPT_CHANNELS`.

    Source:
        Prototypes of what was marked, as in few-shot segmentation: Dong and Xing, BMVC 2018.

    Examples:
        >>> features = torch.zeros(1, 2, 1, 4)
        >>> features[0, 0, 0, :2] = features[0, 1, 0, 2:] = 1.0
        >>> marked = torch.tensor([[[[1.0, 0, 0, 0]], [[0.0, 0, 0, 0]]]])
        >>> compare(features, marked).tolist()
        [[[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]]]
    """
    coarse = tuple(features.shape[2:])
    pool = functional.adaptive_avg_pool2d if len(coarse) == 2 else functional.adaptive_avg_pool3d
    with torch.autocast(features.device.type, enabled=False):  # a mean of many values wants its digits
        weights = pool(prompts.float().clamp(min=0), coarse).flatten(2)  # type: ignore[arg-type]
        looks = functional.normalize(features.float().flatten(2), dim=1)
        marked = torch.bmm(weights, looks.transpose(1, 2)) / (weights.sum(dim=2, keepdim=True) + 1e-4)
        alike = torch.bmm(functional.normalize(marked, dim=2, eps=1e-3), looks)
    return alike.reshape(*alike.shape[:2], *coarse)


def build_prompt_network(
    spatial_dims: int,
    in_channels: int = 1,
    preset: str = "prompt_small",
    norm: str = "instance",
    proposals: int = 1,
) -> PromptNetwork:
    """A new promptable network with random weights.

    Args:
        spatial_dims: 2 for slices and slabs, 3 for crops of volumes.
        in_channels: channels of the image; of a slab as many as it has slices.
        preset: ``prompt_tiny`` or ``prompt_small``.
        norm: ``instance``, or ``batch`` for large batches.
        proposals: how many masks are proposed, of which the best is the answer.

    Raises:
        SettingsError: if a name is unknown or a number impossible.
    """
    if preset not in PROMPT_NAMES:
        raise refuse_unknown("preset", preset, PROMPT_NAMES)
    if in_channels < 1:
        raise SettingsError(f"in_channels is {in_channels}; give at least 1.")
    if proposals < 1:
        raise SettingsError(f"proposals is {proposals}; give at least 1.")
    style = style_of(spatial_dims, NetworkDetails(norm=norm), "prelu")
    return PromptNetwork(PROMPT[preset, spatial_dims], style, in_channels, proposals)
