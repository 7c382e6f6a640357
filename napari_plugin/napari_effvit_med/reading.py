"""What napari's File > Open does with a scan: each becomes a layer at its place in the patient."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from effvit_med.errors import InputError
from effvit_med.volume import Geometry, LabelTable, Segmentation, Volume
from effvit_med.volume.counts import digest_labels
from napari_effvit_med.layers import METADATA_KEY, DisplayFrame, DisplayGrid, LayerRecord, record_of
from napari_effvit_med.windows import windows_for

LayerData = tuple[Any, dict[str, Any], str]

MOST_SERIES = 6
"""More in one folder are not all opened: the panel lists them instead."""

_SNIFFED_FILES = 200
_IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".dcm")


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """What reads a path; None, quickly, for what is none of ours.

    Args:
        path: a folder with DICOM files, or a ``.dcm``, ``.nii``, ``.nii.gz``, ``.nrrd`` or ``.mha`` file.
    """
    place = _only(path)
    if place is None:
        return None
    if place.is_dir():
        return read_layers if _has_dicom(place) else None
    name = place.name.lower()
    if not name.endswith(_IMAGE_SUFFIXES) or not place.is_file():
        return None
    return read_layers if not name.endswith(".dcm") or _is_dicom(place) else None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Read a folder or a file.

    Args:
        path: what `get_reader` accepted.

    Returns:
        One layer of napari per scan or label map.

    Raises:
        InputError: if it cannot be read; the text says why and what to do.
        RefusedError: if its only scan is not safe to use.
    """
    place = _only(path)
    if place is None:
        raise InputError(f"{len(path)} paths were given; open one folder or file at a time.")
    frame = current_frame()
    return [layer for shown in _read(place) for layer in [as_layer(shown, frame)]]


def as_layer(shown: Volume | Segmentation, frame: DisplayFrame | None, name: str = "") -> LayerData:
    """A scan or a label map as napari takes it.

    Args:
        shown: what to show; the layer shares its memory wherever it needs not be resampled.
        frame: of what is shown already; None to take that of this scan.
        name: of the layer; by default from its source.
    """
    return as_volume_layer(shown, frame, name) if isinstance(shown, Volume) else as_labels_layer(shown, frame, name)


def as_volume_layer(volume: Volume, frame: DisplayFrame | None, name: str = "") -> LayerData:
    """A scan as an image layer; see `as_layer`."""
    array, grid, resampled = _place(volume.array, volume.geometry, frame, nearest=False)
    arguments = {
        "name": name or _name_of(volume) + (" (resampled for display)" if resampled else ""),
        "contrast_limits": windows_for(volume.modality)[0].limits_of(volume.array),
        "metadata": {METADATA_KEY: LayerRecord(grid, volume, is_resampled=resampled)},
        "rgb": False,  # three or four columns are no colours
        **grid.layer_arguments(),
    }
    return grid.view(array), arguments, "image"


def as_labels_layer(
    segmentation: Segmentation, frame: DisplayFrame | None, name: str = "", volume: Volume | None = None
) -> LayerData:
    """A label map as a labels layer, which can be painted on unless it had to be resampled; see `as_layer`.

    Args:
        segmentation: what to show.
        frame: as of `as_layer`.
        name: as of `as_layer`.
        volume: the scan it belongs to, if known.
    """
    array, grid, resampled = _place(segmentation.labels, segmentation.geometry, frame, nearest=True)
    array = array if array.flags.writeable else array.copy()
    digest = "" if resampled else digest_labels(array)
    source = segmentation.provenance.source
    arguments = {
        "name": name or (f"{source.files[0].path.name}" if source and source.files else "labels"),
        "metadata": {METADATA_KEY: LayerRecord(grid, volume, segmentation, resampled, digest)},
        "opacity": 0.5,
        "features": features_of(segmentation.table),
        **_colour_argument(segmentation.table),
        **grid.layer_arguments(),
    }
    return grid.view(array), arguments, "labels"


def _place(
    array: npt.NDArray[Any], geometry: Geometry, frame: DisplayFrame | None, *, nearest: bool
) -> tuple[npt.NDArray[Any], DisplayGrid, bool]:
    """An array and how to show it; made anew only where its own voxels would lie wrongly beside what is shown.

    Shear and unequal slices are no reason: they are there in the scan's own frame, too.
    """
    grid = DisplayGrid.of(geometry, frame)
    if frame is None or grid.agrees or DisplayGrid.of(geometry).error_mm > grid.error_mm / 2:
        return array, grid, False
    from napari_effvit_med.resampling import resample_into

    array, straight = resample_into(array, geometry, frame, nearest=nearest)
    return array, DisplayGrid.of(straight, frame), True


def features_of(table: LabelTable) -> dict[str, list[Any]]:
    """The names of label values as napari shows them in tooltips and in its table of features."""
    rows = [(0, "background"), *((label.value, label.name) for label in table)]
    return {"index": [value for value, _ in rows], "structure": [name for _, name in rows]}


def colours_of(table: LabelTable) -> dict[int | None, Any]:
    """The colours of label values as napari's ``DirectLabelColormap`` takes them; background is clear."""
    clear = np.zeros(4, np.float32)
    colours: dict[int | None, Any] = {None: clear, 0: clear}
    for label in table:
        colours[label.value] = np.array([*(part / 255 for part in label.colour), 1.0], np.float32)
    return colours


def _colour_argument(table: LabelTable) -> dict[str, Any]:
    try:
        from napari.utils.colormaps import DirectLabelColormap
    except ImportError:
        return {}
    return {"colormap": DirectLabelColormap(color_dict=colours_of(table))}


def current_frame() -> DisplayFrame | None:
    """The frame of what the current viewer of napari shows; None if it shows nothing of ours."""
    try:
        from napari import current_viewer
    except ImportError:
        return None
    viewer = current_viewer()
    return None if viewer is None else frame_of(viewer.layers)


def frame_of(layers: Any) -> DisplayFrame | None:
    """The frame of the first of our layers; None if there is none.

    Args:
        layers: napari's list.
    """
    records = (record_of(layer.metadata) for layer in layers)
    return next((record.grid.frame for record in records if record is not None), None)


def _read(path: Path) -> Iterator[Volume | Segmentation]:
    from effvit_med.io import open_input, read_case
    from effvit_med.io.dicom_seg_reading import is_dicom_seg, read_dicom_seg
    from effvit_med.io.itk_images import is_label_map, read_label_map, read_metaimage, read_nrrd

    name = path.name.lower()
    if path.is_file() and is_label_map(path):
        yield read_label_map(path)
    elif name.endswith(".nrrd"):
        yield read_nrrd(path)
    elif name.endswith(".mha"):
        yield read_metaimage(path)
    elif name.endswith(".dcm") and is_dicom_seg(path):
        yield read_dicom_seg(path)
    else:
        with open_input(path, needs_images=False) as found:
            segmentations = [each.path for each in found.set_aside if each.modality == "SEG"]
            _check_number(found.cases, path)
            if not found.cases and found.refused:
                refused = found.refused[0]
                raise InputError(f"{refused.message} {refused.remedy}".strip())
            if not found.cases and not segmentations:
                raise InputError(f"There is no scan in {path.name}: {found.count_set_aside() or 'it is empty'}.")
            for case in found.cases:
                yield read_case(case)
            for each in segmentations:
                if is_dicom_seg(each):
                    yield read_dicom_seg(each)
            _tell([f"{each.case_id}: {each.message} {each.remedy}".strip() for each in found.refused])


def _check_number(cases: Sequence[object], path: Path) -> None:
    if len(cases) > MOST_SERIES:
        raise InputError(
            f"{path.name} holds {len(cases)} scans; open one of its folders, or choose a scan in the panel "
            "Plugins > Segment and review."
        )


def _tell(messages: Sequence[str]) -> None:
    """Say in napari what was left out."""
    if not messages:
        return
    try:
        from napari.utils.notifications import show_warning
    except ImportError:
        return
    show_warning("\n".join(messages))


def _name_of(volume: Volume) -> str:
    return volume.source.case_id if volume.source else volume.modality or "scan"


def _only(path: str | Sequence[str]) -> Path | None:
    if isinstance(path, str | os.PathLike):
        return Path(path)
    return Path(path[0]) if len(path) == 1 else None


def _has_dicom(folder: Path) -> bool:
    """Whether one of the first files below a folder is DICOM."""
    looked = 0
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            looked += 1
            if looked > _SNIFFED_FILES:
                return False
            if _is_dicom(Path(root, name)):
                return True
    return False


def _is_dicom(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
