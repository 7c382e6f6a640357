"""High-resolution medical segmentation with EfficientViT. Not for clinical use.

Importing this package imports nothing heavy: no torch, no MONAI, no DICOM library.
"""

__version__ = "0.1.0"

NOT_FOR_CLINICAL_USE = "Research use only. Not for clinical use."
