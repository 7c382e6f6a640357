"""Networks: linear-attention backbones for images and volumes, from tensors to logits; torch only.

Start at `build_network`, or at `create_backbone` for the feature maps alone; `FAMILY_OF` has every name, `presets`
every number, and `load_published` fills a network with published weights.
"""

from effvit_med.networks.build import SegmentationNetwork, build_backbone, build_network
from effvit_med.networks.classifier import Classifier
from effvit_med.networks.create import create_backbone, create_classifier, create_sam, create_segmenter
from effvit_med.networks.decoder import Decoder, HighResolutionDecoder, SegHead
from effvit_med.networks.efficientmod import EfficientMod
from effvit_med.networks.efficientvit import Backbone, EfficientVit, NamedBackbone
from effvit_med.networks.efficientvit_m import EfficientVitM
from effvit_med.networks.layers import LayerTypes, layers_for
from effvit_med.networks.published import LoadReport, load_published
from effvit_med.networks.registry import FAMILIES, FAMILY_OF, Family, NetworkDetails
from effvit_med.networks.sam import EfficientVitSam, SamOutput
from effvit_med.networks.sam_frame import SamFrame, prepare_image
from effvit_med.networks.shvit import Shvit
from effvit_med.networks.super_resolution import SuperResolutionNetwork, build_super_resolution
from effvit_med.networks.turbovit import TurboVit
from effvit_med.networks.weights import fold_batchnorm, load_weights, save_weights

__all__ = [
    "FAMILIES",
    "FAMILY_OF",
    "Backbone",
    "Classifier",
    "Decoder",
    "EfficientMod",
    "EfficientVit",
    "EfficientVitM",
    "EfficientVitSam",
    "Family",
    "HighResolutionDecoder",
    "LayerTypes",
    "LoadReport",
    "NamedBackbone",
    "NetworkDetails",
    "SamFrame",
    "SamOutput",
    "SegHead",
    "SegmentationNetwork",
    "Shvit",
    "SuperResolutionNetwork",
    "TurboVit",
    "build_backbone",
    "build_network",
    "build_super_resolution",
    "create_backbone",
    "create_classifier",
    "create_sam",
    "create_segmenter",
    "fold_batchnorm",
    "layers_for",
    "load_published",
    "load_weights",
    "prepare_image",
    "save_weights",
]
