"""Commands that speak to a PACS: ``pacs pull``, ``pacs push`` and ``pacs serve``."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from effvit_med import NOT_FOR_CLINICAL_USE as NOTICE
from effvit_med.cli.app import BUNDLE_HELP, commands
from effvit_med.cli.batching import BatchGroup, make_batch_options
from effvit_med.cli.running import REMEDIES, run_options
from effvit_med.cli.showing import progress_bar, start_logging
from effvit_med.cli.stopping import listen_for_gentle_stop
from effvit_med.errors import EffvitError, OutputError, SettingsError, TemporaryError

if TYPE_CHECKING:
    from effvit_med.pacs import Archive, Backoff, Peer, TlsFiles
    from effvit_med.pacs.node import NodeOptions
    from effvit_med.pacs.service import ServiceOptions

Command = TypeVar("Command", bound=Callable[..., Any])
log = logging.getLogger(__name__)
FILE = click.Path(path_type=Path, dir_okay=False)
TLS_FILES = ("tls_ca", "tls_cert", "tls_key")
AUTH = ("auth_env", "auth_file")


class _Group(BatchGroup):
    """A group whose wrong settings end with 1, as wrong usage does, and a full disk with 75."""

    def invoke(self, ctx: click.Context) -> Any:
        """Parse and run a command."""
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            raise EffvitError(str(error)) from error
        except OutputError as error:
            if getattr(error.__cause__, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise TemporaryError(f"{error} Run the same command again.") from error
            raise


def _several(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


_tls_options = _several(
    click.option("--tls", is_flag=True, help="speak DICOM over TLS"),
    click.option("--tls-ca", type=FILE, help="certificates to trust and no others (PEM); public ones if not given"),
    click.option("--tls-cert", type=FILE, help="our certificate (PEM)"),
    click.option("--tls-key", type=FILE, help="the private key of our certificate (PEM)"),
)
_auth_options = _several(
    click.option("--auth-env", metavar="NAME", help="environment variable with the credentials for DICOMweb"),
    click.option(
        "--auth-file",
        type=FILE,
        help="file with them; one line: bearer TOKEN, basic USER:PASSWORD, or header NAME: VALUE",
    ),
)
_archive_options = _several(
    click.option("--url", help="a DICOMweb server, such as http://127.0.0.1:8042/dicom-web"),
    click.option("--peer", metavar="AET@HOST:PORT", help="or a DICOM node, such as ORTHANC@127.0.0.1:4242"),
    click.option("--aet", default="EFFVIT", show_default=True, help="our own AE title"),
    _auth_options,
    _tls_options,
    click.option(
        "--retries", type=click.IntRange(0), default=4, show_default=True, help="tries again if the PACS is away"
    ),
)
_loudness = _several(
    click.option("-q", "--quiet", is_flag=True, help="no progress bar, only warnings and errors"),
    click.option("-v", "--verbose", is_flag=True, help="say more, with traces of faults"),
)


@commands.group(cls=_Group, epilog=NOTICE, short_help="Fetch from a PACS, store into it, or listen as a DICOM node.")
def pacs() -> None:
    """Fetch series from a PACS, store results into it, or listen as a DICOM node.

    A PACS is named by --url (DICOMweb) or --peer (DICOM). Nothing else is spoken to. Needs the libraries of
    effvit-med[pacs].

    Exit codes: 0 all done; 1 usage, configuration or refused by the PACS; 2 finished, some series or files failed or
    were refused; 3 nothing to do; 75 the PACS is away: run again, it goes on; 130 stopped.
    """


@pacs.command(epilog=NOTICE)
@_archive_options
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="folder to fill")
@click.option("--study", metavar="UID", help="Study Instance UID")
@click.option("--series", metavar="UID", help="Series Instance UID")
@click.option("--series-description", help="Series Description; * and ? are wildcards")
@click.option(
    "--query", "queries", multiple=True, metavar="KEY=VALUE", help="a DICOM keyword and what it must be; repeatable"
)
@click.option("--query-file", type=FILE, help="KEY=VALUE lines, which other users of this machine do not see")
@click.option("--limit", type=click.IntRange(1), help="fetch no more than so many series")
@click.option(
    "--max-instances", type=click.IntRange(1), default=20_000, show_default=True, help="leave out larger series"
)
@click.option(
    "--max-series-mb",
    type=click.FloatRange(0, min_open=True),
    default=16_384,
    show_default=True,
    help="leave out larger series",
)
@_loudness
def pull(output: Path, quiet: bool, verbose: bool, **options: Any) -> int:
    """Fetch every series that matches into a folder of its own.

    Example: effvit-med pacs pull --url http://127.0.0.1:8042/dicom-web -o scans --query Modality=CT
    --query StudyDate=20240101-20240131

    A series is there whole or not at all. The same command again fetches only what is missing. Folders and files are
    named by digests of their UIDs.
    """
    start_logging(quiet, verbose)
    from effvit_med.pacs import PullOptions, parse_query
    from effvit_med.pacs import pull as fetch

    query = parse_query(_query_lines(options), options["limit"])
    archive = _open_archive(options, options["max_series_mb"])
    limits = PullOptions(options["max_instances"], options["max_series_mb"], _backoff(options))
    with progress_bar(hidden=quiet) as bar:
        result = fetch(archive, query, output, limits, bar.update)
    series = [
        {"series": s.name, "status": s.status, "instances": s.instances, "message": s.message} for s in result.series
    ]
    click.echo(json.dumps({"output": str(output), "series": series, "notice": NOTICE}))
    if not series and not quiet:
        click.echo("No series matches.", err=True)
    return result.exit_code


@pacs.command(epilog=NOTICE)
@click.argument("sources", metavar="OUTPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@_archive_options
@click.option(
    "--journal",
    type=click.Path(path_type=Path, file_okay=False),
    help="folder that remembers what is stored; OUTPUT/journal if not given, none for single files",
)
@_loudness
def push(sources: tuple[Path, ...], journal: Path | None, quiet: bool, verbose: bool, **options: Any) -> int:
    """Store the segmentations, structure sets and reports in OUTPUT: folders of a batch, or single files.

    A second run sends only what is not stored yet. Where a PACS refuses a LABELMAP segmentation, the BINARY one in
    the same folder is sent instead, if there is one.
    """
    start_logging(quiet, verbose)
    from effvit_med.pacs import push as store
    from effvit_med.pacs.pushing import PushJournal, describe_outcomes, find_results

    work = [(source, find_results(source)) for source in sources]
    archive = _open_archive(options)
    results = []
    for source, files in work:
        folder = journal or (source / "journal" if source.is_dir() else None)
        with progress_bar(hidden=quiet) as bar:
            notes = PushJournal(folder, archive.name)
            results.append(store(archive, files, notes, _backoff(options), on_progress=bar.update))
    counts = {
        name: sum(result.counts[name] for result in results) for name in ("stored", "already", "refused", "unsent")
    }
    refused = [each for result in results for each in describe_outcomes(result.outcomes)]
    click.echo(json.dumps({"pacs": archive.name, **counts, "refusals": refused, "notice": NOTICE}))
    codes = {result.exit_code for result in results}
    return next((code for code in (75, 2, 0) if code in codes), 3)


@pacs.command(epilog=NOTICE)
@click.option("--spool", required=True, type=click.Path(path_type=Path, file_okay=False), help="folder to work in")
@click.option("--aet", default="EFFVIT", show_default=True, help="our AE title, which callers must name")
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", type=click.IntRange(0, 65535), default=11112, show_default=True, help="port to listen on")
@click.option(
    "--allow-peer", "allowed", multiple=True, metavar="AET[@ADDRESS]", help="who may send; repeatable, at least one"
)
@click.option(
    "--return",
    "return_peers",
    multiple=True,
    metavar="AET@HOST:PORT",
    help="where results go; of several, the one with the sender's AE title, else the first",
)
@click.option("--return-url", help="or a DICOMweb server where results go")
@click.option("--return-tls", is_flag=True, help="speak TLS to the --return peers, with the --tls-* files")
@_auth_options
@_tls_options
@click.option(
    "--stable-s",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="a series is complete if nothing came for so many seconds",
)
@click.option(
    "--max-instance-mb", type=click.FloatRange(0, min_open=True), default=512, show_default=True, help="refuse larger"
)
@click.option(
    "--max-series-instances", type=click.IntRange(1), default=10_000, show_default=True, help="refuse more of a series"
)
@click.option(
    "--max-spool-gb", type=click.FloatRange(0, min_open=True), default=50, show_default=True, help="refuse beyond"
)
@click.option(
    "--max-associations", type=click.IntRange(1), default=4, show_default=True, help="callers at the same time"
)
@click.option("--bundle", type=click.Path(path_type=Path), help=BUNDLE_HELP)
@click.option("--allow", multiple=True, type=click.Choice(REMEDIES), help="as for segment")
@click.option("--keep-ids", is_flag=True, help="keep names of files and UIDs in logs and records")
@click.option(
    "--require-deidentified", is_flag=True, help="refuse series that do not say Patient Identity Removed: YES"
)
@click.option(
    "--seg-type",
    type=click.Choice(["binary", "labelmap"]),
    default="binary",
    show_default=True,
    help="kind of DICOM SEG",
)
@run_options
@_loudness
def serve(spool: Path, quiet: bool, verbose: bool, **options: Any) -> int:
    """Listen as a DICOM node, segment each series that arrives, and return the segmentation.

    Received images lie in the spool until their series is answered; after a stop or a crash the same command goes on.
    Listens on this machine only, unless --host says otherwise. Stops at Ctrl+C or SIGTERM: exit code 0 if all series
    are answered, 75 if some wait in the spool.
    """
    start_logging(quiet, verbose)
    from effvit_med.pacs.libraries import need_pynetdicom

    need_pynetdicom()
    _check_node_protection(options)
    from effvit_med.pacs.spool import Spool, SpoolLimits

    batch = make_batch_options(options)
    node, service = _node_options(options), _service_options(options)
    limits = SpoolLimits(options["max_instance_mb"], options["max_series_instances"], options["max_spool_gb"])
    place = Spool(spool, limits)
    with place.held():
        from effvit_med.batch import Pipeline
        from effvit_med.pacs.segmenting import segment_with
        from effvit_med.pacs.serving import serve as work

        with Pipeline(batch) as pipeline:
            log.info("model %s on %s", pipeline.model["bundle"], pipeline.model["device"])
            stopped = listen_for_gentle_stop()
            result = work(place, node, service, segment_with(pipeline, batch, stopped), stopped=stopped)
    click.echo(json.dumps({"spool": str(spool), **result.counts, "waiting": result.waiting, "notice": NOTICE}))
    return 75 if result.waiting else 0


def _query_lines(options: dict[str, Any]) -> list[str]:
    """All that the user asked for, as KEY=VALUE."""
    lines = list(options["queries"])
    named = {"StudyInstanceUID": "study", "SeriesInstanceUID": "series", "SeriesDescription": "series_description"}
    lines.extend(f"{key}={options[name]}" for key, name in named.items() if options[name])
    file: Path | None = options["query_file"]
    if file:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"The query file {file} cannot be read: {error}.") from error
        lines.extend(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return lines


def _refuse_given(options: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    """Options that would silently do nothing, such as files for TLS on a plain connection, are wrong usage."""
    given = [f"--{name.replace('_', '-')}" for name in names if options[name]]
    if given:
        raise click.UsageError(f"{', '.join(given)}: {why}")


def _is_https(url: str | None) -> bool:
    return bool(url) and str(url).lower().startswith("https:")


def _check_protection(options: dict[str, Any]) -> None:
    """Whether what is to protect a connection of pull or push has one that it protects."""
    if options["peer"]:
        if not options["tls"]:
            _refuse_given(options, TLS_FILES, "the connection would be plain DICOM. Add --tls.")
        _refuse_given(options, AUTH, "credentials are for DICOMweb (--url); DICOM (--peer) has --tls-cert.")
    elif not _is_https(options["url"]):
        _refuse_given(options, ("tls", *TLS_FILES), "the connection would be plain HTTP. Give an https:// URL.")


def _check_node_protection(options: dict[str, Any]) -> None:
    """The same for serve, which takes calls and makes calls."""
    if not (options["tls"] or options["return_tls"] or _is_https(options["return_url"])):
        remedy = "Add --tls for callers, --return-tls for --return peers, or an https:// URL as --return-url."
        _refuse_given(options, TLS_FILES, f"no connection would use TLS. {remedy}")
    if not options["return_peers"]:
        _refuse_given(options, ("return_tls",), "there is no --return peer to speak TLS to. Add one.")
    if not options["return_url"]:
        _refuse_given(options, AUTH, "credentials are for DICOMweb. Add --return-url.")


def _tls(options: dict[str, Any]) -> TlsFiles:
    from effvit_med.pacs import TlsFiles

    return TlsFiles(options["tls_ca"], options["tls_cert"], options["tls_key"])


def _backoff(options: dict[str, Any]) -> Backoff:
    from effvit_med.pacs import Backoff

    return Backoff(retries=options["retries"])


def _open_archive(options: dict[str, Any], max_series_mb: float = 16_384) -> Archive:
    """The PACS that --url or --peer names."""
    from effvit_med.pacs import WebServer, open_archive, parse_peer
    from effvit_med.pacs.peers import read_credentials

    if bool(options["url"]) == bool(options["peer"]):
        raise click.UsageError("Name the PACS: either --url (DICOMweb) or --peer (DICOM).")
    _check_protection(options)
    if options["peer"]:
        return open_archive(parse_peer(options["peer"], options["aet"], _tls(options) if options["tls"] else None))
    headers = read_credentials(options["auth_env"], options["auth_file"])
    return open_archive(WebServer(options["url"], headers, _tls(options)), max_series_mb)


def _node_options(options: dict[str, Any]) -> NodeOptions:
    from effvit_med.pacs.node import NodeOptions
    from effvit_med.pacs.peers import check_ae_title, parse_allowed_peer

    return NodeOptions(
        ae_title=check_ae_title(options["aet"]),
        host=options["host"],
        port=options["port"],
        allowed=tuple(parse_allowed_peer(text) for text in options["allowed"]),
        tls=_tls(options) if options["tls"] else None,
        max_associations=options["max_associations"],
    )


def _service_options(options: dict[str, Any]) -> ServiceOptions:
    from effvit_med.pacs import WebServer, open_archive, parse_peer
    from effvit_med.pacs.peers import read_credentials
    from effvit_med.pacs.service import ServiceOptions

    if options["return_peers"] and options["return_url"]:
        raise click.UsageError("Results go to --return peers or to --return-url, not both.")
    tls = _tls(options) if options["return_tls"] else None
    peers: list[Peer] = [parse_peer(text, options["aet"], tls) for text in options["return_peers"]]
    archives = {peer.ae_title: open_archive(peer) for peer in peers}
    default = next(iter(archives.values()), None)
    if options["return_url"]:
        headers = read_credentials(options["auth_env"], options["auth_file"])
        default = open_archive(WebServer(options["return_url"], headers, _tls(options)))
    return ServiceOptions(options["stable_s"], archives, default)
