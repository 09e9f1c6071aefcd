"""An engine in a process of its own, which works when it is asked and waits on its pipe while others do."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

__all__ = ["Answered", "EngineProcess", "Started"]

_STOP_TIMEOUT_S = 20
_MOST_ERROR_LETTERS = 300


@dataclass(frozen=True)
class Started:
    """What a loaded engine says of itself. `gpu_uuid` is the GPU it is on, where it can tell."""

    version: str
    vocab_size: int
    gpu_uuid: str | None = None


@dataclass(frozen=True)
class Answered:
    """Seconds that all answers took together; with our own engine, those between two pieces of the first answer."""

    seconds: float
    gaps_s: Sequence[float] = field(default=())


class EngineProcess:
    """A child process with one engine in it. `error` says why it does nothing any more; None while it works."""

    def __init__(self, arguments: Sequence[str], python: str = sys.executable) -> None:
        self.error: str | None = None
        self._log = tempfile.TemporaryFile("w+", errors="replace")
        command = [python, str(Path(__file__).with_name("peer_engine.py")), *arguments]
        try:
            self._process: subprocess.Popen[str] | None = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
            )
        except OSError as failure:
            self._process, self.error = None, f"{python}: {failure.strerror}"

    def start(self) -> Started | None:
        """Wait until the engine is loaded; None if it could not be."""
        answer = self._answer()
        return None if answer is None else Started(**answer)

    def generate(self, prompts: list[list[int]], new_tokens: int) -> Answered | None:
        """Have all prompts answered at once, each with exactly `new_tokens`; None once the engine has failed."""
        if self.error is not None or self._process is None or self._process.stdin is None:
            return None
        try:
            print(json.dumps({"prompts": prompts, "new_tokens": new_tokens}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # it has ended: its last words say why
        answer = self._answer()
        return None if answer is None else Answered(**answer)

    def peak_memory_bytes(self) -> int | None:
        """Most that this process and its children have been resident with; pages they share count for each."""
        if self._process is None:
            return None
        try:
            root = psutil.Process(self._process.pid)
            return sum(_peak_resident_bytes(process.pid) for process in (root, *root.children(recursive=True)))
        except (psutil.Error, OSError):
            return None

    def stop(self) -> None:
        """End the process; it leaves by itself when its pipe closes."""
        self._log.close()
        if self._process is None:
            return
        if self._process.stdin is not None:
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
        try:
            self._process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answer(self) -> dict[str, Any] | None:
        if self._process is None or self._process.stdout is None:
            return None
        line = self._process.stdout.readline()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        status = self._process.wait()
        self.error = f"{self._last_words()} (exit status {status})"
        return None

    def _last_words(self) -> str:
        self._log.seek(0)
        words = [text.strip() for text in self._log.read().splitlines() if text.strip()]
        return words[-1][:_MOST_ERROR_LETTERS] if words else "it ended without a word"


def _peak_resident_bytes(pid: int) -> int:
    """The kernel's high-water mark; no reading in between could miss it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
