"""Writes one JSON line for every answer that ends: counts, times, how it ended, and the text if that is wanted."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from workbench.plugins import BasePlugin, FinishedRequest, PluginContext, PluginMetadata, hookimpl

__all__ = ["RequestLogger", "plugin"]


class RequestLogger(BasePlugin):
    """Settings: `file` (default: requests.jsonl in the plugin's data folder), `texts` (false: only counts and times),
    `max_bytes` (64 MiB), after which the file becomes FILE.1 and a new one begins."""

    metadata = PluginMetadata(
        name="request-logger",
        version="1.0.0",
        description="Writes one JSON line for every answer that ends.",
        permissions=("requests", "files"),
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.file = Path()

    def initialize(self, context: PluginContext) -> None:
        """Open nothing yet; a path that cannot be written shows here."""
        settings = context.settings
        unknown = sorted(set(settings) - {"file", "texts", "max_bytes"})
        if unknown:
            raise ValueError(f"setting {unknown[0]!r} is not known; there are file, texts and max_bytes")
        self.file = (
            Path(settings["file"]).expanduser() if "file" in settings else context.data_folder / "requests.jsonl"
        )
        self._has_texts = bool(settings.get("texts", False))
        self._max_bytes = int(settings.get("max_bytes", 64 * 1024**2))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.touch(mode=0o600)

    @hookimpl
    def post_request(self, request: FinishedRequest) -> None:
        """Add the line. Called on a thread of the plugins, so that no request waits for the disk."""
        line = json.dumps(self._entry(request), ensure_ascii=False) + "\n"
        with self._lock:
            if self.file.exists() and self.file.stat().st_size + len(line) > self._max_bytes:
                self.file.replace(self.file.with_name(f"{self.file.name}.1"))
            with self.file.open("a", encoding="utf-8") as file:
                file.write(line)

    def _entry(self, request: FinishedRequest) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "time_s": round(time.time(), 3),
            "request_id": request.request_id,
            "index": request.index,
            "num_prompt_tokens": len(request.prompt_token_ids),
            "num_cached_tokens": request.num_cached_tokens,
            "num_generated_tokens": len(request.token_ids),
            "ttft_s": request.ttft_s,
            "total_s": request.total_s,
            "finish_reason": request.finish_reason,
            "error": request.error,
        }
        return {**entry, "text": request.text} if self._has_texts else entry


plugin = RequestLogger()
