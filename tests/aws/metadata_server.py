"""A real HTTP server on this machine that speaks the metadata service's protocol, with the faults a test asks for."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Longer than any test waits for what answers at all.
HANGS_S = 60.0
TOKEN = "AQAEAL-token=="
DOCUMENT_PATH = "/latest/dynamic/instance-identity/document"


def identity_values(instance_type: str, **values: str) -> dict[str, str]:
    """Paths and values of an instance of that type; `values` are further names below /latest/meta-data/."""
    document = {
        "accountId": "123456789012",
        "architecture": "x86_64",
        "availabilityZone": "eu-west-1b",
        "instanceId": "i-0abc",
        "instanceType": instance_type,
        "region": "eu-west-1",
    }
    names = {f"/latest/meta-data/{name.replace('__', '/').replace('_', '-')}": text for name, text in values.items()}
    return {DOCUMENT_PATH: json.dumps(document), "/latest/meta-data/instance-life-cycle": "on-demand", **names}


class MetadataServer(ThreadingHTTPServer):
    """`values` maps paths to bodies and may change while it runs; `requests` lists what was asked as (method, path),
    and `asked` gives the same to a test that waits.

    `token` is what it gives out, with `token_status`; `accepted` says which tokens are good. `hang` makes every answer
    wait until the server closes; `drip` sends the body of reads byte by byte.
    """

    daemon_threads = True

    def __init__(
        self,
        values: dict[str, str],
        *,
        token: str = TOKEN,
        token_status: int = 200,
        hang: bool = False,
        drip: bool = False,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.values = values
        self.token = token
        self.token_status = token_status
        self.accepted = {token}
        self.hang = hang
        self.drip = drip
        self.requests: list[tuple[str, str]] = []
        self.asked: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.closing = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up is what some tests are about."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serve_metadata(values: dict[str, str] | None = None, **faults: object) -> Iterator[MetadataServer]:
    """The server, running until the block ends."""
    with MetadataServer({} if values is None else values, **faults) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: MetadataServer

    def do_PUT(self) -> None:
        self._start()
        if self.path != "/latest/api/token" or "X-aws-ec2-metadata-token-ttl-seconds" not in self.headers:
            return self._send(400, "")
        self._send(self.server.token_status, self.server.token)

    def do_GET(self) -> None:
        self._start()
        if self.headers.get("X-aws-ec2-metadata-token") not in self.server.accepted:
            return self._send(401, "")
        value = self.server.values.get(self.path)
        self._send(404 if value is None else 200, value or "")

    def _start(self) -> None:
        self.server.requests.append((self.command, self.path))
        self.server.asked.put((self.command, self.path))
        if self.server.hang:
            self.server.closing.wait(HANGS_S)

    def _send(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.drip and self.command == "GET":
            return self._drip(body)
        self.wfile.write(body)

    def _drip(self, body: bytes) -> None:
        for byte in body:
            try:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
            except OSError:
                return
            if self.server.closing.wait(0.02):
                return

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""
