"""The metadata client against a real server on this machine: version 2 only, and never longer than its budget."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from aws.metadata_server import HANGS_S, serve_metadata

from workbench.aws.imds import IMDSClient, is_metadata_disabled
from workbench.errors import ConfigError

_PATH = "/latest/meta-data/instance-type"


def _elapsed_s(client: IMDSClient) -> tuple[float, str]:
    start = time.monotonic()
    answer = client.get(_PATH)
    assert answer.status is None
    return time.monotonic() - start, answer.reason


def test_a_value_is_read_with_a_token_that_is_asked_for_once():
    with serve_metadata({_PATH: "g5.xlarge"}) as server:
        client = IMDSClient(server.endpoint, budget_s=60)
        assert [client.get(_PATH).text for _ in range(3)] == ["g5.xlarge"] * 3
    assert server.requests == [("PUT", "/latest/api/token"), *[("GET", _PATH)] * 3]


def test_an_absent_value_is_told_from_an_absent_service():
    with serve_metadata({}) as server:
        answer = IMDSClient(server.endpoint, budget_s=60).get(_PATH)
    assert (answer.status, answer.is_found) == (404, False)


def test_an_expired_token_is_renewed():
    with serve_metadata({_PATH: "g5.xlarge"}) as server:
        client = IMDSClient(server.endpoint, budget_s=60)
        client.get(_PATH)
        server.token = "second"
        server.accepted = {"second"}
        assert client.get(_PATH).text == "g5.xlarge"
    assert server.requests.count(("PUT", "/latest/api/token")) == 2


def test_a_service_that_refuses_its_own_token_is_given_up():
    with serve_metadata({_PATH: "g5.xlarge"}) as server:
        server.accepted = set()
        _, reason = _elapsed_s(IMDSClient(server.endpoint, budget_s=60))
    assert "refuses" in reason
    assert len(server.requests) == 4


def test_a_service_without_tokens_is_never_read_the_old_way():
    with serve_metadata({_PATH: "g5.xlarge"}, token_status=403) as server:
        _, reason = _elapsed_s(IMDSClient(server.endpoint, budget_s=60))
    assert "no session token (HTTP 403)" in reason
    assert not [method for method, _ in server.requests if method == "GET"]


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_slow_service_holds_the_caller_for_the_budget_only(fault: str):
    with serve_metadata({_PATH: "x" * 1000}, **{fault: True}) as server:
        elapsed_s, reason = _elapsed_s(IMDSClient(server.endpoint, budget_s=0.15))
    assert 0.1 < elapsed_s < HANGS_S / 2
    assert "within 0.15 s" in reason


def test_the_default_budget_is_one_second():
    with serve_metadata(hang=True) as server:
        elapsed_s, reason = _elapsed_s(IMDSClient(server.endpoint))
    assert "within 1 s" in reason
    assert 0.9 < elapsed_s < HANGS_S / 2


def test_one_deadline_covers_several_reads():
    with serve_metadata(hang=True) as server:
        client = IMDSClient(server.endpoint, budget_s=0.15)
        deadline = client.start_deadline()
        start = time.monotonic()
        assert [client.get(_PATH, deadline).status for _ in range(4)] == [None] * 4
    assert time.monotonic() - start < HANGS_S / 2


def test_nothing_listening_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    _, reason = _elapsed_s(IMDSClient(f"http://127.0.0.1:{port}", budget_s=60))
    assert "can be reached" in reason, "which is known before the budget is over"


@pytest.mark.parametrize("token", ["two\x07bells", "", "x" * 5000, "caf\u00e9"])
def test_a_garbage_token_is_not_sent_back(token: str):
    with serve_metadata({_PATH: "g5.xlarge"}, token=token) as server:
        _, reason = _elapsed_s(IMDSClient(server.endpoint, budget_s=60))
    assert "garbage" in reason
    assert not [method for method, _ in server.requests if method == "GET"]


def test_a_server_that_does_not_speak_http_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = IMDSClient(f"http://127.0.0.1:{listener.getsockname()[1]}", budget_s=30)
        listener.settimeout(60)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"\x00\xff SSH-2.0-none\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        _, reason = _elapsed_s(client)
        thread.join()
    assert "not the metadata service" in reason or "can be reached" in reason


def test_an_endless_answer_is_cut():
    with serve_metadata({_PATH: "x" * 200_000}) as server:
        _, reason = _elapsed_s(IMDSClient(server.endpoint, budget_s=60))
    assert "far too long" in reason


@pytest.mark.parametrize(
    "endpoint", ["https://169.254.169.254", "http://metadata.example", "169.254.169.254", "http://1.2.3.4/x"]
)
def test_an_endpoint_that_cannot_be_one_is_refused(endpoint: str):
    with pytest.raises(ConfigError, match="metadata endpoint"):
        IMDSClient(endpoint)


def test_the_endpoint_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    with serve_metadata({_PATH: "p5.48xlarge"}) as server:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", server.endpoint)
        assert IMDSClient(budget_s=60).get(_PATH).text == "p5.48xlarge"


@pytest.mark.parametrize(("value", "disabled"), [("true", True), ("TRUE", True), ("false", False), ("", False)])
def test_the_switch_is_the_one_of_the_other_tools(value: str, disabled: bool):
    assert is_metadata_disabled({"AWS_EC2_METADATA_DISABLED": value}) is disabled
