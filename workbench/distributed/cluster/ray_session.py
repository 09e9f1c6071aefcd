"""Ray itself: found, started here, or joined where it runs."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any

from workbench.distributed.cluster.config import ClusterConfig
from workbench.errors import BackendUnavailableError

__all__ = ["import_ray", "join_ray", "leave_ray"]

_log = logging.getLogger(__name__)

_NAMESPACE = "workbench"
_MOST_RAY_STARTS = 3
_LONGEST_CONNECT_S = 5.0
# A process is connected to one Ray at a time, whichever of its models asked for it first.
_was_started_here = False


def import_ray() -> Any:
    """The library. Raises BackendUnavailableError that says how to install it."""
    # It would report to its makers that it is used.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray import serve  # noqa: F401
    except ImportError as error:
        reason = f"a cluster needs Ray: pip install '.[cluster]' in a clone ({error})"
        raise BackendUnavailableError(reason) from error
    # What it tells of its inner life would stand between the lines that are for the user.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return ray


def join_ray(ray: Any, config: ClusterConfig) -> None:
    """Connect this process, to a Ray that is started for it where the config names none.

    Raises BackendUnavailableError.
    """
    if ray.is_initialized():
        return
    options = {"namespace": _NAMESPACE, "logging_level": logging.WARNING, "log_to_driver": False}
    if config.address is None:
        _start_here(ray, options)
        return
    _check_listens(config.address)
    try:
        ray.init(address=config.address, **options)
    except ConnectionError as error:
        raise BackendUnavailableError(
            f"address={config.address!r}: no Ray answers there ({error}); start one with `ray start --head`"
        ) from error


def leave_ray(ray: Any) -> None:
    """End a Ray that was started for this process, once nothing is deployed on it. Another one is left as it is."""
    global _was_started_here
    if _was_started_here and ray.is_initialized() and not ray.serve.status().applications:
        ray.serve.shutdown()
        ray.shutdown()
        _was_started_here = False


def _check_listens(address: str) -> None:
    """Ray itself looks for an address that nobody has for minutes."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if not separator or not port.isdigit():
        # "auto", which Ray looks up in its own files.
        return
    try:
        socket.create_connection((host, int(port)), _LONGEST_CONNECT_S).close()
    except OSError as error:
        raise BackendUnavailableError(
            f"address={address!r}: no Ray answers there ({error}); start one with `ray start --head`"
        ) from error


def _start_here(ray: Any, options: dict[str, Any]) -> None:
    """Ray gives its own processes 15 seconds to start, which a busy machine exceeds; with warm files it does not."""
    global _was_started_here
    for attempt in range(1, _MOST_RAY_STARTS + 1):
        try:
            ray.init(include_dashboard=False, **options)
            _was_started_here = True
            return
        except Exception as error:  # what a start that timed out raises is no more than that
            ray.shutdown()
            if attempt == _MOST_RAY_STARTS:
                raise BackendUnavailableError(f"Ray could not be started on this machine: {error}") from error
            _log.warning("Ray did not start (%s): trying again", error)
