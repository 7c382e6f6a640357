"""What a bundle's configs start from: the cases of a folder, and weights to go on from."""

from __future__ import annotations

from pathlib import Path

from effvit_med.errors import InputError
from effvit_med.networks import SegmentationNetwork, load_weights


def list_cases(folder: str | Path, pattern: str = "*.nii.gz") -> list[dict[str, str]]:
    """The entries of a folder that match a pattern, for MONAI's datasets.

    Args:
        folder: where to look.
        pattern: of file names, or ``*`` for a folder of DICOM series folders.

    Returns:
        One mapping per entry with its path under ``image``, sorted.

    Raises:
        InputError: if nothing matches.
    """
    found = sorted(Path(folder).glob(pattern))
    if not found:
        raise InputError(f"{folder} holds nothing that matches {pattern!r}; set dataset_dir and pattern.")
    return [{"image": str(path)} for path in found]


def start_from(network: SegmentationNetwork, weights: str = "") -> SegmentationNetwork:
    """The network itself, with weights from a file if one is named.

    Raises:
        WeightsError: if the weights do not belong to the network.
    """
    if weights:
        load_weights(network, Path(weights))
    return network
