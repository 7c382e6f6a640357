"""The command line: parse, call the engine, show. Logs go to stderr, results to files, one JSON line to stdout.

Exit codes: 0 all right, 1 failed, 2 usage, 3 some cases refused, 130 stopped by the user. Commands for whole archives
have their own, which their help tells: 1 usage, 2 some cases failed or refused, 3 no images, 75 run again later.
"""

from __future__ import annotations

import sys

import click

from effvit_med.cli import (  # noqa: F401  a command is there once its module is loaded
    archiving,
    batching,
    catalogue,
    clustering,
    deploying,
    evaluating,
    inspecting,
    planning,
    prompting,
    reporting,
    shelving,
)
from effvit_med.cli.app import commands
from effvit_med.cli.running import OUTPUT_TYPES, REMEDIES
from effvit_med.cli.segmenting import demo, segment
from effvit_med.cli.stopping import listen_for_stop
from effvit_med.errors import EffvitError

__all__ = ["OUTPUT_TYPES", "REMEDIES", "commands", "demo", "main", "segment"]


def main() -> None:
    """Run the command line; errors become one line on stderr and an exit code."""
    listen_for_stop()
    try:
        code = commands.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        command = getattr(getattr(error, "ctx", None), "command", None)
        code = getattr(command, "usage_exit_code", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped by the user; what is finished stays, nothing half written is left.", err=True)
        code = 130
    except EffvitError as error:
        click.echo(f"Error: {error}", err=True)
        code = error.exit_code
    sys.exit(code if isinstance(code, int) else 0)
