"""A real HTTP server on this machine that speaks as much of S3 as a reader needs, with the faults a test asks for."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "models"


class ObjectServer(ThreadingHTTPServer):
    """`objects` maps keys to bytes. `reads` lists the ranges that were asked for, as (key, start, end).

    `before_body(handler, key, start)` gives how many bytes of a body to send before the connection ends, None for all;
    it runs on the request's thread and may wait. `etags` overrides ETags;
    `encryption` is what the service says it encrypted objects with; lists come in pages of `page_size`.
    """

    daemon_threads = True

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = objects
        self.etags: dict[str, str] = {}
        self.reads: list[tuple[str, int, int]] = []
        self.before_body: Callable[[Any, str, int], int | None] = lambda handler, key, start: None
        self.serves_ranges = True
        self.encryption: str | None = None
        self.page_size = 1000

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def etag(self, key: str) -> str:
        return self.etags.get(key) or hashlib.md5(self.objects[key]).hexdigest()

    def handle_error(self, request: object, client_address: object) -> None:
        """A reader that went away is what some tests are about."""


@contextmanager
def serve_objects(objects: dict[str, bytes]) -> Iterator[ObjectServer]:
    """The server, running until the block ends."""
    with ObjectServer(objects) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ObjectServer

    def do_HEAD(self) -> None:
        key = self._key()
        if key not in self.server.objects:
            return self._head(404, 0)
        encryption = {"x-amz-server-side-encryption": self.server.encryption} if self.server.encryption else {}
        self._head(200, len(self.server.objects[key]), ETag=f'"{self.server.etag(key)}"', **encryption)

    def do_GET(self) -> None:
        if "list-type" in urlsplit(self.path).query:
            return self._list()
        key = self._key()
        if self.headers.get("If-Match", "").strip('"') not in ("", self.server.etag(key)):
            return self._error(412, "PreconditionFailed")
        data = self.server.objects[key]
        start, end = self._range(len(data))
        self.server.reads.append((key, start, end))
        headers = {"ETag": f'"{self.server.etag(key)}"'}
        if self.server.serves_ranges:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._head(206 if self.server.serves_ranges else 200, end - start, **headers)
        limit = self.server.before_body(self, key, start)
        self.wfile.write(data[start:end][:limit])
        if limit is not None:
            self.close_connection = True

    def _key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")

    def _range(self, size: int) -> tuple[int, int]:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if match is None or not self.server.serves_ranges:
            return 0, size
        return int(match[1]), min(int(match[2]) + 1, size)

    def _list(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        prefix = query.get("prefix", [""])[0]
        first = int(query.get("continuation-token", ["0"])[0])
        keys = sorted(key for key in self.server.objects if key.startswith(prefix))
        last = first + self.server.page_size
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.server.objects[key])}</Size>"
            f"<ETag>&quot;{self.server.etag(key)}&quot;</ETag></Contents>"
            for key in keys[first:last]
        )
        more = f"<NextContinuationToken>{last}</NextContinuationToken>" if last < len(keys) else ""
        truncated = f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        body = f"<ListBucketResult>{truncated}{more}{entries}</ListBucketResult>".encode()
        self._head(200, len(body))
        self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self._head(status, len(body))
        self.wfile.write(body)

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the tests' output quiet."""
