"""On a spot instance: two minutes before EC2 takes it back, the endpoint refuses new work and lets the running end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.aws import SpotNotice, SpotWatcher, is_spot_instance

if TYPE_CHECKING:
    from workbench.server.endpoint import Endpoint

__all__ = ["watch_spot"]

_log = logging.getLogger(__name__)
# Left for the process to end and for whoever takes the state away.
_RESERVE_S = 20.0


def watch_spot(
    endpoint: Endpoint,
    *,
    is_spot: Callable[[], bool] = is_spot_instance,
    watcher: Callable[[Callable[[SpotNotice], None]], SpotWatcher] = SpotWatcher,
) -> SpotWatcher | None:
    """Drain and stop `endpoint` when the notice comes; None, with no thread, where this is no spot instance.

    Running requests get the time that is left but for 20 s. Whoever started it calls `stop()` of what is returned.
    """
    if not is_spot():
        return None

    def drain(notice: SpotNotice) -> None:
        left_s = max(0.0, notice.seconds_left() - _RESERVE_S)
        _log.warning("EC2 will %s this instance at %s: draining for %.0f s", notice.action, notice.at, left_s)
        endpoint.stop(drain_s=left_s)

    started = watcher(drain)
    started.start()
    return started
