"""Watches for the two-minute notice before EC2 takes a spot instance back. Says when; draining is the caller's."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from workbench.aws.imds import IMDSClient, MetadataAnswer
from workbench.aws.instance import Instance, default_instance
from workbench.errors import ConfigError

__all__ = ["SpotNotice", "SpotWatcher", "is_spot_instance"]

_log = logging.getLogger(__name__)
_NOTICE_PATH = "/latest/meta-data/spot/instance-action"
_REBALANCE_PATH = "/latest/meta-data/events/recommendations/rebalance"
_T = TypeVar("_T")
# What AWS recommends; the notice stays until the end.
_POLL_INTERVAL_S = 5.0


@dataclass(frozen=True)
class SpotNotice:
    """EC2 will stop this instance. `action` is "terminate", "stop" or "hibernate"; `at` is when, in UTC."""

    action: str
    at: datetime

    def seconds_left(self, now: datetime | None = None) -> float:
        """Time until then, 0 when it has passed."""
        return max(0.0, (self.at - (now or datetime.now(UTC))).total_seconds())


class SpotWatcher:
    """Polls the metadata service on a thread of its own and calls `on_notice` once, on that thread.

    `on_rebalance`, where given, is called once when EC2 says that an interruption has become likely. What the callbacks
    raise is logged and ends nothing. `last_problem` says in words why the service could not be read at the last look,
    None when it could. Use it as a context manager, or call `start` and `stop`.
    """

    def __init__(
        self,
        on_notice: Callable[[SpotNotice], None],
        *,
        on_rebalance: Callable[[datetime], None] | None = None,
        client: IMDSClient | None = None,
        poll_interval_s: float = _POLL_INTERVAL_S,
    ) -> None:
        if poll_interval_s <= 0:
            raise ConfigError(f"poll_interval_s={poll_interval_s!r}: must be more than 0")
        self._on_notice = on_notice
        self._on_rebalance = on_rebalance
        self._client = client or IMDSClient()
        self._poll_interval_s = poll_interval_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.notice: SpotNotice | None = None
        self.last_problem: str | None = None

    def start(self) -> None:
        """Begin to watch. A watcher that was started is left as it is."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="workbench-spot-watcher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it: at most the metadata client's budget. May be called from a callback."""
        thread, self._thread = self._thread, None
        self._stopping.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> SpotWatcher:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            notice = self._look(_NOTICE_PATH, _parse_notice)
            if notice is not None:
                self.notice = notice
                return self._call(self._on_notice, notice)
            if self._on_rebalance is not None:
                since = self._look(_REBALANCE_PATH, _parse_rebalance)
                if since is not None:
                    on_rebalance, self._on_rebalance = self._on_rebalance, None
                    self._call(on_rebalance, since)
            self._stopping.wait(self._poll_interval_s)

    def _look(self, path: str, parse: Callable[[MetadataAnswer], _T]) -> _T | None:
        answer = self._client.get(path)
        if answer.status == 404:
            self.last_problem = None
            return None
        if not answer.is_found:
            self.last_problem = answer.reason or f"the metadata service answered HTTP {answer.status}"
            return None
        try:
            parsed = parse(answer)
        except (ValueError, KeyError, TypeError):
            self.last_problem = f"{path} cannot be understood: {answer.text[:100]!r}"
            _log.warning("%s", self.last_problem)
            return None
        self.last_problem = None
        return parsed

    def _call(self, callback: Callable[[_T], None], value: _T) -> None:
        try:
            callback(value)
        except Exception:
            _log.exception("a callback of the spot watcher failed")


def is_spot_instance(instance: Instance | None = None) -> bool:
    """Whether this is an EC2 spot instance: only there is anything to watch."""
    identity = (instance or default_instance()).identity()
    return identity is not None and identity.lifecycle == "spot"


def _parse_notice(answer: MetadataAnswer) -> SpotNotice:
    document = json.loads(answer.text)
    return SpotNotice(str(document["action"]), _parse_time(document["time"]))


def _parse_rebalance(answer: MetadataAnswer) -> datetime:
    return _parse_time(json.loads(answer.text)["noticeTime"])


def _parse_time(text: str) -> datetime:
    """ "2026-11-23T08:22:00Z" in UTC."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
