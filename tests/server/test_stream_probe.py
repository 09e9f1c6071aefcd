"""The probe against a real socket that streams, holds back, refuses or is not there."""

import socketserver
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from workbench.server.stream_probe import probe_stream


@contextmanager
def _server(pause_s=0.0, status=200, num_events=5):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for _ in range(num_events):
                self.wfile.write(b'data: {"choices": []}\n\n')
                self.wfile.flush()
                time.sleep(pause_s)

        def log_message(self, *_):
            pass

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def test_events_one_by_one_are_a_stream():
    with _server(pause_s=0.02) as url:
        probe = probe_stream(url, "key")
    assert (probe.is_reached, probe.is_streaming, probe.message) == (True, True, "Streams: 5 events, one by one.")


def test_events_all_at_once_were_held_back():
    with _server() as url:
        # A clock that does not move: all came together.
        probe = probe_stream(url, None, clock=lambda: 0.0)
    assert probe.is_reached and not probe.is_streaming
    assert "jupyter-server-proxy 4.4" in probe.message


@pytest.mark.parametrize(("is_held_back", "words"), [(False, "Streams: 9 events"), (True, "came all at once")])
def test_quick_tokens_are_told_from_held_back_ones_by_a_longer_stream(is_held_back, words):
    # A token a thousandth of a second. Each answer asks the clock once an event, the second one also when it is asked.
    first = [0.001 * n for n in range(9)]
    asked_s = 1.0
    second = [asked_s + (0.1 if is_held_back else 0.001 * n) for n in range(9)]
    times_s = iter([*first, asked_s, *second])
    with _server(num_events=9) as url:
        probe = probe_stream(url, None, clock=lambda: next(times_s))
    assert probe.is_streaming is not is_held_back
    assert words in probe.message


@pytest.mark.parametrize(
    ("status", "words"), [(401, "the key was refused"), (404, "nothing answers"), (502, "refused")]
)
def test_a_refusal_is_said(status, words):
    with _server(status=status) as url:
        probe = probe_stream(url, "key")
    assert not probe.is_reached
    assert words in probe.message


def test_nobody_there_is_said_and_not_raised():
    assert probe_stream("http://127.0.0.1:9/v1", None).message.startswith("Not reached: ConnectError")
