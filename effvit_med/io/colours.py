"""Names and colours of labels for programs that open a NIfTI label map."""

from __future__ import annotations

from pathlib import Path

from effvit_med.io.atomic import write_text
from effvit_med.volume import NOT_FOR_CLINICAL_USE, LabelTable


def write_slicer_colours(table: LabelTable, path: Path) -> None:
    """Write a colour table of 3D Slicer: load it, then choose it where the label map is loaded.

    Args:
        table: what the values mean.
        path: ``.ctbl``; its folder must exist.

    Raises:
        OutputError: if the file cannot be written.

    Source:
        3D Slicer's text colour tables: value, name without spaces, red, green, blue, opacity.
    """
    lines = [f"# {NOT_FOR_CLINICAL_USE}", f"# {len(table) + 1} values", "0 background 0 0 0 0"]
    lines += [f"{label.value} {'_'.join(label.name.split())} {' '.join(map(str, label.colour))} 255" for label in table]
    write_text(path, "\n".join(lines) + "\n")


def write_snap_labels(table: LabelTable, path: Path) -> None:
    """Write a label description file of ITK-SNAP: Segmentation, Import Label Descriptions.

    Args:
        table: what the values mean.
        path: ``.txt``; its folder must exist.

    Raises:
        OutputError: if the file cannot be written.

    Source:
        ITK-SNAP's label descriptions: index, red, green, blue, opacity, visible, visible as mesh, name in quotes.
    """
    lines = [f"# {NOT_FOR_CLINICAL_USE}", '0 0 0 0 0 0 0 "Clear Label"']
    for label in table:
        name = label.name.replace('"', "'")
        lines.append(f'{label.value} {" ".join(map(str, label.colour))} 1 1 1 "{name}"')
    write_text(path, "\n".join(lines) + "\n")
