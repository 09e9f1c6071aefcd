"""The notice, given by a real metadata server while the watcher runs."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from aws.metadata_server import MetadataServer, identity_values, serve_metadata

from workbench.aws import Instance
from workbench.aws.imds import IMDSClient
from workbench.aws.local_hint import HintVerdict, LocalHint
from workbench.aws.spot import SpotNotice, SpotWatcher, is_spot_instance
from workbench.errors import ConfigError

_NOTICE = "/latest/meta-data/spot/instance-action"
_REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
_TEXT = json.dumps({"action": "terminate", "time": "2026-11-23T08:22:00Z"})


def _wait_for_looks(server: MetadataServer, count: int) -> None:
    """Until the service was asked for the notice that many more times."""
    while count:
        count -= server.asked.get(timeout=60) == ("GET", _NOTICE)


def _watcher(server: MetadataServer, on_notice: Callable[[SpotNotice], None], **options) -> SpotWatcher:
    client = IMDSClient(server.endpoint, budget_s=30)
    return SpotWatcher(on_notice, client=client, poll_interval_s=0.01, **options)


def test_a_notice_that_comes_while_watching_is_passed_on_once():
    notices: queue.Queue[SpotNotice] = queue.Queue()
    with serve_metadata({}) as server, _watcher(server, notices.put) as watcher:
        _wait_for_looks(server, 2)
        assert notices.empty() and watcher.notice is None
        server.values[_NOTICE] = _TEXT
        notice = notices.get(timeout=60)
    assert notice == SpotNotice("terminate", datetime(2026, 11, 23, 8, 22, tzinfo=UTC)) == watcher.notice
    assert notices.empty()


def test_the_time_left_ends_at_zero():
    notice = SpotNotice("stop", datetime(2026, 11, 23, 8, 22, tzinfo=UTC))
    assert notice.seconds_left(datetime(2026, 11, 23, 8, 20, tzinfo=UTC)) == 120
    assert notice.seconds_left(datetime(2026, 11, 24, tzinfo=UTC)) == 0


def test_a_rebalance_recommendation_comes_once_and_before_the_notice():
    events: queue.Queue[str] = queue.Queue()
    with serve_metadata({_REBALANCE: json.dumps({"noticeTime": "2026-11-23T08:00:00Z"})}) as server:
        with _watcher(server, lambda notice: events.put("notice"), on_rebalance=lambda at: events.put("rebalance")):
            assert events.get(timeout=60) == "rebalance"
            _wait_for_looks(server, 2)
            server.values[_NOTICE] = _TEXT
            assert events.get(timeout=60) == "notice"
    assert events.empty()


@pytest.mark.parametrize("text", ["soon", "{}", '{"action": "stop", "time": 5}', "[]"])
def test_garbage_is_no_notice_and_watching_goes_on(text: str, caplog: pytest.LogCaptureFixture):
    notices: queue.Queue[SpotNotice] = queue.Queue()
    with caplog.at_level(logging.CRITICAL), serve_metadata({_NOTICE: text}) as server:
        with _watcher(server, notices.put) as watcher:
            _wait_for_looks(server, 2)
            assert "cannot be understood" in watcher.last_problem
            server.values[_NOTICE] = _TEXT
            assert notices.get(timeout=60).action == "terminate"


def test_a_service_that_is_away_for_a_while_is_asked_again():
    notices: queue.Queue[SpotNotice] = queue.Queue()
    with serve_metadata({}) as server, _watcher(server, notices.put) as watcher:
        _wait_for_looks(server, 1)
        server.token_status = 503
        server.accepted = set()
        for _ in range(3):
            while server.asked.get(timeout=60)[0] != "PUT":
                pass
        assert "503" in watcher.last_problem
        server.values[_NOTICE] = _TEXT
        server.token_status = 200
        server.accepted = {server.token}
        assert notices.get(timeout=60).action == "terminate"
        assert watcher.last_problem is None


def test_a_callback_that_fails_is_logged(caplog: pytest.LogCaptureFixture):
    called = threading.Event()

    def fail(notice: SpotNotice) -> None:
        called.set()
        raise RuntimeError("the endpoint does not drain")

    with serve_metadata({_NOTICE: _TEXT}) as server, _watcher(server, fail):
        assert called.wait(60)
    assert "the endpoint does not drain" in caplog.text


def test_stopping_ends_the_thread_also_from_the_callback_and_twice():
    done = threading.Event()
    holder: list[SpotWatcher] = []

    def stop(notice: SpotNotice) -> None:
        holder[0].stop()
        done.set()

    with serve_metadata({_NOTICE: _TEXT}) as server:
        holder.append(_watcher(server, stop))
        holder[0].start()
        holder[0].start()
        assert done.wait(60)
        holder[0].stop()


def test_stopping_does_not_wait_for_the_next_poll():
    with serve_metadata({}) as server:
        watcher = SpotWatcher(
            lambda notice: None, client=IMDSClient(server.endpoint, budget_s=60), poll_interval_s=3600
        )
        watcher.start()
        _wait_for_looks(server, 1)
        watcher.stop()
    assert "workbench-spot-watcher" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(("lifecycle", "is_spot"), [("spot", True), ("on-demand", False)])
def test_only_spot_instances_need_watching(lifecycle: str, is_spot: bool):
    with serve_metadata(identity_values("g5.xlarge", instance_life_cycle=lifecycle)) as server:
        instance = Instance(
            IMDSClient(server.endpoint, budget_s=60),
            read_hint=lambda: LocalHint(HintVerdict.EC2, ""),
            is_disabled=lambda: False,
        )
        assert is_spot_instance(instance) is is_spot


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="poll_interval_s=0"):
        SpotWatcher(lambda notice: None, poll_interval_s=0)
