"""A hub in one process: serves folders over HTTP the way huggingface_hub asks for them."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

__all__ = ["FakeHub"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Repositories by name, each a folder; revisions "main" and the commit. Use as a context manager.

    `on_file` is called in the server's thread before a file body is sent.
    """

    def __init__(self, repos: dict[str, Path], gated: frozenset[str] = frozenset()) -> None:
        self.repos = repos
        self.gated = gated
        self.is_broken = False
        self.requests: list[str] = []
        self.on_file = lambda name: None
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._route(with_body=False)

    def do_GET(self) -> None:
        self._route(with_body=True)

    def log_message(self, *arguments: object) -> None:
        pass

    def _route(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.owner.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts == ["api", "models"]:
            found = [{"id": name, "downloads": 1, "gated": False} for name in self.owner.repos]
            self._send(500 if self.owner.is_broken else 200, json.dumps(found).encode(), with_body)
        elif parts[:2] == ["api", "models"] and len(parts) > 3:
            self._api(parts[2] + "/" + parts[3], parts[4:], with_body)
        elif len(parts) < 5:
            self._send(404, b"", with_body)
        else:
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), with_body)

    def _api(self, repo: str, rest: list[str], with_body: bool) -> None:
        revision = rest[1] if len(rest) > 1 else "main"
        if not self._refused(repo, revision):
            files = sorted(path for path in self.owner.repos[repo].rglob("*") if path.is_file())
            names = [(path.relative_to(self.owner.repos[repo]).as_posix(), path) for path in files]
            if rest[:1] == ["tree"]:
                answer = [
                    {"type": "file", "path": name, "size": path.stat().st_size, "oid": _etag(path)}
                    for name, path in names
                ]
            else:
                siblings = [{"rfilename": name, "size": path.stat().st_size} for name, path in names]
                answer = {"_id": "1", "id": repo, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}
            self._send(200, json.dumps(answer).encode(), with_body)

    def _file(self, repo: str, revision: str, name: str, with_body: bool) -> None:
        if self._refused(repo, revision):
            return
        path = self.owner.repos[repo] / name
        if not path.is_file():
            self._send(404, b"", with_body, **{"X-Error-Code": "EntryNotFound"})
            return
        if with_body:
            self.owner.on_file(name)
        self._send(200, path.read_bytes(), with_body, **{"ETag": f'"{_etag(path)}"', "X-Repo-Commit": COMMIT})

    def _refused(self, repo: str, revision: str) -> bool:
        if self.owner.is_broken:
            self._send(500, b"", False)
        elif repo in self.owner.gated:
            self._send(403, b"", False, **{"X-Error-Code": "GatedRepo"})
        elif repo not in self.owner.repos:
            self._send(404, b"", False, **{"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._send(404, b"", False, **{"X-Error-Code": "RevisionNotFound"})
        else:
            return False
        return True

    def _send(self, status: int, body: bytes, with_body: bool, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()
