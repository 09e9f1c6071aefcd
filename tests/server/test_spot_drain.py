"""An endpoint on a spot instance ends within its notice, and lets what runs end first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aws.metadata_server import identity_values, serve_metadata

from workbench.aws import SpotNotice
from workbench.server.spot_drain import watch_spot


class FakeEndpoint:
    def __init__(self) -> None:
        self.drains: list[float] = []
        self.stopped = threading.Event()

    def stop(self, drain_s: float) -> None:
        self.drains.append(drain_s)
        self.stopped.set()


class FakeWatcher:
    """Gives its notice when it is started."""

    def __init__(self, on_notice, seconds: float) -> None:
        self._on_notice = on_notice
        self._seconds = seconds
        self.is_started = False

    def start(self) -> None:
        self.is_started = True
        self._on_notice(SpotNotice("terminate", datetime.now(UTC) + timedelta(seconds=self._seconds)))


def test_elsewhere_nothing_is_watched() -> None:
    endpoint = FakeEndpoint()
    assert watch_spot(endpoint, is_spot=lambda: False) is None and endpoint.drains == []


def test_the_notice_drains_the_endpoint_within_the_time_left() -> None:
    endpoint = FakeEndpoint()
    watcher = watch_spot(endpoint, is_spot=lambda: True, watcher=lambda notice: FakeWatcher(notice, 120))
    assert watcher.is_started and 95 < endpoint.drains[0] <= 100
    late = FakeEndpoint()
    watch_spot(late, is_spot=lambda: True, watcher=lambda notice: FakeWatcher(notice, 5))
    assert late.drains == [0.0]


_SERVE = "import sys; from workbench.cli import main; sys.exit(main(sys.argv[1:]))"


def test_serve_ends_well_after_the_notice(tiny_model_folder: Path) -> None:
    # A supervisor starts again what fails: here that would be on an instance about to go.
    end = datetime.now(UTC) + timedelta(seconds=90)
    notice = json.dumps({"action": "terminate", "time": end.isoformat()})
    values = identity_values("g5.xlarge", instance_life_cycle="spot", spot__instance_action=notice)
    with serve_metadata(values) as metadata:
        command = ["serve", "--model", str(tiny_model_folder), "--no-prefer-gpu", "--port", "0"]
        environ = {**os.environ, "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.endpoint}
        environ.pop("AWS_EC2_METADATA_DISABLED", None)
        done = subprocess.run(
            [sys.executable, "-c", _SERVE, *command], env=environ, capture_output=True, text=True, timeout=240
        )
    assert "EC2 will terminate this instance" in done.stderr
    assert done.returncode == 0, done.stderr
