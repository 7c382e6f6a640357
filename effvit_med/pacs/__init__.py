"""Archives: scans fetched from a PACS, results stored back, and a node that segments what arrives.

Only a command that was told an address opens a connection. What is shown or logged names series by a digest, machines
by AE title and host; no header value of a patient leaves the files.
"""

from effvit_med.pacs.archives import Archive, FoundSeries, StoreOutcome
from effvit_med.pacs.opening import open_archive
from effvit_med.pacs.peers import AllowedPeer, Peer, TlsFiles, WebServer, parse_peer
from effvit_med.pacs.pulling import PullOptions, PullResult, pull
from effvit_med.pacs.pushing import PushResult, push
from effvit_med.pacs.queries import Query, parse_query
from effvit_med.pacs.retrying import Backoff

__all__ = [
    "AllowedPeer",
    "Archive",
    "Backoff",
    "FoundSeries",
    "Peer",
    "PullOptions",
    "PullResult",
    "PushResult",
    "Query",
    "StoreOutcome",
    "TlsFiles",
    "WebServer",
    "open_archive",
    "parse_peer",
    "parse_query",
    "pull",
    "push",
]
