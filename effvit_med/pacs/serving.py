"""A node and the service behind it, together, until they are stopped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from effvit_med.errors import CancelledError, OutputError, TemporaryError
from effvit_med.pacs.arrivals import Arrivals
from effvit_med.pacs.node import Node, NodeOptions
from effvit_med.pacs.service import SegmentSeries, Service, ServiceOptions
from effvit_med.pacs.spool import Spool

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServeResult:
    """What a node did.

    Attributes:
        counts: series ``segmented``, ``refused`` and ``failed``, and results ``returned_stored`` and
            ``returned_refused``.
        waiting: series that are not answered yet; they lie in the spool.
    """

    counts: Mapping[str, int]
    waiting: int


def serve(
    spool: Spool,
    node_options: NodeOptions,
    options: ServiceOptions,
    segment: SegmentSeries,
    *,
    stopped: Callable[[], bool] = lambda: False,
    on_start: Callable[[int], None] | None = None,
) -> ServeResult:
    """Listen, segment and return until ``stopped`` says so or the user interrupts.

    Args:
        spool: a spool that is held.
        node_options: how to listen.
        options: how to work.
        segment: segments a series.
        stopped: asked about once a second.
        on_start: called with the port when the node listens.

    Returns:
        What was done.

    Raises:
        SettingsError: if the node cannot listen.
        TemporaryError: if the spool cannot be written to, or the pipeline has lost its device.
    """
    arrivals = Arrivals()
    node = Node(node_options, spool, arrivals)
    service = Service(spool, arrivals, segment, options)
    service.recover()
    node.start()
    if on_start:
        on_start(node.port)
    try:
        while not stopped():
            if not service.step():
                service.wait()
    except (KeyboardInterrupt, CancelledError):
        log.info("stopping; what is not answered stays in the spool")
    except OutputError as error:
        raise TemporaryError(f"{error} The spool is as it was; start the node again when that is mended.") from error
    finally:
        node.stop()
    return ServeResult(dict(service.counts), service.unanswered())
