"""The group that all commands belong to, and the options that several share."""

from __future__ import annotations

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med import __version__

BUNDLE_HELP = "name of a bundle that comes along, or folder of a bundle or exported model; abdomen-phantom if not given"


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=NOTICE)
@click.version_option(__version__, prog_name="effvit-med")
def commands() -> None:
    """Segment medical scans with EfficientViT, on this machine.

    A DICOM study, a NIfTI file or photographs in; DICOM SEG, NIfTI or PNG, measurements, a picture and a record out.
    Nothing leaves this machine. Research use only, not for clinical use.
    """
