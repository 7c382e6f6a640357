"""The published classification heads of EfficientViT B1 to B3 and L1 to L3: every number, as data.

Source:
    Cai et al., EfficientViT (arXiv 2205.14756), and the configurations published with it; B0 as in its model zoo.
"""

from __future__ import annotations

from dataclasses import dataclass

from effvit_med.networks.presets.names import ActivationName


@dataclass(frozen=True)
class ClassifierPreset:
    """The numbers of one classification head.

    Attributes:
        conv_width: channels of the point convolution before pooling.
        linear_width: features between pooling and the classifier.
        activation: after both.
        norm_eps: added to the variance in every normalisation of the published model, its backbone included.
    """

    conv_width: int
    linear_width: int
    activation: ActivationName
    norm_eps: float


CLASSIFIERS = {
    "efficientvit_b0": ClassifierPreset(1024, 1280, "hardswish", 1e-5),
    "efficientvit_b1": ClassifierPreset(1536, 1600, "hardswish", 1e-5),
    "efficientvit_b2": ClassifierPreset(2304, 2560, "hardswish", 1e-5),
    "efficientvit_b3": ClassifierPreset(2304, 2560, "hardswish", 1e-5),
    "efficientvit_l1": ClassifierPreset(3072, 3200, "gelu_tanh", 1e-7),
    "efficientvit_l2": ClassifierPreset(3072, 3200, "gelu_tanh", 1e-7),
    "efficientvit_l3": ClassifierPreset(6144, 6400, "gelu_tanh", 1e-7),
}
