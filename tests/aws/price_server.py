"""A real HTTP server on this machine that answers GetProducts of the AWS price list, page by page."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def product(instance_type: str, usd: str, *, unit: str = "Hrs", day: str = "2026-11-02") -> str:
    """One entry of a price list in the service's own form: JSON inside a string."""
    dimension = {"unit": unit, "pricePerUnit": {"USD": usd}, "description": f"${usd} per {instance_type}"}
    return json.dumps(
        {
            "product": {"productFamily": "Compute Instance", "attributes": {"instanceType": instance_type}},
            "terms": {"OnDemand": {"SKU.JRTC": {"priceDimensions": {"SKU.JRTC.6YS6": dimension}}}},
            "publicationDate": f"{day}T12:00:00Z",
        }
    )


class PriceServer(ThreadingHTTPServer):
    """`pages` are lists of products; `requests` are the decoded bodies that came. With `status`, only that answer."""

    def __init__(self, pages: list[list[str]], status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = pages
        self.status = status
        self.requests: list[dict] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serve_prices(*pages: list[str], status: int = 200) -> Iterator[PriceServer]:
    """The server, running until the block ends."""
    with PriceServer([*pages], status) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: PriceServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        if self.server.status != 200:
            return self._send({"__type": "AccessDeniedException", "message": "no pricing:GetProducts"})
        index = int(request.get("NextToken", "0"))
        answer: dict[str, object] = {"FormatVersion": "aws_v1", "PriceList": self.server.pages[index]}
        if index + 1 < len(self.server.pages):
            answer["NextToken"] = str(index + 1)
        self._send(answer)

    def _send(self, answer: dict) -> None:
        body = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""
