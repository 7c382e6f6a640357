"""Networks: EfficientViT for images and volumes, from tensors to logits; torch only.

Start at `build_network`, or at `build_backbone` for the feature maps alone; `presets` holds every number.
"""

from effvit_med.networks.build import NetworkDetails, SegmentationNetwork, build_backbone, build_network
from effvit_med.networks.decoder import Decoder, HighResolutionDecoder, SegHead
from effvit_med.networks.efficientvit import Backbone, EfficientVit
from effvit_med.networks.layers import LayerTypes, layers_for
from effvit_med.networks.weights import fold_batchnorm, load_weights, save_weights

__all__ = [
    "Backbone",
    "Decoder",
    "EfficientVit",
    "HighResolutionDecoder",
    "LayerTypes",
    "NetworkDetails",
    "SegHead",
    "SegmentationNetwork",
    "build_backbone",
    "build_network",
    "fold_batchnorm",
    "layers_for",
    "load_weights",
    "save_weights",
]
